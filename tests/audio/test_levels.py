"""A, B and original at one loudness, none beyond the ceiling, against outside references."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import sosfreqz

from rlhf_core.audio.demo_songs import DemoSong
from rlhf_core.audio.io import Audio, read_audio
from rlhf_core.audio.loudness import k_weighting, to_db, true_peak
from rlhf_core.audio.render import CEILING_DBTP, RenderedPair, match_loudness, render_pair
from rlhf_core.editing.actions import Action
from rlhf_core.types import BeatGrid
from tests.audio.edits import edit, ideal_true_peak_db, random_edl

Demo = Callable[[int], DemoSong]
Sounds = Callable[[int], Audio]


def readings(pair: RenderedPair) -> list[float]:
    meter = pyloudnorm.Meter(pair.rate)
    sides = (pair.a, pair.b, pair.original)
    return [meter.integrated_loudness(side.astype(np.float64)) for side in sides]


def check(pair: RenderedPair) -> None:
    assert pair.loudness_lufs is not None
    assert readings(pair) == pytest.approx([pair.loudness_lufs] * 3, abs=0.01)
    for side in (pair.a, pair.b, pair.original):
        assert ideal_true_peak_db(side) <= CEILING_DBTP


@pytest.mark.parametrize("seed", [0, 1, 5, 6])
def test_a_pair_of_a_demo_song(seed: int, demo: Demo, demo_audio: Sounds) -> None:
    grid = demo(seed).grid
    original = edit(grid, {}, 8, 72)
    check(
        render_pair(
            demo_audio(seed),
            random_edl(grid, seed, 72, 8),
            random_edl(grid, seed + 10, 72, 8),
            original,
        )
    )


def test_pairs_of_real_songs(real_songs: list[Path]) -> None:
    from rlhf_core.audio.library import analyse

    for path in real_songs:
        audio = read_audio(path)
        grid = analyse(audio, "x").grid
        end = min(grid.n_beats, 64)
        pair = render_pair(
            audio, random_edl(grid, 0, end), random_edl(grid, 1, end), edit(grid, {}, 0, end)
        )
        check(pair)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (11025, 2), (48000, 1), (96000, 2)])
def test_other_rates(rate: int, channels: int) -> None:
    rng = np.random.default_rng(rate)
    swell = 0.02 + 0.2 * np.abs(np.sin(np.arange(17 * rate) / rate))[:, None]
    samples = (swell * rng.standard_normal((17 * rate, channels))).clip(-0.9, 0.9)
    grid = BeatGrid(np.arange(33) * 0.5, np.arange(32) % 4, 120.0)
    audio = Audio(samples.astype(np.float32), rate, Path("noise.wav"))
    pair = render_pair(audio, random_edl(grid, 1), random_edl(grid, 2), edit(grid, {}))
    assert readings(pair) == pytest.approx([pair.loudness_lufs] * 3, abs=0.01)
    assert max(to_db(true_peak(x)) for x in (pair.a, pair.b, pair.original)) <= CEILING_DBTP


def test_a_loud_pair_is_lowered_together_and_not_limited(demo: Demo, demo_audio: Sounds) -> None:
    audio, grid = demo_audio(5), demo(5).grid
    loud = Audio(np.clip(2.5 * audio.samples, -1, 1), audio.sample_rate, audio.path)
    edls = {"a": random_edl(grid, 1, 64), "b": random_edl(grid, 2, 64)}
    edls["original"] = edit(grid, {}, 0, 64)
    pair = render_pair(loud, edls["a"], edls["b"], edls["original"])
    check(pair)
    peaks = [to_db(true_peak(x)) for x in (pair.a, pair.b, pair.original)]
    assert pair.gains_db["original"] < -1
    assert max(peaks) == pytest.approx(CEILING_DBTP, abs=0.2)  # no further than needed
    renders = match_loudness(loud, edls).renders
    for name, gain in pair.gains_db.items():  # the stored gain is all that was done
        plain = renders[name].read(0, renders[name].frames)
        wanted = plain * np.float32(10 ** (gain / 20))
        np.testing.assert_allclose(getattr(pair, name), wanted, atol=1e-6)


def test_a_quiet_pair_keeps_the_sources_loudness(demo: Demo, demo_audio: Sounds) -> None:
    audio, grid = demo_audio(0), demo(0).grid
    quiet = Audio(audio.samples * np.float32(0.1), audio.sample_rate, audio.path)
    plain, cut = edit(grid, {}), edit(grid, {9: Action.CUT})
    pair = render_pair(quiet, plain, cut, plain)
    assert pair.gains_db["original"] == pair.gains_db["a"] == 0.0
    np.testing.assert_array_equal(pair.a, pair.original)


def test_the_weighting_is_the_standards() -> None:
    """BS.1770-4, tables 1 and 2, at 48 kHz; the high-pass has unit gain here."""
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285]
    shelf += [1.0, -1.69065929318241, 0.73248077421585]
    high = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]
    hz = np.geomspace(100, 20000, 50)
    wanted, found = (
        20 * np.log10(np.abs(sosfreqz(s, hz, fs=48000)[1]))
        for s in (np.array([shelf, high]), k_weighting(48000))
    )
    np.testing.assert_allclose(found - wanted, -0.043, atol=0.006)
