"""Beats against songs whose beats are known, corrections by hand, songs without a beat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhf_core.audio.beats import correct_grid, fixed_grid, follow_taps, track_beats
from rlhf_core.audio.corrections import tapped_line
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


@pytest.mark.parametrize("seed", range(12))
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
    if seed % 8 != 7:  # the ballad's bars are rightly found too, but nothing promises them
        nearest = np.abs(found[:, None] - known[None, :]).argmin(axis=1)
        assert np.mean(grid.bar_phase[inside] == truth.bar_phase[nearest]) > 0.9


TEMPI = [
    60.0,
    66.0,
    73.3,
    80.0,
    97.3,
    110.0,
    120.0,
    132.0,
    143.0,
    155.0,
    168.7,
    180.0,
    191.0,
    200.0,
]
SLOW_TO_FAST = [60.0, 80.0, 100.0, 120.0, 140.0, 160.0, 180.0, 200.0]
SECONDS = 40


def sounds(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A short sound: a noise burst, a tone, or a low thump."""
    time = np.arange(1200) / ANALYSIS_RATE
    return {
        "noise": rng.standard_normal(1200) * np.exp(-time / 0.0036),
        "tone": np.sin(2 * np.pi * 1000 * time) * np.exp(-time / 0.01),
        "kick": np.sin(2 * np.pi * 60 * time) * np.exp(-time / 0.03),
        "hat": np.diff(rng.standard_normal(1201)) * np.exp(-time / 0.01),
    }[kind]


def place(mono: np.ndarray, times: np.ndarray, levels: np.ndarray, sound: np.ndarray) -> None:
    for time, level in zip(times, levels, strict=True):
        at = int(time * ANALYSIS_RATE)
        mono[at : at + len(sound)] += level * sound[: len(mono) - at]


def clicks(times: np.ndarray, levels: np.ndarray | float = 1.0, kind: str = "noise") -> np.ndarray:
    """Clicks at these times (seconds) over a faint noise floor."""
    rng = np.random.default_rng(3)
    mono = 1e-4 * rng.standard_normal(SECONDS * ANALYSIS_RATE)
    place(mono, times, np.broadcast_to(0.5 * np.asarray(levels), len(times)), sounds(kind, rng))
    return mono.astype(np.float32)


def even(bpm: float) -> np.ndarray:
    return np.arange(0.3, SECONDS - 0.5, 60 / bpm)


def drummer(times: np.ndarray, swing: float = 0.5) -> np.ndarray:
    """Kick on one and three, snare on two and four, hats on the eighths."""
    rng = np.random.default_rng(5)
    mono, beat = 1e-4 * rng.standard_normal(SECONDS * ANALYSIS_RATE), np.arange(len(times))
    kick, hat, snare = (sounds(kind, rng) for kind in ("kick", "hat", "noise"))
    place(mono, times, np.where(beat % 2 == 0, 0.6, 0.0), kick)
    place(mono, times, np.where(beat % 2 == 1, 0.3, 0.0), snare)
    place(mono, times, np.full(len(times), 0.1), hat)
    between = times[:-1] + swing * np.diff(times)
    place(mono, between, np.full(len(between), 0.07), hat)
    return mono.astype(np.float32)


def assert_followed(mono: np.ndarray, known: np.ndarray, bpm: float) -> BeatGrid:
    """Right tempo (not half, not double) within 1 %, beats F >= .95 within 70 ms."""
    grid = track_beats(mono, ANALYSIS_RATE)
    found = grid.times[:-1]
    inside = found[(found > known[0] - 0.2) & (found < known[-1] + 0.2)]
    assert abs(grid.tempo_bpm / bpm - 1) < 0.01, grid.tempo_bpm
    assert f_measure(known, inside, 0.07) >= 0.95
    assert grid.source == "tracked"
    return grid


@pytest.mark.parametrize("kind", ["noise", "tone", "kick"])
@pytest.mark.parametrize("bpm", TEMPI)
def test_clicks_are_found_where_they_are(bpm: float, kind: str) -> None:
    known = even(bpm)
    grid = assert_followed(clicks(known, kind=kind), known, bpm)
    assert abs(grid.tempo_bpm - bpm) < 0.05 + 0.002 * bpm
    distance = np.abs(grid.times[:-1][:, None] - known[None, :]).min(axis=0)
    assert np.mean(distance < 0.012) > 0.95


