"""Loudness and true peak after ITU-R BS.1770-4.

Loudness in LUFS (K-weighting, 400 ms blocks every 100 ms, gates at -70 LUFS and 10 LU below the
mean); true peak in dBTP by 4x interpolation. `KWeighted` filters a source once; the loudness of any
rearrangement of it then follows from prefix sums, in well under a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.signal import firwin, sosfilt

from rlhf_core.types import DoubleArray, FloatArray, IntArray

SILENCE_LUFS: Final = -70.0  # the absolute gate; what lies wholly below it has no loudness
BLOCK_S: Final = 0.4
STEP_S: Final = 0.1
_OVERSAMPLING: Final = 4
_TAPS: Final = 12  # source samples on either side that an interpolated value looks at
_PEAK_CANDIDATES: Final = 0.7  # of the sample peak: only near such samples can the true peak be


@lru_cache(maxsize=8)
def k_weighting(rate: int) -> DoubleArray:
    """(2, 6) second-order sections: the head's shelf, then the high-pass, at any rate.

    The standard gives coefficients at 48 kHz; these are its analogue prototypes, found by
    inverting the bilinear transform, warped to `rate`. The high-pass is normalised to unit gain as
    in pyloudnorm, so that both agree; libebur128 reads 0.04 LU more.
    """
    k = np.tan(np.pi * 1681.974450955533 / rate)
    q, gain = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = gain**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = [
        (gain + middle * k / q + k * k) / norm,
        2 * (k * k - gain) / norm,
        (gain - middle * k / q + k * k) / norm,
        1.0,
        2 * (k * k - 1) / norm,
        (1 - k / q + k * k) / norm,
    ]
    k, q = np.tan(np.pi * 38.13547087602444 / rate), 0.5003270373238773
    norm = 1 + k / q + k * k
    # unit gain far above the cut-off: the standard's own numerators 1, -2, 1 are 0.04 dB higher
    high = [1 / norm, -2 / norm, 1 / norm, 1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    return np.array([shelf, high])


@dataclass(frozen=True)
class KWeighted:
    """Running K-weighted energy of a source: energy[i] is that of the samples before i, all
    channels together. (frames + 1,) float64."""

    energy: DoubleArray
    rate: int

    @classmethod
    def of(cls, samples: FloatArray, rate: int) -> KWeighted:
        """samples: (frames, channels)."""
        energy = np.zeros(len(samples) + 1)
        for channel in range(samples.shape[1]):
            weighted = sosfilt(k_weighting(rate), np.ascontiguousarray(samples[:, channel]))
            energy[1:] += np.square(weighted, dtype=np.float64)
        return cls(np.cumsum(energy, out=energy), rate)

    def loudness(self) -> float:
        """Integrated loudness of the whole source in LUFS; -inf for silence."""
        count = len(self.energy) - 1
        steps = np.arange(0, count + 1, STEP_S * self.rate).astype(np.int64)
        return gated_loudness(self.energy[steps], self.rate)


def gated_loudness(energy: DoubleArray, rate: float) -> float:
    """LUFS from the running energy at every STEP_S; shorter than a block: one block."""
    blocks = round(BLOCK_S / STEP_S)
    if len(energy) <= blocks:
        blocks = len(energy) - 1
        if blocks < 1:
            return -np.inf
    power = (energy[blocks:] - energy[:-blocks]) / (blocks * STEP_S * rate)
    power = power[power > 10 ** ((SILENCE_LUFS + 0.691) / 10)]
    if not len(power):
        return -np.inf
    power = power[power > 0.1 * power.mean()]
    return float(-0.691 + 10 * np.log10(power.mean()))


def integrated_loudness(samples: FloatArray, rate: int) -> float:
    """LUFS of (frames, channels); -inf for silence."""
    return KWeighted.of(samples, rate).loudness()


@lru_cache(maxsize=1)
def _interpolators() -> FloatArray:
    """(2 * _TAPS + 1, 4): value at -1/2, -1/4, +1/4 and +1/2 sample around the middle one."""
    half = _TAPS * _OVERSAMPLING
    prototype = _OVERSAMPLING * firwin(2 * half + 1, 1 / _OVERSAMPLING, window=("kaiser", 6.0))
    prototype = np.pad(prototype, 2)
    index = np.arange(-_TAPS, _TAPS + 1)[:, None] * _OVERSAMPLING
    places = half + 2 + np.array([-2, -1, 1, 2])[None, :] - index
    inside = (places >= 0) & (places < len(prototype))
    weights = np.where(inside, prototype[np.clip(places, 0, len(prototype) - 1)], 0.0)
    return weights.astype(np.float32)


def _loud_samples(signal: FloatArray, threshold: float) -> IntArray:
    """Indices of samples at or above a magnitude; whole blocks are ruled out by their extremes."""
    block = 256
    whole = signal[: len(signal) // block * block].reshape(-1, block)
    extreme = np.maximum(whole.max(axis=1), -whole.min(axis=1)) if len(whole) else np.zeros(0)
    loud = np.flatnonzero(extreme >= threshold)
    row, column = np.nonzero(np.abs(whole[loud]) >= threshold)
    rest = np.flatnonzero(np.abs(signal[whole.size :]) >= threshold) + whole.size
    return np.concatenate([loud[row] * block + column, rest])


def true_peak(samples: FloatArray) -> float:
    """Largest magnitude between the samples as well as on them, linear. (frames, channels)."""
    if not samples.size:
        return 0.0
    highest = float(max(samples.max(), -samples.min()))
    if highest == 0.0:
        return 0.0
    peak, weights = highest, _interpolators()
    for channel in range(samples.shape[1]):
        signal = np.pad(samples[:, channel], _TAPS)
        windows = np.lib.stride_tricks.sliding_window_view(signal, 2 * _TAPS + 1)
        near = _loud_samples(signal[_TAPS:-_TAPS], _PEAK_CANDIDATES * highest)
        for start in range(0, len(near), 16384):
            between = windows[near[start : start + 16384]] @ weights
            peak = max(peak, float(np.abs(between).max()))
    return peak


def to_db(linear: float) -> float:
    """dB of an amplitude; -inf for 0."""
    return float(20 * np.log10(linear)) if linear > 0 else -np.inf
