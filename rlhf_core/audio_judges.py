"""Simulated annotators who listen: each edit is rendered and judged by its samples alone.

Like `judges`, for dry runs, tests and benchmarks only; their votes are stored as simulated. These
share no code with what the reward model is pretrained on: they see no beat features, no attribute
and no reward input, only the rendered sound (mono, `RATE`) and, where stated, the places of its
joins in seconds. Slow (about 10 ms an edit).

Conventions: a sound is (frames,) float32; spectra are of `FRAME` samples every `HOP`, in decibels
over `BANDS` bands of equal width in log frequency from 60 Hz; higher scores are better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np

from rlhf_core.audio.io import ANALYSIS_RATE, Audio
from rlhf_core.audio.render import render_edl
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.errors import ConfigError
from rlhf_core.tastes import LISTENING
from rlhf_core.types import AudioState, DoubleArray, FloatArray, IntArray, Passage

RATE: Final = ANALYSIS_RATE
FRAME, HOP, BANDS = 1024, 512, 24
FLOOR_DB: Final = -70.0
SEAM_S: Final = 0.3  # how much either side of a join is compared
BLOCK_S: Final = 2.0


class Sound:
    """A rendered edit and what can be measured on it."""

    def __init__(self, samples: FloatArray, join_times: DoubleArray) -> None:
        self.samples = samples
        self.join_times = join_times
        self.seconds = len(samples) / RATE

    @cached_property
    def spectrum(self) -> DoubleArray:
        """(n, BANDS) decibels."""
        if len(self.samples) < FRAME:
            return np.full((1, BANDS), FLOOR_DB)
        frames = np.lib.stride_tricks.sliding_window_view(self.samples, FRAME)[::HOP]
        power = np.abs(np.fft.rfft(frames * np.hanning(FRAME).astype(np.float32), axis=1)) ** 2
        decibels = 10 * np.log10(power @ _bands() / FRAME + 1e-12)
        return np.asarray(np.maximum(decibels, FLOOR_DB))

    @cached_property
    def level(self) -> DoubleArray:
        """(n,) decibels, all bands together."""
        return np.asarray(10 * np.log10((10 ** (self.spectrum / 10)).sum(1)))

    def between(self, start_s: float, end_s: float) -> DoubleArray:
        """The spectrum's frames of a stretch, at least one."""
        first = min(max(int(start_s * RATE / HOP), 0), len(self.spectrum) - 1)
        return self.spectrum[first : max(int(end_s * RATE / HOP), first + 1)]

    @cached_property
    def blocks(self) -> DoubleArray:
        """(m, BANDS) mean spectrum of every BLOCK_S seconds."""
        size = max(int(BLOCK_S * RATE / HOP), 1)
        count = max(len(self.spectrum) // size, 1)
        return np.stack([part.mean(0) for part in np.array_split(self.spectrum, count)])


@lru_cache(maxsize=1)
def _bands() -> FloatArray:
    """(FRAME // 2 + 1, BANDS) which bins make a band."""
    hz = np.fft.rfftfreq(FRAME, 1 / RATE)
    edges = np.geomspace(60, RATE / 2, BANDS + 1)
    place = np.clip(np.digitize(hz, edges) - 1, 0, BANDS - 1)
    bands = np.zeros((len(hz), BANDS), dtype=np.float32)
    bands[np.arange(len(hz)), place] = hz >= edges[0]
    return bands


def _seamless(sound: Sound) -> float:
    """Steps of the spectrum at joins, summed, per minute; lots of short steps are the worst."""
    steps = [
        np.sqrt(np.mean((sound.between(t - SEAM_S, t).mean(0) - after.mean(0)) ** 2))
        for t in sound.join_times
        for after in (sound.between(t, t + SEAM_S),)
    ]
    return -float(np.sum(steps)) / max(sound.seconds, 1.0) * 60


def _big_finish(sound: Sound) -> float:
    """Level of the last third over that of the first, in decibels."""
    third = max(len(sound.level) // 3, 1)
    return float(sound.level[-third:].mean() - sound.level[:third].mean())


def _bright(sound: Sound) -> float:
    """Share of the sound in the upper half of the bands, in decibels against the lower half."""
    loud = sound.level > sound.level.max() - 40
    half = BANDS // 2
    upper, lower = sound.spectrum[loud, half:], sound.spectrum[loud, :half]
    return float(upper.mean() - lower.mean())


def _varied(sound: Sound) -> float:
    """Mean distance of each two seconds from the likest other two seconds."""
    blocks = sound.blocks
    if len(blocks) < 2:
        return 0.0
    apart = np.sqrt(((blocks[:, None] - blocks[None]) ** 2).mean(-1))
    np.fill_diagonal(apart, np.inf)
    return float(apart.min(1).mean())


def _even(sound: Sound) -> float:
    """No quiet holes: how far the quietest tenth of the seconds lies below the middle."""
    size = max(RATE // HOP, 1)
    count = max(len(sound.level) // size, 1)
    seconds = np.array([part.mean() for part in np.array_split(sound.level, count)])
    return float(np.percentile(seconds, 10) - np.median(seconds))


@dataclass(frozen=True)
class AudioJudge:
    """A simulated annotator who hears the rendered edit. taste: what it likes, in words."""

    name: str
    taste: str
    rule: Callable[[Sound], float]

    def score(
        self, audio: Audio, state: AudioState, passage: Passage, edits: Sequence[IntArray]
    ) -> DoubleArray:
        """How much the judge likes each edit of a passage: (N,). audio: mono at `RATE`."""
        return np.array([self.rule(heard(audio, state, passage, edit)) for edit in edits])


def heard(audio: Audio, state: AudioState, passage: Passage, actions: IntArray) -> Sound:
    """Render one edit. Raises ConfigError when the audio is not mono at `RATE`."""
    if audio.sample_rate != RATE or audio.samples.shape[1] != 1:
        raise ConfigError(
            f"{audio.path}: audio judges hear mono at {RATE} Hz, got {audio.samples.shape[1]} "
            f"channels at {audio.sample_rate} Hz; convert with audio.io.to_analysis"
        )
    edl = build_edl(actions, state.grid, passage)
    return Sound(render_edl(audio, edl)[:, 0], join_times(edl))


def join_times(edl: EDL) -> DoubleArray:
    """Seconds of output at which the song does not play straight on."""
    pairs = zip(edl.beats[:-1], edl.beats[1:], strict=True)
    jumps = [
        last.reverse or beat.reverse or beat.source_beat != last.source_beat + 1
        for last, beat in pairs
    ]
    return np.asarray(edl.output_times[1 : len(edl.beats)][np.array(jumps, dtype=bool)])


_ALL: Final = (
    AudioJudge("heard_seamless", LISTENING["heard_seamless"], _seamless),
    AudioJudge("heard_big_finish", LISTENING["heard_big_finish"], _big_finish),
    AudioJudge("heard_bright", LISTENING["heard_bright"], _bright),
    AudioJudge("heard_varied", LISTENING["heard_varied"], _varied),
    AudioJudge("heard_even", LISTENING["heard_even"], _even),
)
AUDIO_JUDGES: Final = MappingProxyType({judge.name: judge for judge in _ALL})
