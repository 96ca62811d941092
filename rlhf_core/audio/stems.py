"""Stem proxies: what drums, bass, vocals and the rest contribute to each beat.

No separation model is needed: on 64 mel bands, the percussive part is a soft mask of two medians
(over time against over frequency; D. FitzGerald, "Harmonic/percussive separation using median
filtering", 2010); of the residual, what lies below 200 Hz is the bass, what sticks out of its own
repetition (beat-synchronous median over the bars around; Z. Rafii, REPET, 2013) near 900 Hz is the
vocals, the rest is other. They are proxies and are named so wherever they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import median_filter

from rlhf_core.audio.feature_table import STEMS
from rlhf_core.audio.filters import mel_centres
from rlhf_core.types import BeatGrid, DoubleArray, FloatArray

SOURCE: Final = "proxies"
TIME_FRAMES: Final = 17  # 0.4 s
FREQUENCY_BANDS: Final = 9
BASS_HZ: Final = 200.0
VOCAL_HZ: Final = 900.0
VOCAL_OCTAVES: Final = 1.3
REPEAT_BARS: Final = 4  # bars looked at on either side
FLOOR: Final = 1e-10


@dataclass(frozen=True)
class BeatStems:
    """Mean mel power of each stem on each beat. power: (4, n_beats, bands), order of STEMS."""

    power: FloatArray
    rate: int

    def features(self) -> FloatArray:
        """(n_beats, 12): energy in dB, centroid in Hz, share of the beat's energy, by stem."""
        total = self.power.sum(axis=2, dtype=np.float64)
        centres = mel_centres(self.rate, self.power.shape[2])
        centroid = (self.power @ centres) / np.maximum(total, FLOOR)
        share = total / np.maximum(total.sum(axis=0), FLOOR)
        energy = 10 * np.log10(np.maximum(total, FLOOR))
        return np.concatenate([energy, centroid, share]).T.astype(np.float32)


def percussive_mask(magnitude: FloatArray) -> FloatArray:
    """(frames, bands) 0..1 from mel magnitudes. Medians run along flattened, contiguous rows."""
    frames, bands = magnitude.shape
    margin = TIME_FRAMES // 2
    along_time = np.pad(magnitude.T, ((0, 0), (margin, margin)), mode="symmetric")
    steady = median_filter(along_time.ravel(), TIME_FRAMES).reshape(bands, -1)
    steady = steady[:, margin : margin + frames].T
    margin = FREQUENCY_BANDS // 2
    along_bands = np.pad(magnitude, ((0, 0), (margin, margin)), mode="symmetric")
    broad = median_filter(along_bands.ravel(), FREQUENCY_BANDS).reshape(frames, -1)
    broad = broad[:, margin : margin + bands]
    broad, steady = broad**2, steady**2
    return np.asarray(broad / np.maximum(broad + steady, FLOOR), dtype=np.float32)


def _repeating(residual: FloatArray, beats_per_bar: int) -> FloatArray:
    """(n, bands): the median over the same beat of the bars around; what repeats is background."""
    count = len(residual)
    offsets = np.arange(-REPEAT_BARS, REPEAT_BARS + 1) * beats_per_bar
    index = np.arange(count)[:, None] + offsets[None, :]
    # outside the song: mirror by whole bars, so that the place in the bar is kept
    whole = max(1, count // beats_per_bar) * beats_per_bar
    index = np.where(index < 0, index % whole, index)
    index = np.where(index >= count, index - (index - count) // whole * whole - whole, index)
    index = np.clip(index, 0, count - 1)
    return np.asarray(np.median(residual[index], axis=1), dtype=np.float32)


def split_beats(
    percussive: FloatArray, residual: FloatArray, grid: BeatGrid, rate: int
) -> BeatStems:
    """Beat-level mean powers (n, bands) of the percussive part and the residual, into four."""
    centres: DoubleArray = mel_centres(rate, residual.shape[1])
    low = (centres < BASS_HZ).astype(np.float32)
    bass, upper = residual * low, residual * (1 - low)
    foreground = np.maximum(upper - _repeating(upper, grid.beats_per_bar), 0.0)
    octaves = np.log2(np.maximum(centres, 1.0) / VOCAL_HZ)
    vocals = foreground * np.exp(-0.5 * (octaves / VOCAL_OCTAVES) ** 2).astype(np.float32)
    stems = {"drums": percussive, "bass": bass, "vocals": vocals, "other": upper - vocals}
    return BeatStems(np.stack([stems[name] for name in STEMS]).astype(np.float32), rate)
