"""Finding the beats and the bars of a song. NumPy and SciPy only.

Onset flux on a short transform (1024 samples, hop 256 at 22.05 kHz); tempo and metrical level as
told in `tempo`; beats by dynamic programming (after D. Ellis, "Beat tracking by dynamic
programming", 2007); each beat moved to the attack near it; bar phase from low-band flux and chroma
novelty. The tempo that is reported is the slope of a line through the beat times. A song without a
beat gets a fixed grid, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from rlhf_core.audio.corrections import tapped_line
from rlhf_core.audio.onsets import Onsets, onset_envelope, standardised
from rlhf_core.audio.tempo import FASTEST_BPM, estimate_tempo, level_score
from rlhf_core.errors import AudioError
from rlhf_core.types import MIN_SONG_BEATS, BeatGrid, DoubleArray, FloatArray, IntArray

TIGHTNESS: Final = 120.0
FIXED_BPM: Final = 120.0
MIN_PULSE: Final = 0.06  # below this share of periodic energy in the flux there is no beat
ATTACK_WINDOW_S: Final = 0.035
TAP_SPREAD_S: Final = 0.03  # how far from the even line an attack may be and still count as tapped
TAP_TIGHTNESS: Final = 800.0  # the tapped pace is known: do not slip to the beats in between
TAP_PULL: Final = 6.0  # as strong as the loudest onset
BEATS_VERSION: Final = "beats-2"  # travels in cache files: another tracker, another grid
TRIPLE_MARGIN: Final = 0.08
MIN_TRIPLE: Final = 0.2  # accents that repeat less than this after three beats are no waltz


def _best_path(flux: FloatArray, period: float, tightness: float = TIGHTNESS) -> IntArray:
    """Frames of the beats that trade flux against an even spacing.

    A beat's predecessor is at least half a period back, so half a period of frames is decided at
    once: that is what makes the loop short.
    """
    near, far = max(1, int(period / 2)), round(2 * period)
    distance = np.arange(near, far + 1)
    cost = -tightness * np.log(distance / period) ** 2
    scores = np.full(len(flux) + far, 0.0)
    link = np.full(len(flux), -1, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(scores, len(distance))
    backwards = cost[::-1]  # windows run from the farthest predecessor to the nearest
    for start in range(0, len(flux), near):
        stop = min(start + near, len(flux))
        options = windows[start:stop] + backwards
        choice = np.argmax(options, axis=1)
        gain = options[np.arange(stop - start), choice]
        before = np.arange(start, stop) - far + choice
        scores[far + start : far + stop] = flux[start:stop] + np.maximum(gain, 0.0)
        link[start:stop] = np.where((before >= 0) & (gain > 0), before, -1)
    tail = max(0, len(flux) - max(1, round(period)))
    frame = tail + int(np.argmax(scores[far + tail :]))
    path = [frame]
    while link[frame] >= 0:
        frame = int(link[frame])
        path.append(frame)
    return np.array(path[::-1], dtype=np.int64)


def _beat_frames(onsets: Onsets) -> tuple[IntArray, float, float] | None:
    """(frames of the beats, beat period in seconds, pulse) at the metrical level that explains the
    accents best; None where there is no pulse."""
    bpm, pulse, levels = estimate_tempo(onsets)
    if pulse < MIN_PULSE:
        return None
    paths = {each: _best_path(onsets.flux, 60.0 / each * onsets.frame_rate) for each in levels}
    best = max(
        paths,
        key=lambda each: level_score(onsets.loud, paths[each], each, levels[each]),
        default=bpm,
    )
    return paths[best], 60.0 / best, pulse


def _attack_times(times: DoubleArray, mono: FloatArray, rate: int, period: float) -> DoubleArray:
    """Each beat moved to the steepest rise of energy near it, where there is a clear one."""
    hop = 64
    reach = max(2, int(min(ATTACK_WINDOW_S, 0.12 * period) * rate / hop))
    usable = mono[: len(mono) // hop * hop].reshape(-1, hop)
    energy = np.einsum("ij,ij->i", usable, usable)
    level = np.log10(energy + 1e-4 * float(energy.max()) + 1e-12)
    smooth = gaussian_filter1d(level, 1.0)
    rise = np.zeros(len(smooth))
    rise[3:] = smooth[3:] - smooth[:-3]
    centre = np.clip(np.round(times * rate / hop).astype(int), reach, len(rise) - reach - 2)
    window = centre[:, None] + np.arange(-reach, reach + 1)[None, :]
    nearness = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (0.6 * reach)) ** 2)
    found = np.argmax(rise[window] * nearness, axis=1)
    rows = np.arange(len(times))
    clear = rise[window][rows, found] > 0.12
    # rise[i] compares blocks i and i - 3: the attack starts about a block and a half before i
    attack = (window[rows, found] - 1.5) * hop / rate
    return np.where(clear, attack, times)


def _cover(times: DoubleArray, period: float, duration: float) -> DoubleArray:
    """Beats continued evenly to both ends of the file; the last value is the last beat's end."""
    before = np.arange(int(times[0] / period), 0, -1)
    front = times[0] - before * period
    count = int((duration - times[-1]) / period + 1e-6)
    back = times[-1] + np.arange(1, count + 1) * period
    whole = np.concatenate([front[front >= 0], times, back])
    if duration - whole[-1] > 0.6 * period:
        whole = np.append(whole, duration)
    return np.asarray(whole)


