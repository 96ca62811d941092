"""Rendering by invariants: what must not change, what must, and what must be inaudible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhf_core.audio.demo_songs import DemoSong
from rlhf_core.audio.io import Audio, read_audio
from rlhf_core.audio.render import crossfade, render_edl, render_pair
from rlhf_core.editing.actions import Action
from rlhf_core.errors import AudioError
from rlhf_core.types import BeatGrid
from tests.audio.edits import edit, random_edl

Demo = Callable[[int], DemoSong]
Sounds = Callable[[int], Audio]
RATE = 44100


def test_keeping_everything_is_the_source(demo: Demo, demo_audio: Sounds) -> None:
    audio, grid = demo_audio(0), demo(0).grid
    edl = edit(grid, {}, 16, 48)
    start = round(grid.times[16] * RATE)
    out = render_edl(audio, edl)
    assert len(out) == round(edl.duration_s * RATE)
    np.testing.assert_array_equal(
        out[200:-400], audio.samples[start + 200 : start + len(out) - 400]
    )
    assert np.abs(out[0]).max() < 1e-3 and np.abs(out[-1]).max() < 1e-3


@pytest.mark.parametrize("action", [action for action in Action if action != Action.KEEP])
def test_every_other_action_changes_the_audio(
    action: Action, demo: Demo, demo_audio: Sounds
) -> None:
    audio, grid = demo_audio(0), demo(0).grid
    plain = render_edl(audio, edit(grid, {}, 24, 56))
    out = render_edl(audio, edit(grid, {8: action}, 24, 56))
    count = min(len(out), len(plain))
    assert len(out) != len(plain) or np.abs(out[:count] - plain[:count]).max() > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_length_and_grid_are_as_the_edl_says(seed: int, demo: Demo, demo_audio: Sounds) -> None:
    audio, grid = demo_audio(seed), demo(seed).grid
    edl = random_edl(grid, seed)
    out = render_edl(audio, edl)
    assert out.shape == (round(edl.duration_s * RATE), 2) and out.dtype == np.float32
    assert np.isfinite(out).all()
    times, margin = edl.output_times, 2800  # beyond any cross-fade and edge
    for index, beat in enumerate(edl.beats):
        if beat.reverse or beat.gain_start != 1 or beat.gain_end != 1:
            continue
        at, source = round(times[index] * RATE), round(grid.times[beat.source_beat] * RATE)
        length = round((times[index + 1] - times[index]) * RATE)
        part = slice(margin, length - margin)
        difference = np.abs(
            out[at:][part] - audio.samples[source - 3 : source + length + 3][3:][part]
        ).max()
        shifts = [np.abs(out[at:][part] - audio.samples[source + s :][part]).max() for s in (-1, 1)]
        assert min(difference, *shifts) == 0.0  # at most rounding to the next sample


def test_cross_fading_identical_audio_is_the_identity() -> None:
    sound = np.random.default_rng(0).standard_normal((2205, 2)).astype(np.float32)
    fall, rise = crossfade(sound, sound)
    np.testing.assert_allclose(sound * fall + sound * rise, sound, atol=1e-5)


def test_cross_fading_keeps_the_power_of_unlike_audio() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.standard_normal((2, 200_000, 1)).astype(np.float32)
    fall, rise = crossfade(one, two)
    assert np.mean((one * fall + two * rise) ** 2) == pytest.approx(1.0, rel=0.02)


def test_a_loop_of_a_periodic_tone_is_that_tone() -> None:
    period = RATE // 100 // 2 * 2  # samples; each beat holds whole periods
    samples = np.sin(2 * np.pi * np.arange(20 * RATE) / period).astype(np.float32)[:, None] * 0.5
    times = np.arange(33) * (50 * period) / RATE
    grid = BeatGrid(times, np.arange(32) % 4, 60 * RATE / (50 * period), 4, source="known")
    audio = Audio(samples, RATE, Path("tone.wav"))
    out = render_edl(audio, edit(grid, {5: Action.LOOP, 9: Action.CUT, 12: Action.REPEAT_BAR}))
    np.testing.assert_allclose(out[400:-400], samples[400 : len(out) - 400], atol=2e-3)


def test_reverse_plays_backwards(demo: Demo, demo_audio: Sounds) -> None:
    audio, grid = demo_audio(3), demo(3).grid
    out = render_edl(audio, edit(grid, {6: Action.REVERSE}, 24, 56))
    edges = [round(grid.times[24 + beat] * RATE) for beat in (0, 6, 7)]
    start, end = edges[1] - edges[0], edges[2] - edges[0]
    backwards = audio.samples[edges[1] : edges[2]][::-1]
    difference = min(
        np.abs(out[start + 2000 + s : end - 2000 + s] - backwards[2000:-2000]).max()
        for s in (-1, 0, 1)
    )
    assert difference == 0.0


def test_silence_renders(tmp_path: Path) -> None:
    audio = Audio(np.zeros((20 * 8000, 1), dtype=np.float32), 8000, Path("silent.wav"))
    grid = BeatGrid(np.arange(33) * 0.5, np.arange(32) % 4, 120.0)
    pair = render_pair(audio, edit(grid, {4: Action.CUT}), edit(grid, {}), edit(grid, {}))
    assert pair.loudness_lufs is None and not pair.a.any()
    paths = pair.write(tmp_path)
    assert sorted(path.name for path in paths.values()) == ["a.flac", "b.flac", "original.flac"]
    assert len(read_audio(paths["a"]).samples) == len(pair.a)


def test_the_files_edges_are_padded_not_read_past() -> None:
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal((8 * RATE, 2)).astype(np.float32)
    grid = BeatGrid(np.linspace(0, 8, 17), np.arange(16) % 4, 120.0)
    audio = Audio(samples, RATE, Path("noise.wav"))
    swap = edit(grid, {0: Action.SWAP_BAR, 8: Action.SWAP_BAR}, 0, 16)
    assert len(render_edl(audio, swap)) == 8 * RATE
    with pytest.raises(AudioError, match="another file"):
        render_edl(Audio(samples[: 4 * RATE], RATE, audio.path), swap)
