"""How fast a song goes: a periodicity first, then the metrical level that its accents speak for.

The period comes from the onset flux's autocorrelation at one to four beats' lag, with a log-normal
prior around 115 BPM. That finds a pulse, but it may be half, double or two thirds of the beat. So
the simple ratios of it are tracked too, and the level is chosen whose beats are both strong (as
strong as the song's strong onsets, which a pulse that is too fast is not) and many (they carry most
of the song's onsets, which a pulse that is too slow does not).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import maximum_filter1d

from rlhf_core.audio.onsets import Onsets
from rlhf_core.types import DoubleArray, FloatArray, IntArray

PRIOR_BPM: Final = 115.0
PRIOR_OCTAVES: Final = 0.9
SLOWEST_BPM, FASTEST_BPM = 45.0, 230.0
RATIOS: Final = (1 / 3, 1 / 2, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 2.0, 3.0)
LEVEL_PRIOR_OCTAVES: Final = 1.2
WEAK_PULSE: Final = 0.3  # a ratio with less than this share of the found pulse is not tracked
NEAR_FRAMES: Final = 4  # an onset this close to a beat is on it (46 ms)
_STRENGTH_POWER: Final = 1.5
_PULSE_POWER: Final = 0.5
_TEMPI: Final = np.geomspace(SLOWEST_BPM, FASTEST_BPM, 400)
_LAGS: Final = ((1, 0.35), (2, 0.3), (3, 0.1), (4, 0.25))


def autocorrelation(flux: FloatArray) -> DoubleArray:
    """Normalised so that lag 0 is 1 and long lags are not punished for their short overlap."""
    centred = flux - flux.mean()
    size = next_fast_len(2 * len(centred), real=True)
    spectrum = rfft(centred.astype(np.float64), size)
    lags = irfft(np.abs(spectrum) ** 2, size)[: len(centred)]
    if lags[0] <= 0:
        return np.zeros(len(centred))
    overlap = np.arange(len(centred), 0, -1) / len(centred)
    return np.asarray(lags / lags[0] / np.maximum(overlap, 0.25))


def pulse_at(lags: DoubleArray, bpm: DoubleArray, frame_rate: float) -> DoubleArray:
    """Mean autocorrelation at one to four beats of each tempo; 0 = nothing periodic there."""
    period, index = 60.0 * frame_rate / bpm, np.arange(len(lags))
    parts = [w * np.interp(k * period, index, lags, right=0.0) for k, w in _LAGS]
    return np.asarray(np.sum(parts, axis=0))


def estimate_tempo(onsets: Onsets) -> tuple[float, float, dict[float, float]]:
    """(BPM, its pulse, {BPM: pulse} of the metrical levels that are worth tracking)."""
    lags = autocorrelation(onsets.flux)
    pulse = pulse_at(lags, _TEMPI, onsets.frame_rate)
    prior = _prior(_TEMPI, PRIOR_OCTAVES)
    best = int(np.argmax(np.maximum(pulse, 0.0) * prior))
    bpm, strongest = float(_TEMPI[best]), float(pulse[best])
    levels = np.array([bpm * ratio for ratio in RATIOS])
    levels = levels[(levels >= SLOWEST_BPM) & (levels <= FASTEST_BPM)]
    found = zip(levels, pulse_at(lags, levels, onsets.frame_rate), strict=True)
    worth = {float(each): float(p) for each, p in found if p >= WEAK_PULSE * strongest}
    return bpm, strongest, worth


def _prior(bpm: DoubleArray, octaves: float) -> DoubleArray:
    return np.asarray(np.exp(-0.5 * (np.log2(bpm / PRIOR_BPM) / octaves) ** 2))


def level_score(loud: FloatArray, frames: IntArray, bpm: float, pulse: float) -> float:
    """How well beats at these frames explain the song's accents. loud: (frames,) 0 or more."""
    near = frames[:, None] + np.arange(-NEAR_FRAMES, NEAR_FRAMES + 1)
    on_beat = loud[np.clip(near, 0, len(loud) - 1)].max(axis=1).astype(np.float64)
    local = maximum_filter1d(loud, 2 * NEAR_FRAMES + 1) == loud
    peaks = loud[local & (loud > 0.02 * loud.max())].astype(np.float64)
    if not len(peaks):
        return 0.0
    strong = float((peaks**2).sum() / peaks.sum())  # the strength of the onsets that matter
    strength = min(float(on_beat.mean()) / strong, 1.0)
    share = min(float(on_beat.sum() / peaks.sum()), 1.0)
    prior = float(_prior(np.array([bpm]), LEVEL_PRIOR_OCTAVES)[0])
    return float(strength**_STRENGTH_POWER * share * pulse**_PULSE_POWER * prior)
