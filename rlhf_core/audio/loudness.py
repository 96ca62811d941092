"""Loudness and true peak after ITU-R BS.1770-4.

Loudness in LUFS (K-weighting, 400 ms blocks every 100 ms, gates at -70 LUFS and 10 LU below the
mean); true peak in dBTP by 4x interpolation. `KWeighted` filters a source once; the loudness of any
rearrangement of it then follows from prefix sums, in well under a millisecond. Nothing here needs
memory beyond a cache's worth of samples, however long the recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import firwin, sosfilt

from rlhf_core.types import DoubleArray, FloatArray, IntArray

SILENCE_LUFS: Final = -70.0  # the absolute gate; what lies wholly below it has no loudness
BLOCK_S: Final = 0.4
STEP_S: Final = 0.1
GRID: Final = 32  # samples between two values of the running energy
_FILTER_FRAMES: Final = 1 << 15  # a multiple of GRID
_OVERSAMPLING: Final = 4
MARGIN: Final = 128  # source samples on either side that an interpolated value looks at
_ROUGH_TAPS: Final = 12
_NEAR_PEAK: Final = 0.85  # of the true peak: what comes so near is interpolated again, finely
_PEAK_FRAMES: Final = 1 << 16  # looked at together: they stay in the cache
_EXTREME: Final = 256
_PEAK_CANDIDATES: Final = 0.7  # of the sample peak: only near such samples can the true peak be


@lru_cache(maxsize=8)
def k_weighting(rate: int) -> DoubleArray:
    """(2, 6) second-order sections: the head's shelf, then the high-pass, at any rate.

    The standard gives coefficients at 48 kHz only. These are the usual bilinear designs with the
    parameters and the unit high-pass gain that pyloudnorm uses, so that both agree at any rate.
    Against the standard's own table they read 0.043 dB less (its high-pass has that gain), and
    follow its shape within 0.005 dB above 100 Hz, 0.05 dB at 20 Hz.
    """
    return np.array([_shelf(1500.0, 1 / np.sqrt(2), 4.0, rate), _high_pass(38.0, 0.5, rate)])


def _shelf(cutoff: float, q: float, gain_db: float, rate: int) -> list[float]:
    """High shelf as a second-order section (R. Bristow-Johnson's audio EQ cookbook)."""
    gain, turn = 10 ** (gain_db / 40), 2 * np.pi * cutoff / rate
    cos, slope = np.cos(turn), np.sin(turn) / q * np.sqrt(gain)
    plus, minus = gain + 1, gain - 1
    first = plus - minus * cos + slope
    return [
        gain * (plus + minus * cos + slope) / first,
        -2 * gain * (minus + plus * cos) / first,
        gain * (plus + minus * cos - slope) / first,
        1.0,
        2 * (minus - plus * cos) / first,
        (plus - minus * cos - slope) / first,
    ]


def _high_pass(cutoff: float, q: float, rate: int) -> list[float]:
    """High-pass as a second-order section, from the same source."""
    turn = 2 * np.pi * cutoff / rate
    cos, alpha = np.cos(turn), np.sin(turn) / (2 * q)
    half, first = (1 + cos) / 2 / (1 + alpha), 1 + alpha
    return [half, -2 * half, half, 1.0, -2 * cos / first, (1 - alpha) / first]


@dataclass(frozen=True)
class KWeighted:
    """Running K-weighted energy of a source, all channels together, at every GRID-th sample.

    energy: (frames // GRID + 2,) float64; energy[i] is that of the samples before GRID * i, the
    last one that of all. In between it is taken to rise evenly, over less than a millisecond.
    """

    energy: DoubleArray
    rate: int
    frames: int

    @classmethod
    def of(cls, samples: FloatArray, rate: int) -> KWeighted:
        """samples: (frames, channels), one or two channels. Filtered in blocks that fit a cache."""
        sections = k_weighting(rate)
        energy = np.zeros(len(samples) // GRID + 2)
        state: npt.NDArray[np.generic] | None = None
        for start in range(0, len(samples), _FILTER_FRAMES):
            block = as_complex(samples[start : start + _FILTER_FRAMES])
            if state is None:
                state = np.zeros((len(sections), 2), dtype=block.dtype)
            weighted, state = sosfilt(sections, block, zi=state)
            parts = np.ascontiguousarray(weighted).view(np.float64)
            width = GRID * len(parts) // len(weighted)
            whole = parts[: len(parts) // width * width].reshape(-1, width)
            first = start // GRID + 1
            energy[first : first + len(whole)] = np.einsum("ij,ij->i", whole, whole)
            rest = parts[whole.size :]
            if len(rest):
                energy[first + len(whole)] = float(rest @ rest)
        return cls(np.cumsum(energy, out=energy), rate, len(samples))

    def at(self, places: IntArray) -> DoubleArray:
        """Energy of all samples before each of these; before the first there is none."""
        places = np.clip(places, 0, self.frames)
        step, past = np.divmod(places, GRID)
        left = self.energy[step]
        after = np.minimum(step + 1, len(self.energy) - 1)
        span = np.where(step == self.frames // GRID, max(self.frames % GRID, 1), GRID)
        return np.asarray(left + (self.energy[after] - left) * past / span)

    def loudness(self) -> float:
        """Integrated loudness of the whole source in LUFS; -inf for silence."""
        return gated_loudness(self.at(gate_steps(self.frames, self.rate)), self.rate)


def as_complex(samples: FloatArray) -> npt.NDArray[np.generic]:
    """(frames,) double, or two channels as the real and imaginary part of one signal: filtering
    that is 1.4 times as fast as filtering both."""
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0], dtype=np.float64)
    return np.ascontiguousarray(samples, dtype=np.float64).view(np.complex128)[:, 0]


def gate_steps(frames: int, rate: int) -> IntArray:
    """Sample places at every STEP_S for `gated_loudness`.

    The number of blocks is rounded as pyloudnorm does, so a last block may reach past the end by
    up to half a step; there it counts what there is.
    """
    steps = round((frames / rate - BLOCK_S) / STEP_S) + round(BLOCK_S / STEP_S)
    return (np.arange(max(steps, 0) + 1) * (STEP_S * rate) + 1e-6).astype(np.int64)


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


@lru_cache(maxsize=2)
def _interpolators(taps: int) -> FloatArray:
    """(2 * taps + 1, 4): value at -1/2, -1/4, +1/4 and +1/2 sample around the middle one."""
    half = taps * _OVERSAMPLING
    prototype = _OVERSAMPLING * firwin(2 * half + 1, 1 / _OVERSAMPLING, window=("kaiser", 5.0))
    prototype = np.pad(prototype, 2)
    index = np.arange(-taps, taps + 1)[:, None] * _OVERSAMPLING
    places = half + 2 + np.array([-2, -1, 1, 2])[None, :] - index
    inside = (places >= 0) & (places < len(prototype))
    weights = np.where(inside, prototype[np.clip(places, 0, len(prototype) - 1)], 0.0)
    return weights.astype(np.float32)


class PeakMeter:
    """Largest magnitude between samples as well as on them, of a signal shown in pieces.

    Only samples near the largest so far are interpolated round.
    """

    def __init__(self) -> None:
        self.sample_peak = 0.0
        self.peak = 0.0

    def add(self, samples: FloatArray, before: int = 0, after: int = 0) -> None:
        """(frames, channels), contiguous, of which `before` and `after` frames at either end are
        but context for the interpolation (as many as `MARGIN` are of use)."""
        channels = samples.shape[1]
        flat = np.ascontiguousarray(samples).reshape(-1)
        extremes = _extremes(flat)
        highest = float(extremes.max(initial=0.0))
        self.sample_peak = max(self.sample_peak, highest)
        threshold = _PEAK_CANDIDATES * self.sample_peak
        if highest < threshold or self.sample_peak == 0.0:
            return
        self.peak = max(self.peak, highest)
        near = _loud_samples(flat, extremes, threshold)
        frame, channel = np.divmod(near, channels)
        inside = (frame >= before) & (frame < len(samples) - after)
        frame, channel = frame[inside], channel[inside]
        for start in range(0, len(frame), 16384):
            part = slice(start, start + 16384)
            self._interpolate(samples, frame[part], channel[part])

    def _interpolate(self, samples: FloatArray, frame: IntArray, channel: IntArray) -> None:
        """First all with few taps, then with many where that came near the largest."""
        rough = _between(samples, frame, channel, _ROUGH_TAPS).max(axis=1)
        near = rough >= _NEAR_PEAK * max(self.peak, float(rough.max()))
        fine = _between(samples, frame[near], channel[near], MARGIN)
        self.peak = max(self.peak, float(fine.max(initial=0.0)))


def _between(samples: FloatArray, frame: IntArray, channel: IntArray, taps: int) -> FloatArray:
    """(n, 4) magnitudes between samples round each of n; beyond the ends there is silence."""
    place = frame[:, None] + np.arange(-taps, taps + 1)[None, :]
    around = samples[np.clip(place, 0, len(samples) - 1), channel[:, None]]
    if place.size and (place.min() < 0 or place.max() >= len(samples)):
        around[(place < 0) | (place >= len(samples))] = 0.0
    return np.asarray(np.abs(around @ _interpolators(taps)))


def _extremes(flat: FloatArray) -> FloatArray:
    """Largest magnitude of each stretch of _EXTREME samples (the last one may be shorter)."""
    whole = flat[: len(flat) // _EXTREME * _EXTREME].reshape(-1, _EXTREME)
    largest = np.maximum(whole.max(axis=1), -whole.min(axis=1)) if len(whole) else flat[:0]
    rest = flat[whole.size :]
    return np.append(largest, np.abs(rest).max()) if len(rest) else largest


def _loud_samples(flat: FloatArray, extremes: FloatArray, threshold: float) -> IntArray:
    """Indices of samples at or above a magnitude; whole stretches are ruled out at once."""
    loud = np.flatnonzero(extremes >= threshold)
    index = (loud[:, None] * _EXTREME + np.arange(_EXTREME)[None, :]).reshape(-1)
    index = index[index < len(flat)]
    return np.asarray(index[np.abs(flat[index]) >= threshold])


def true_peak(samples: FloatArray) -> float:
    """Largest magnitude between the samples as well as on them, linear. (frames, channels)."""
    meter = PeakMeter()
    for start in range(0, len(samples), _PEAK_FRAMES):
        low, high = max(start - MARGIN, 0), min(start + _PEAK_FRAMES + MARGIN, len(samples))
        end = min(start + _PEAK_FRAMES, len(samples))
        meter.add(samples[low:high], start - low, high - end)
    return meter.peak


def to_db(linear: float) -> float:
    """dB of an amplitude; -inf for 0."""
    return float(20 * np.log10(linear)) if linear > 0 else -np.inf
