"""Rendering by invariants: what must not change, what must, and what must be inaudible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

from rlhf_core.audio.demo_songs import DemoSong
from rlhf_core.audio.io import Audio, read_audio
from rlhf_core.audio.loudness import to_db, true_peak
from rlhf_core.audio.render import CEILING_DBTP, crossfade, render_edl, render_pair
from rlhf_core.editing.actions import Action
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.errors import AudioError
from rlhf_core.types import BeatGrid, Passage

Demo = Callable[[int], DemoSong]
Sounds = Callable[[int], Audio]
RATE = 44100


def edit(grid: BeatGrid, changes: dict[int, Action], start: int = 0, end: int = 32) -> EDL:
    actions = np.zeros(end - start, dtype=np.int64)
    for beat, action in changes.items():
        actions[beat] = action
    return build_edl(actions, grid, Passage(start, end))


def random_edl(grid: BeatGrid, seed: int, end: int | None = None) -> EDL:
    rng, count = np.random.default_rng(seed), end or grid.n_beats
    weights = [0.6, 0.12, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03, 0.02, 0.02]
    return build_edl(rng.choice(10, count, p=weights), grid, Passage(0, count))


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
    times, margin = edl.output_times, 2200  # beyond any cross-fade and edge
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


def click_levels(mono: np.ndarray, places: np.ndarray) -> np.ndarray:
    """LPC-24 residual's peak in 0.7 ms around each place over the residual's level around it."""
    levels = []
    for place in places:
        frame = mono[max(place - 1024, 0) : place + 1024].astype(np.float64)
        power = np.correlate(frame, frame, "full")[len(frame) - 1 :][:25]
        power[0] = power[0] * (1 + 1e-6) + 1e-9
        taps = solve_toeplitz(power[:24], power[1:25])
        residual = lfilter(np.concatenate([[1.0], -taps]), [1.0], frame)[24:]
        middle = place - max(place - 1024, 0) - 24
        near = np.abs(residual[max(middle - 15, 0) : middle + 15]).max()
        levels.append(near / (np.sqrt(np.mean(residual**2)) + 1e-9))
    return np.array(levels)


def test_joins_do_not_click(demo: Demo, demo_audio: Sounds) -> None:
    worse, joins, hard_worse = 0, 0, 0
    for seed in (0, 3, 7):
        audio, grid = demo_audio(seed), demo(seed).grid
        edl = random_edl(grid, seed)
        rng = np.random.default_rng(seed)
        source = audio.samples.mean(axis=1)
        usual = click_levels(source, rng.integers(RATE, len(source) - RATE, 300))
        limit = float(np.percentile(usual, 99))
        counts = np.cumsum([s.end_beat - s.start_beat for s in edl.segments])[:-1]
        places = np.round((edl.output_times[counts] - 0.012) * RATE).astype(int)
        worse += int(np.sum(click_levels(render_edl(audio, edl).mean(axis=1), places) > limit))
        hard = render_edl(audio, edl, crossfade_s=0.0).mean(axis=1)
        hard_worse += int(np.sum(click_levels(hard, places) > limit))
        joins += len(places)
    assert joins > 100
    assert worse <= 0.03 * joins
    assert hard_worse > 3 * max(worse, 1)  # the measure sees what a cross-fade removes


def test_a_pair_plays_at_one_loudness_below_the_ceiling(demo: Demo, demo_audio: Sounds) -> None:
    audio, grid = demo_audio(5), demo(5).grid
    loud = Audio(np.clip(2.5 * audio.samples, -1, 1), RATE, audio.path)
    for sounds in (audio, loud):
        pair = render_pair(
            sounds, random_edl(grid, 1, 64), random_edl(grid, 2, 64), edit(grid, {}, 0, 64)
        )
        meter = pyloudnorm.Meter(RATE)
        measured = [meter.integrated_loudness(x) for x in (pair.a, pair.b, pair.original)]
        assert pair.loudness_lufs is not None
        assert measured == pytest.approx([pair.loudness_lufs] * 3, abs=0.02)
        peaks = [to_db(true_peak(x)) for x in (pair.a, pair.b, pair.original)]
        assert max(peaks) <= CEILING_DBTP + 0.01
        assert set(pair.gains_db) == {"a", "b", "original"}
    assert pair.gains_db["original"] < -1  # the loud one had to come down
    assert max(peaks) == pytest.approx(CEILING_DBTP, abs=0.05)  # and no further than needed


def test_a_quiet_pair_keeps_the_sources_loudness(demo: Demo, demo_audio: Sounds) -> None:
    audio, grid = demo_audio(0), demo(0).grid
    quiet = Audio(audio.samples * np.float32(0.1), RATE, audio.path)
    plain, cut = edit(grid, {}), edit(grid, {9: Action.CUT})
    pair = render_pair(quiet, plain, cut, plain)
    assert pair.gains_db["original"] == pair.gains_db["a"] == 0.0
    np.testing.assert_array_equal(pair.a, pair.original)


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


def test_real_songs_render(real_songs: list[Path]) -> None:
    from rlhf_core.audio.library import analyse

    for path in real_songs:
        audio = read_audio(path)
        grid = analyse(audio, "x").grid
        count = min(grid.n_beats, 64)
        original = edit(grid, {}, 0, count)
        pair = render_pair(audio, random_edl(grid, 0, count), random_edl(grid, 1, count), original)
        assert abs(len(pair.original) - original.duration_s * audio.sample_rate) < 1
        for samples in (pair.a, pair.b, pair.original):
            assert to_db(true_peak(samples)) <= CEILING_DBTP + 0.01
