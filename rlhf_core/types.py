"""Data that every part shares: beat grids, passages, analysed songs.

Conventions: times in seconds from the start of the file; beats are numbered from 0 over the
whole song; a passage is a half-open range of beats; arrays are (beats, features), float32.
Everything here checks itself on creation, and an error quotes what it got and what it wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.errors import AudioError, EditError

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MIN_SONG_BEATS = 8
PASSAGE_TARGET, PASSAGE_MIN, PASSAGE_MAX = 64, 32, 96
PHRASE_BEATS = 8


@dataclass(frozen=True)
class BeatGrid:
    """Where the beats of a song are.

    times: (n + 1,) seconds, strictly increasing: the start of each beat, then the end of the last.
    bar_phase: (n,) 0 on a downbeat, counting up to beats_per_bar - 1.
    source: "tracked", "fixed" (no beat was found), "known" (synthesised), "corrected".
    """

    times: DoubleArray
    bar_phase: IntArray
    tempo_bpm: float
    beats_per_bar: int = 4
    confidence: float = 1.0
    source: str = "tracked"

    def __post_init__(self) -> None:
        if self.times.ndim != 1 or len(self.times) < 2:
            raise AudioError(f"a beat grid needs at least one beat, got times {self.times.shape}")
        if not np.all(np.isfinite(self.times)) or np.any(np.diff(self.times) <= 0):
            raise AudioError("beat times must be finite and strictly increasing")
        if len(self.bar_phase) != self.n_beats:
            raise AudioError(f"{self.n_beats} beats but {len(self.bar_phase)} bar phases")
        if self.beats_per_bar < 1 or np.any(self.bar_phase >= self.beats_per_bar):
            raise AudioError(f"bar phases must be below {self.beats_per_bar} beats per bar")

    @property
    def n_beats(self) -> int:
        return len(self.times) - 1

    @property
    def durations(self) -> DoubleArray:
        """(n,) seconds."""
        return np.diff(self.times)


@dataclass(frozen=True)
class Passage:
    """A half-open range of beats: what one episode edits and one pair compares."""

    start_beat: int
    end_beat: int

    def __post_init__(self) -> None:
        if self.start_beat < 0 or self.end_beat - self.start_beat < MIN_SONG_BEATS:
            raise EditError(
                f"a passage has at least {MIN_SONG_BEATS} beats, got "
                f"{self.start_beat}..{self.end_beat}"
            )

    @property
    def n_beats(self) -> int:
        return self.end_beat - self.start_beat


@dataclass(frozen=True)
class AudioState:
    """A song as the policy and the reward see it: its beats and their features.

    features: (n_beats, 121) float32, columns as in `feature_table`, not normalised.
    """

    song_id: str
    grid: BeatGrid
    features: FloatArray
    featuriser: str = "fast"
    stem_source: str = "proxies"

    def __post_init__(self) -> None:
        want = (self.grid.n_beats, BEAT_FEATURES)
        if self.features.shape != want:
            raise AudioError(f"{self.song_id}: features are {self.features.shape}, expected {want}")
        if not np.all(np.isfinite(self.features)):
            raise AudioError(f"{self.song_id}: features hold values that are not finite")
