"""Beats against songs whose beats are known, corrections by hand, songs without a beat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhf_core.audio.beats import correct_grid, fixed_grid, track_beats
from rlhf_core.audio.demo_songs import DemoSong
from rlhf_core.audio.io import ANALYSIS_RATE, Audio, read_audio, to_analysis
from rlhf_core.errors import AudioError
from rlhf_core.types import BeatGrid


def f_measure(known: np.ndarray, found: np.ndarray, tolerance: float) -> float:
    """Beats matched one to one within a tolerance (seconds), as mir_eval counts them."""
    matched, at = 0, 0
    for time in known:
        while at < len(found) and found[at] < time - tolerance:
            at += 1
        if at < len(found) and abs(found[at] - time) <= tolerance:
            matched, at = matched + 1, at + 1
    return 2 * matched / (len(known) + len(found))


@pytest.mark.parametrize("seed", range(8))
def test_demo_beats_and_bars_are_found(
    seed: int, demo: Callable[[int], DemoSong], demo_audio: Callable[[int], Audio]
) -> None:
    truth, grid = demo(seed).grid, track_beats(to_analysis(demo_audio(seed)), ANALYSIS_RATE)
    known = truth.times[:-1]
    inside = (grid.times[:-1] > known[0] - 0.2) & (grid.times[:-1] < known[-1] + 0.2)
    found = grid.times[:-1][inside]
    assert f_measure(known, found, 0.07) >= 0.95
    assert f_measure(known, found, 0.02) >= 0.88  # beats sit on the attacks
    assert abs(grid.tempo_bpm / truth.tempo_bpm - 1) < 0.01
    assert grid.source == "tracked" and grid.confidence > 0.5
    assert grid.beats_per_bar == truth.beats_per_bar
    if seed != 7:  # the ballad's bars are rightly found too, but nothing promises them
        nearest = np.abs(found[:, None] - known[None, :]).argmin(axis=1)
        assert np.mean(grid.bar_phase[inside] == truth.bar_phase[nearest]) > 0.9


def clicks(bpm: float, seconds: float, rate: int = ANALYSIS_RATE) -> tuple[np.ndarray, np.ndarray]:
    """Short noise bursts at a constant tempo; (samples, their times)."""
    rng = np.random.default_rng(3)
    mono = 1e-4 * rng.standard_normal(int(seconds * rate))
    times = np.arange(0.3, seconds - 0.1, 60 / bpm)
    burst = rng.standard_normal(400) * np.exp(-np.arange(400) / 80)
    for time in times:
        at = int(time * rate)
        mono[at : at + 400] += 0.5 * burst
    return mono.astype(np.float32), times


@pytest.mark.parametrize("bpm", [80.0, 97.3, 120.0, 143.0, 155.0])
def test_clicks_are_found_where_they_are(bpm: float) -> None:
    mono, known = clicks(bpm, 30)
    grid = track_beats(mono, ANALYSIS_RATE)
    assert abs(grid.tempo_bpm - bpm) < 0.05 * 1.0 + 0.002 * bpm
    distance = np.abs(grid.times[:-1][:, None] - known[None, :]).min(axis=0)
    assert np.mean(distance < 0.008) > 0.95


@pytest.mark.parametrize("kind", ["silence", "constant", "sine"])
def test_no_beat_gives_a_fixed_grid_that_says_so(kind: str) -> None:
    time = np.arange(20 * ANALYSIS_RATE) / ANALYSIS_RATE
    mono = {"silence": 0 * time, "constant": 0 * time + 0.5, "sine": np.sin(2764.6 * time)}[kind]
    grid = track_beats(mono.astype(np.float32), ANALYSIS_RATE)
    assert (grid.source, grid.confidence, grid.tempo_bpm) == ("fixed", 0.0, 120.0)
    np.testing.assert_allclose(np.diff(grid.times), 0.5)
    assert grid.n_beats == 40


def test_noise_is_not_trusted() -> None:
    mono = np.random.default_rng(0).standard_normal(30 * ANALYSIS_RATE).astype(np.float32)
    assert track_beats(0.1 * mono, ANALYSIS_RATE).confidence < 0.3


def test_too_short_is_refused() -> None:
    with pytest.raises(AudioError, match="8 beats"):
        track_beats(np.zeros(ANALYSIS_RATE, dtype=np.float32), ANALYSIS_RATE)


def steady(beats: int, bar: int = 4, first: int = 0) -> BeatGrid:
    return BeatGrid(np.arange(beats + 1) * 0.5, (np.arange(beats) - first) % bar, 120.0, bar)


def test_corrections_by_hand() -> None:
    grid = steady(17, first=1)
    double = correct_grid(grid, "double")
    np.testing.assert_allclose(double.times, np.arange(35) * 0.25)
    assert double.tempo_bpm == 240 and double.source == "corrected"
    assert list(double.bar_phase[:6]) == [2, 3, 0, 1, 2, 3]  # the downbeat stays at 0.5 s
    half = correct_grid(grid, "halve")
    np.testing.assert_allclose(half.times, 0.5 + np.arange(9) * 1.0)
    assert half.bar_phase[0] == 0 and half.tempo_bpm == 60
    more = correct_grid(grid, "three_halves")
    assert more.tempo_bpm == 180 and np.allclose(np.diff(more.times), 1 / 3)
    assert more.times[np.argmax(more.bar_phase == 0)] == pytest.approx(0.5, abs=0.35)
    moved = correct_grid(grid, None, 1)
    np.testing.assert_array_equal(moved.times, grid.times)
    assert int(np.argmax(moved.bar_phase == 0)) == 2
    with pytest.raises(AudioError, match="unknown"):
        correct_grid(grid, "quarter")
    with pytest.raises(AudioError, match="8 needed"):
        correct_grid(steady(9), "halve")


def test_fixed_grid_covers_the_song() -> None:
    grid = fixed_grid(10.0)
    assert grid.n_beats == 20 and grid.times[-1] == 10.0


def test_real_songs_have_believable_beats(real_songs: list[Path]) -> None:
    librosa = pytest.importorskip("librosa")
    for path in real_songs:
        mono = to_analysis(read_audio(path))
        grid = track_beats(mono, ANALYSIS_RATE)
        assert 40 < grid.tempo_bpm < 240, path.name
        assert np.diff(grid.times).min() > 0.15, path.name
        assert grid.times[0] >= 0 and grid.times[-1] <= len(mono) / ANALYSIS_RATE
        if len(mono) < 30 * ANALYSIS_RATE:
            continue
        # librosa's tempo, or a simple ratio of it: the metrical level is open, the pulse is not
        other = float(np.atleast_1d(librosa.feature.tempo(y=mono, sr=ANALYSIS_RATE))[0])
        ratios = np.array([0.5, 2 / 3, 0.75, 1.0, 4 / 3, 1.5, 2.0])
        assert np.min(np.abs(grid.tempo_bpm / (other * ratios) - 1)) < 0.05, path.name
