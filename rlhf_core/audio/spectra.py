"""Frame-level spectral features from one shared transform (2048 samples, hop 512, centred).

The columns are the first 52 of the feature table, in its order, and mean what librosa's functions
of the same names mean with their defaults and 64 mel bands (tests hold them together; onset
strength is librosa's with center=False). What makes it fast: blocks that fit the cache, float32
FFT, filter banks and moments as matrix products, prefix sums for loudness and zero crossings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from scipy.signal import savgol_filter

from rlhf_core.audio.feature_table import DELTA_SOURCE, FEATURE_SLICES
from rlhf_core.audio.filters import chroma_filters, frame_count, mel_filters, power_blocks
from rlhf_core.types import DoubleArray, FloatArray

N_FFT: Final = 2048
HOP: Final = 512
N_MELS: Final = 64
N_MFCC: Final = 13
DELTA_WIDTH: Final = 9
ROLLOFF: Final = 0.85
CONTRAST_BANDS: Final = 6
CONTRAST_QUANTILE: Final = 0.02
CONTRAST_LOWEST_HZ: Final = 200.0
TOP_DB: Final = 80.0
AMIN: Final = 1e-10
_BINS: Final = N_FFT // 2 + 1


@dataclass(frozen=True)
class Frames:
    """columns: (frames, 52) in the feature table's order; mel: (frames, N_MELS) power."""

    columns: FloatArray
    mel: FloatArray
    frame_rate: float


def to_db(power: FloatArray) -> FloatArray:
    """10 log10, clamped TOP_DB below the loudest value of the whole song."""
    db = 10.0 * np.log10(np.maximum(power, AMIN))
    return np.asarray(np.maximum(db, db.max() - TOP_DB), dtype=np.float32)


@lru_cache(maxsize=4)
def _contrast_bands(rate: int) -> tuple[tuple[int, int, int], ...]:
    """(first bin, end bin, how many bins make the valley or the peak) of each octave band."""
    hz = np.fft.rfftfreq(N_FFT, 1 / rate)
    edges = np.concatenate([[0.0], CONTRAST_LOWEST_HZ * 2.0 ** np.arange(CONTRAST_BANDS + 1)])
    bands = []
    for k in range(CONTRAST_BANDS + 1):
        inside = np.flatnonzero((hz >= edges[k]) & (hz <= edges[k + 1]))
        first, end = int(inside[0]) - (k > 0), int(inside[-1]) + 1
        if k == CONTRAST_BANDS:
            end = _BINS
        size = end - first
        if k < CONTRAST_BANDS:
            end -= 1
        bands.append((first, end, max(1, int(np.rint(CONTRAST_QUANTILE * size)))))
    return tuple(bands)


@lru_cache(maxsize=4)
def _moments(rate: int) -> FloatArray:
    """(bins, 3): 1, f, f^2 with f in kHz, so that one product gives sum, centroid, bandwidth."""
    khz = np.fft.rfftfreq(N_FFT, 1 / rate) / 1000
    return np.stack([np.ones(_BINS), khz, khz**2], axis=1).astype(np.float32)


