"""What an edit is worth to the ear of a program: the dense qualities measured on rendered audio.

The edit is rendered, and tempo, level, phrases and joins are measured again from the samples, on
log-mel frames and tracked beats; no beat features and none of the formulas of `dense_reward` are
used. Slow (some 0.1 s an edit): for benchmarks, tests and reports, never for training.

Conventions: mono at 22.05 kHz; frames of 23 ms; distances are root mean squares over mel bands of
log power, in units in which two unrelated moments of the passage are 1 apart. Times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d

from rlhf_core.audio.beats import track_beats
from rlhf_core.audio.filters import frame_count, mel_filters, power_blocks
from rlhf_core.audio.io import ANALYSIS_RATE, Audio, to_analysis
from rlhf_core.audio.render import render_edl
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.types import AudioState, BoolArray, DoubleArray, FloatArray, IntArray, Passage

HOP: Final = 512
FRAME_RATE: Final = ANALYSIS_RATE / HOP
_N_FFT: Final = 1024
_BANDS: Final = 40
_FLOOR: Final = 1e-6  # 60 dB below the loudest band of the song
_SMOOTH_FRAMES: Final = 3  # a frame's misalignment must not count
JOIN_SPAN_S: Final = 1.0  # how much is heard after a join
STEP_SPAN_S: Final = 0.25  # how much either side is compared for the step at a join
ENERGY_WINDOW_S: Final = 0.4
PHRASE_BLOCK_S: Final = 0.25
SAME_SOUND: Final = 0.35  # a block at most so far from its source sounds the same
_LEVEL_RATIOS: Final = np.array([1 / 3, 0.5, 2 / 3, 0.75, 1.0, 4 / 3, 1.5, 2.0, 3.0])


class Joins(NamedTuple):
    """Per join of an edit.

    place: the output beat it leads into. distance: of what follows from how the song would have
    gone on, over the next second. step: of a quarter of a second before from the one after, less
    what the song itself does where the join leaves it (0 at least). backwards: one side is played
    backwards (its distance is small, as it stays in the same place of the song).
    """

    place: IntArray
    distance: DoubleArray
    step: DoubleArray
    backwards: BoolArray


class Measured(NamedTuple):
    """The four dense qualities of one edit as measured on its audio, each 0..1, 1 for KEEP."""

    tempo_consistency: float
    energy_flow: float
    phrase_completeness: float
    transition_quality: float
    joins: Joins


@dataclass(frozen=True)
class Listener:
    """A song made ready for measuring edits of one passage. Make it with `Listener.of`."""

    audio: Audio
    state: AudioState
    passage: Passage
    frames: FloatArray
    unit: float
    top: float
    contour: DoubleArray
    beats: DoubleArray

    @classmethod
    def of(cls, audio: Audio, state: AudioState, passage: Passage) -> Listener:
        """Args: audio the song as decoded (any rate), state its analysis (beat times are used)."""
        mono = Audio(to_analysis(audio)[:, None], ANALYSIS_RATE, audio.path)
        edl = build_edl(np.zeros(passage.n_beats, dtype=np.int64), state.grid, passage)
        own = render_edl(mono, edl)[:, 0]
        top = float(max(p.max() for p in _mel_power(mono.samples[:, 0])))
        frames = _log_mel(mono.samples[:, 0], top)
        first, last = (round(t * FRAME_RATE) for t in (edl.beat_times[0], edl.beat_times[-1]))
        unit = _unrelated(frames[first : max(last, first + 2)])
        return cls(mono, state, passage, frames, unit, top, _contour(own), _tracked(own))

    def render(self, actions: IntArray) -> tuple[EDL, FloatArray]:
        """The list and its (samples,) mono audio."""
        edl = build_edl(actions, self.state.grid, self.passage)
        return edl, render_edl(self.audio, edl)[:, 0]

    def measure(self, actions: IntArray) -> Measured:
        """All four qualities of an edit of this passage."""
        edl, samples = self.render(actions)
        edit = _log_mel(samples, self.top)
        joins = self._joins(edl, edit)
        mean = float(joins.distance.mean()) if len(joins.distance) else 0.0
        return Measured(
            self._tempo(edl, samples),
            _alike(float(_contour(samples).var()), float(self.contour.var())),
            self._phrases(edl, edit),
            max(0.0, 1.0 - mean / 2),
            joins,
        )

    def joins(self, actions: IntArray) -> Joins:
        """How the joins of an edit sound."""
        return self.joins_of(self.render(actions)[0])

    def joins_of(self, edl: EDL) -> Joins:
        """How the joins of any edit of this song sound."""
        return self._joins(edl, _log_mel(render_edl(self.audio, edl)[:, 0], self.top))

    def _joins(self, edl: EDL, edit: FloatArray) -> Joins:
        places, distances, steps, backwards = [], [], [], []
        times = edl.output_times
        span, short = round(JOIN_SPAN_S * FRAME_RATE), round(STEP_SPAN_S * FRAME_RATE)
        for i in range(1, len(edl.beats)):
            before, after = edl.beats[i - 1], edl.beats[i]
            if after.source_beat == before.source_beat + 1 and not (before.reverse | after.reverse):
                continue
            out = round(float(times[i]) * FRAME_RATE)
            would = round(edl.source_time(before.source_beat + 1) * FRAME_RATE)
            count = min(span, len(edit) - out, len(self.frames) - would)
            if count < 2:
                continue
            gap = edit[out : out + count] - self.frames[would : would + count]
            places.append(i)
            backwards.append(before.reverse or after.reverse)
            distances.append(float(np.sqrt(np.mean(gap**2))) / self.unit)
            own = _step(self.frames, would, short)
            steps.append(max(0.0, _step(edit, out, short) - own) / self.unit)
        return Joins(
            np.array(places, dtype=np.int64),
            np.array(distances),
            np.array(steps),
            np.array(backwards, dtype=bool),
        )

    def _tempo(self, edl: EDL, samples: FloatArray) -> float:
        """Mean over 8 tracked beats of exp(-max(0, |change in BPM| - 5) / 10) against 8 tracked
        beats of the passage from the same moment on, metrical level set aside."""
        beats, own = _tracked(samples), self.beats
        if len(beats) < 9 or len(own) < 9:
            return 1.0
        got, want = 480 / (beats[8:] - beats[:-8]), 480 / (own[8:] - own[:-8])
        starts = np.interp(beats[:-8], edl.output_times[:-1], _offsets(edl))
        want = want[np.clip(np.searchsorted(own, starts), 0, len(want) - 1)]
        ratio = float(np.median(got / want))
        got = got / _LEVEL_RATIOS[np.argmin(np.abs(np.log(_LEVEL_RATIOS / ratio)))]
        return float(np.mean(np.exp(-np.maximum(0, np.abs(got - want) - 5) / 10)))

    def _phrases(self, edl: EDL, edit: FloatArray) -> float:
        """Share of the edit's time inside a phrase of the source that sounds from start to end:
        every quarter of a second of it is found in its place (level set aside)."""
        times, n = edl.beat_times, self.passage.n_beats
        covered = np.zeros(len(edit), dtype=bool)
        for start in range(0, n, 8):
            first = round(float(times[start]) * FRAME_RATE)
            length = round(float(times[min(start + 8, n)]) * FRAME_RATE) - first - _SMOOTH_FRAMES
            for place in self._found(edit, self.frames[first : first + length]):
                covered[place : place + length + _SMOOTH_FRAMES] = True
        return float(covered.mean())

    def _found(self, edit: FloatArray, phrase: FloatArray) -> IntArray:
        """Frames of the edit at which a phrase begins and sounds to its end."""
        block = round(PHRASE_BLOCK_S * FRAME_RATE)
        count = len(phrase) // block
        room = len(edit) - count * block + 1
        if room <= 0:
            return np.zeros(0, dtype=np.int64)
        worst = np.zeros(room)
        windows = np.lib.stride_tricks.sliding_window_view(edit, block, axis=0)
        for k in range(count):
            part = phrase[k * block : (k + 1) * block]
            heard = windows[k * block : k * block + room]  # (room, bands, block)
            cross = np.einsum("rbf,fb->r", heard, part) / part.size
            means = heard.mean(axis=(1, 2))
            power = np.einsum("rbf,rbf->r", heard, heard) / part.size - means**2
            square = power + part.var() - 2 * (cross - means * part.mean())
            np.maximum(worst, np.sqrt(np.maximum(square, 0)) / self.unit, out=worst)
        return np.flatnonzero(worst < SAME_SOUND)


def _mel_power(mono: FloatArray) -> list[FloatArray]:
    bands = mel_filters(ANALYSIS_RATE, _N_FFT, _BANDS)
    return [power @ bands for _, power in power_blocks(mono, _N_FFT, HOP)]


def _log_mel(mono: FloatArray, top: float) -> FloatArray:
    """(frames, bands) natural log of mel power above a floor, smoothed over three frames."""
    assert frame_count(len(mono), HOP) > 0
    power = np.concatenate(_mel_power(mono))
    smooth: FloatArray = uniform_filter1d(
        np.log(np.maximum(power, _FLOOR * top)), _SMOOTH_FRAMES, axis=0
    )
    return smooth


def _unrelated(frames: FloatArray) -> float:
    """Distance of two moments drawn from a passage: sqrt(2) deviations, over all bands."""
    return max(float(np.sqrt(2 * frames.var(axis=0).mean())), 1e-3)


def _step(frames: FloatArray, place: int, span: int) -> float:
    before, after = frames[max(place - span, 0) : place], frames[place : place + span]
    if not len(before) or not len(after):
        return 0.0
    return float(np.sqrt(np.mean((before.mean(0) - after.mean(0)) ** 2)))


def _contour(mono: FloatArray) -> DoubleArray:
    """RMS of every 0.4 s."""
    window = round(ENERGY_WINDOW_S * ANALYSIS_RATE)
    count = max(len(mono) // window, 1)
    blocks = mono[: count * window].reshape(count, -1).astype(np.float64)
    return np.asarray(np.sqrt((blocks**2).mean(axis=1)))


def _alike(a: float, b: float) -> float:
    return min(a, b) / max(a, b, 1e-12) if max(a, b) > 1e-12 else 1.0


def _tracked(mono: FloatArray) -> DoubleArray:
    if len(mono) < 4 * ANALYSIS_RATE:  # too little for a tempo
        return np.zeros(0)
    grid = track_beats(mono, ANALYSIS_RATE)
    return np.zeros(0) if grid.source == "fixed" else grid.times


def _offsets(edl: EDL) -> DoubleArray:
    """Seconds from the passage's start at which each output beat's source lies."""
    start = edl.passage.start_beat
    source = np.array([beat.source_beat - start for beat in edl.beats])
    return np.asarray(edl.beat_times[source] - edl.beat_times[0])