def _even(times: DoubleArray, period: float) -> DoubleArray:
    """Drop beats that snapping or the path's end left too close to their predecessor."""
    kept = [float(times[0])]
    for time in times[1:]:
        if time - kept[-1] > 0.4 * period:
            kept.append(float(time))
    return np.array(kept)


def _accents(onsets: Onsets, times: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Per beat: strength of the attack on it, the low one above all, and how much the harmony
    changes there."""
    centre = np.round(times[:-1] * onsets.frame_rate).astype(int)
    near = centre[:, None] + np.arange(-4, 5)[None, :]
    low = onsets.low[np.clip(near, 0, len(onsets.low) - 1)].max(axis=1).astype(np.float64)
    loud = onsets.loud[np.clip(near, 0, len(onsets.loud) - 1)].max(axis=1).astype(np.float64)
    edges = np.clip(np.round(times * onsets.frame_rate).astype(int), 0, len(onsets.chroma))
    total = np.concatenate(
        [np.zeros((1, 12)), np.cumsum(np.sqrt(onsets.chroma), axis=0, dtype=np.float64)]
    )
    mean = np.diff(total[edges], axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True) + 1e-9
    after = mean + 0.5 * np.vstack([mean[1:], mean[-1:]])
    before = np.vstack([mean[:1], mean[:-1]]) + 0.5 * np.vstack([mean[:1], mean[:1], mean[:-2]])
    norms = np.linalg.norm(after, axis=1) * np.linalg.norm(before, axis=1) + 1e-9
    novelty = 1 - np.einsum("ij,ij->i", after, before) / norms
    return standardised(low) + standardised(loud**0.7), standardised(novelty)


def find_bars(onsets: Onsets, times: DoubleArray) -> tuple[IntArray, int]:
    """(bar phase of each beat, beats per bar: 4, or 3 where that explains the accents better)."""
    low, novelty = _accents(onsets, times)
    accent = low + 1.5 * novelty
    index = np.arange(len(accent))

    def explained(bar: int) -> tuple[float, int]:
        means = [float(accent[index % bar == phase].mean()) for phase in range(bar)]
        # the contrast of the best phase with the rest, fair between 3 and 4 beats
        best = int(np.argmax(means))
        rest = (sum(means) - means[best]) / (bar - 1)
        return means[best] - rest, best

    four, three = explained(4), explained(3)
    repeat = {bar: _repetition(accent, bar) for bar in (3, 4)}
    triple = repeat[3] > max(repeat[4] + TRIPLE_MARGIN, MIN_TRIPLE) and three[0] > four[0]
    bar, (_, first) = (3, three) if triple else (4, four)
    return (index - first) % bar, bar


def _repetition(accent: DoubleArray, bar: int) -> float:
    """Mean correlation of the accents with themselves one, two and three bars later."""
    values = []
    for bars in (1, 2, 3):
        lag = bars * bar
        if len(accent) > lag + 8:
            values.append(float(np.mean(accent[lag:] * accent[:-lag])) / float(accent.var() + 1e-9))
    return float(np.mean(values)) if values else 0.0


def _fitted_tempo(times: DoubleArray) -> float:
    """BPM of a line through the beat times (the last entry is an end, not a beat)."""
    beats = times[:-1] if len(times) > 2 else times
    return 60.0 / float(np.polyfit(np.arange(len(beats)), beats, 1)[0])


def _confidence(onsets: Onsets, times: DoubleArray, pulse: float) -> float:
    """0..1: how periodic the flux is, and how much of it falls on the beats."""
    centre = np.round(times[:-1] * onsets.frame_rate).astype(int)
    near = np.clip(centre[:, None] + np.arange(-3, 4)[None, :], 0, len(onsets.flux) - 1)
    on_beat = float(np.mean(onsets.flux[near].max(axis=1) > 0.7))
    return float(np.clip(pulse / 0.35, 0.0, 1.0) * on_beat)


def fixed_grid(duration_s: float, bpm: float = FIXED_BPM) -> BeatGrid:
    """An even grid for a song in which no beat was found."""
    period = 60.0 / bpm
    count = int(duration_s / period + 1e-9)
    if count < MIN_SONG_BEATS:
        raise AudioError(
            f"{duration_s:.2f} s of audio is too short for {MIN_SONG_BEATS} beats at {bpm:g} BPM; "
            "use a longer recording"
        )
    times: DoubleArray = np.arange(count + 1, dtype=np.float64) * period
    return BeatGrid(times, np.arange(count) % 4, bpm, 4, 0.0, "fixed")


def track_beats(mono: FloatArray, rate: int) -> BeatGrid:
    """The beat grid of a song. mono: (samples,) float32 at `rate` (22.05 kHz is what it is for).

    Returns a fixed grid (source "fixed", confidence 0) where no beat is found. Raises AudioError
    when there is not room for MIN_SONG_BEATS beats.
    """
    duration = len(mono) / rate
    if duration < MIN_SONG_BEATS * 60 / FASTEST_BPM:
        raise AudioError(f"{duration:.2f} s of audio is too short for {MIN_SONG_BEATS} beats")
    onsets = onset_envelope(mono, rate)
    found = _beat_frames(onsets)
    if found is None:
        return fixed_grid(duration)
    return _grid_of(onsets, mono, rate, *found) or fixed_grid(duration)


def _grid_of(
    onsets: Onsets, mono: FloatArray, rate: int, frames: IntArray, period: float, pulse: float
) -> BeatGrid | None:
    """The whole song's grid from the frames of its beats; None where they are too few."""
    duration = len(mono) / rate
    # flux at frame t is the rise from t - 1 to t
    times = np.maximum((frames - 0.5) / onsets.frame_rate, 0.0)
    if len(times) < 3:
        return None
    times = _even(np.sort(_attack_times(times, mono, rate, period)), period)
    times = _even(_cover(np.maximum(times, 0.0), period, duration), period)
    times = times[times <= duration]
    if len(times) < MIN_SONG_BEATS + 1:
        return None
    phase, bar = find_bars(onsets, times)
    confidence = _confidence(onsets, times, pulse)
    return BeatGrid(times, phase, _fitted_tempo(times), bar, confidence, "tracked")


def follow_taps(mono: FloatArray, rate: int, taps: Sequence[float]) -> BeatGrid:
    """The grid of a song whose beat somebody tapped, at least MIN_TAPS times in a row (seconds).

    The song is tracked again with the taps' tempo, drawn to the taps where there are any, so a few
    bars of tapping are enough and its unevenness does not matter. The first tap is a downbeat.
    """
    line, period = tapped_line(taps)
    onsets = onset_envelope(mono, rate)
    at = np.round(line * onsets.frame_rate + 0.5).astype(int)
    at = at[at < len(onsets.flux)]
    drawn = np.zeros(len(onsets.flux))
    drawn[at] = 1.0
    drawn = gaussian_filter1d(drawn, TAP_SPREAD_S * onsets.frame_rate)
    flux = onsets.flux + TAP_PULL * drawn / max(float(drawn.max()), 1e-9)
    frames = _best_path(flux.astype(np.float32), period * onsets.frame_rate, TAP_TIGHTNESS)
    grid = _grid_of(onsets, mono, rate, frames, period, 1.0)
    if grid is None:
        raise AudioError(
            f"taps {period:.2f} s apart leave less than {MIN_SONG_BEATS} beats; tap faster"
        )
    first = int(np.argmin(np.abs(grid.times[:-1] - line[0])))
    phase = (np.arange(grid.n_beats) - first) % grid.beats_per_bar
    return replace(grid, bar_phase=phase, source="corrected")


def _resampled(grid: BeatGrid, numerator: int, denominator: int) -> DoubleArray:
    """Beat times with `numerator` new beats for every `denominator` old ones."""
    count = grid.n_beats * numerator // denominator
    places = np.arange(count + 1) * denominator / numerator
    return np.interp(places, np.arange(len(grid.times)), grid.times)


RATIOS: Final[dict[str, tuple[int, int]]] = {
    "double": (2, 1),
    "halve": (1, 2),
    "three_halves": (3, 2),
}


def correct_grid(grid: BeatGrid, how: str | None = None, offset_beats: int = 0) -> BeatGrid:
    """A person's correction: metrical level ("double", "halve", "three_halves"), then the downbeat
    moved later by `offset_beats`. Raises AudioError where too few beats would be left."""
    if how is not None:
        if how not in RATIOS:
            raise AudioError(f"unknown beat correction {how!r}; one of {', '.join(RATIOS)}")
        numerator, denominator = RATIOS[how]
        first = int(np.argmax(grid.bar_phase == 0))
        # halving keeps the downbeats: start on one
        skip = first % denominator
        part = replace(grid, times=grid.times[skip:], bar_phase=grid.bar_phase[skip:])
        times = _resampled(part, numerator, denominator)
        if len(times) - 1 < MIN_SONG_BEATS:
            raise AudioError(f"{how} would leave {len(times) - 1} beats; {MIN_SONG_BEATS} needed")
        start = (first - skip) * numerator // denominator
        phase = (np.arange(len(times) - 1) - start) % grid.beats_per_bar
        tempo = grid.tempo_bpm * numerator / denominator
        grid = replace(grid, times=times, bar_phase=phase, tempo_bpm=tempo, source="corrected")
    if offset_beats:
        phase = (grid.bar_phase - offset_beats) % grid.beats_per_bar
        grid = replace(grid, bar_phase=phase, source="corrected")
    return grid