@pytest.mark.parametrize("bpm", TEMPI)
def test_accented_clicks_have_four_or_three_to_the_bar(bpm: float) -> None:
    known = even(bpm)
    for bar in (4, 3):
        downbeat = np.arange(len(known)) % bar == 1
        mono = clicks(known, np.where(downbeat, 1.0, 0.5), "tone")
        grid = assert_followed(mono, known, bpm)
        assert grid.beats_per_bar == bar
        nearest = np.abs(grid.times[:-1][None, :] - known[downbeat][:, None]).argmin(axis=1)
        assert np.mean(grid.bar_phase[nearest] == 0) > 0.9


@pytest.mark.parametrize("bpm", SLOW_TO_FAST)
@pytest.mark.parametrize("kind", ["noise", "kick"])
def test_swing_is_not_taken_for_the_beat(bpm: float, kind: str) -> None:
    known = even(bpm)
    times = np.sort(np.concatenate([known, known + 2 / 3 * 60 / bpm]))
    levels = np.where(np.isin(times, known), 1.0, 0.4)
    assert_followed(clicks(times, levels, kind), known, bpm)


@pytest.mark.parametrize("bpm", SLOW_TO_FAST)
def test_a_tempo_that_drifts_by_a_tenth_is_followed(bpm: float) -> None:
    periods = 60 / bpm * np.linspace(1.05, 0.95, int(SECONDS * bpm / 60))
    known = 0.3 + np.concatenate([[0.0], np.cumsum(periods)])
    known = known[known < SECONDS - 0.3]
    mean = 60 / float(np.polyfit(np.arange(len(known)), known, 1)[0])
    for kind in ("noise", "kick"):
        assert_followed(clicks(known, kind=kind), known, mean)


@pytest.mark.parametrize("bpm", SLOW_TO_FAST)
def test_silence_in_the_middle_does_not_lose_the_beat(bpm: float) -> None:
    known = even(bpm)
    silent = (known > 15) & (known < 23)
    for kind in ("noise", "kick"):
        grid = track_beats(clicks(known, np.where(silent, 0.0, 1.0), kind), ANALYSIS_RATE)
        assert abs(grid.tempo_bpm / bpm - 1) < 0.01
        sounding, found = known[~silent], grid.times[:-1]
        outside = found[
            ((found < 15.1) | (found > 22.9)) & (found > 0.1) & (found < known[-1] + 0.1)
        ]
        assert f_measure(sounding, outside, 0.07) >= 0.95
        # and through the silence the beats go on at about their pace
        assert abs(np.sum((found > 15) & (found < 23)) - silent.sum()) <= 1


@pytest.mark.parametrize("bpm", SLOW_TO_FAST)
def test_a_drummer_is_followed_at_the_level_of_kick_and_snare(bpm: float) -> None:
    known = even(bpm)
    assert_followed(drummer(known), known, bpm)
    assert_followed(drummer(known, swing=2 / 3), known, bpm)


def test_taps_make_the_grid() -> None:
    """The tracker takes kick and snare for the beat; somebody hears it twice as slow."""
    known, rng = even(150.0), np.random.default_rng(0)
    mono, slow = drummer(known), known[0::2]
    taps = slow[6:18] + 0.02 + rng.normal(0, 0.015, 12)  # late and uneven, as people are
    grid = follow_taps(mono, ANALYSIS_RATE, taps)
    assert grid.source == "corrected" and abs(grid.tempo_bpm - 75) < 0.5
    inside = grid.times[:-1][(grid.times[:-1] > 0.2) & (grid.times[:-1] < slow[-1] + 0.1)]
    assert f_measure(slow, inside, 0.03) >= 0.95  # also where nobody tapped, and on the attacks
    assert grid.bar_phase[np.abs(grid.times[:-1] - slow[6]).argmin()] == 0
    off_beat = follow_taps(mono, ANALYSIS_RATE, known[13:37:2])
    nearest = np.abs(off_beat.times[:-1][None, :] - known[13:37:2][:, None]).min(axis=1)
    assert nearest.max() < 0.03


def test_taps_that_are_no_beat_are_refused() -> None:
    line, period = tapped_line([1.0, 1.5, 2.0, 3.0, 3.5])  # one was missed
    np.testing.assert_allclose(line, np.arange(1.0, 3.6, 0.5))
    assert period == pytest.approx(0.5)
    for taps in ([1, 2, 3], [1, 2, 2, 3], [1, 5, 9, 13], [1, 1.1, 1.2, 1.3], [1, 2, 3, np.nan]):
        with pytest.raises(AudioError, match="tap"):
            tapped_line(taps)


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