class _Builder:
    """Fills the frame columns block by block."""

    def __init__(self, mono: FloatArray, rate: int) -> None:
        count = frame_count(len(mono), HOP)
        self.rate = rate
        self.columns = np.zeros((count, DELTA_SOURCE.stop), dtype=np.float32)
        self.mel = np.empty((count, N_MELS), dtype=np.float32)
        self.peaks = np.empty((count, CONTRAST_BANDS + 1), dtype=np.float32)
        self.valleys = np.empty_like(self.peaks)
        for start, power in power_blocks(mono, N_FFT, HOP):
            self._block(slice(start, start + len(power)), power)

    def column(self, name: str) -> FloatArray:
        return self.columns[:, FEATURE_SLICES[name]]

    def _block(self, at: slice, power: FloatArray) -> None:
        np.matmul(power, mel_filters(self.rate, N_FFT, N_MELS), out=self.mel[at])
        chroma = power @ chroma_filters(self.rate, N_FFT)
        top = chroma.max(axis=1, keepdims=True)
        self.column("chroma")[at] = chroma / np.where(top > 1e-20, top, 1.0)
        floored = np.maximum(power, AMIN)
        flat = np.exp(np.log(floored).mean(axis=1)) / floored.mean(axis=1)
        self.column("flatness")[at, 0] = flat
        magnitude = np.sqrt(power, out=power)
        self._moments(at, magnitude)
        self._contrast(at, magnitude)

    def _moments(self, at: slice, magnitude: FloatArray) -> None:
        total, first, second = (magnitude @ _moments(self.rate)).T
        safe = np.where(total > 1e-20, total, 1.0)
        centroid = first / safe
        spread = np.maximum(second / safe - centroid**2, 0.0)
        self.column("spectral_centroid")[at, 0] = 1000 * centroid
        self.column("bandwidth")[at, 0] = 1000 * np.sqrt(spread)
        running = np.cumsum(magnitude, axis=1)
        below = np.count_nonzero(running < ROLLOFF * running[:, -1:], axis=1)
        self.column("rolloff")[at, 0] = below * (self.rate / N_FFT)

    def _contrast(self, at: slice, magnitude: FloatArray) -> None:
        for k, (first, end, count) in enumerate(_contrast_bands(self.rate)):
            band = np.sort(magnitude[:, first:end], axis=1)
            self.valleys[at, k] = band[:, :count].mean(axis=1)
            self.peaks[at, k] = band[:, -count:].mean(axis=1)

    def finish(self, mono: FloatArray) -> Frames:
        db = to_db(self.mel)
        rise = np.maximum(db[1:] - db[:-1], 0.0).mean(axis=1)
        self.column("onset_strength")[1:, 0] = rise
        mfcc = dct(db, type=2, norm="ortho", axis=1)[:, :N_MFCC]
        self.column("mfcc")[:] = mfcc
        self.column("mfcc_delta")[:] = savgol_filter(mfcc, DELTA_WIDTH, 1, deriv=1, axis=0)
        self.column("spectral_contrast")[:] = to_db(self.peaks) - to_db(self.valleys)
        self.column("rms")[:, 0] = _frame_rms(mono)
        self.column("zero_crossing_rate")[:, 0] = _frame_crossings(mono)
        return Frames(self.columns, self.mel, self.rate / HOP)


def _window_sums(per_hop: DoubleArray, count: int) -> DoubleArray:
    """Sums over centred windows, of a quantity summed over each stretch of HOP samples: a window is
    N_FFT / HOP whole stretches, those beyond the ends count nothing."""
    width = N_FFT // HOP
    total = np.zeros(count + width)
    stop = min(len(per_hop), count + width // 2)
    total[width // 2 : width // 2 + stop] = per_hop[:stop]
    running = np.concatenate([[0.0], np.cumsum(total)])
    return np.asarray(running[width : width + count] - running[:count])


def _hops(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(stretches, HOP), the last one filled up with zeros."""
    missing = -len(values) % HOP
    whole = np.concatenate([values, np.zeros(missing, values.dtype)]) if missing else values
    return np.asarray(whole).reshape(-1, HOP)


def _frame_rms(mono: FloatArray) -> DoubleArray:
    hops = _hops(mono)
    energy = np.concatenate(
        [
            np.square(hops[start : start + 1024], dtype=np.float64).sum(axis=1)
            for start in range(0, len(hops), 1024)
        ]
    )
    sums = _window_sums(energy, frame_count(len(mono), HOP))
    return np.asarray(np.sqrt(np.maximum(sums, 0.0) / N_FFT))


def _frame_crossings(mono: FloatArray) -> DoubleArray:
    """Sign changes inside each window per sample; values below 1e-10 count as positive zero."""
    change = np.zeros(len(mono), dtype=np.bool_)
    negative = mono < -AMIN
    np.not_equal(negative[1:], negative[:-1], out=change[1:])
    count = frame_count(len(mono), HOP)
    sums = _window_sums(_hops(change).sum(axis=1, dtype=np.float64), count)
    # a change at sample i lies between i - 1 and i: at the window's first sample it is outside
    first = np.arange(count) * HOP - N_FFT // 2
    outside = (first > 0) & change[np.clip(first, 0, len(mono) - 1)]
    return np.asarray((sums - outside) / N_FFT)


def analyse_frames(mono: FloatArray, rate: int) -> Frames:
    """All frame-level features of a song. mono: (samples,) float32."""
    return _Builder(mono, rate).finish(mono)
