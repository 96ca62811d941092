"""How strongly something begins in each frame: the onset flux that beats and tempo are found in.

Log mel flux hears every attack, the quiet ones as well; the flux of magnitudes beside it keeps the
beats on the strong ones. Short transform: N_FFT samples every HOP at 22.05 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from rlhf_core.audio.filters import chroma_filters, frame_count, mel_filters, power_blocks
from rlhf_core.types import DoubleArray, FloatArray

N_FFT: Final = 1024
HOP: Final = 256
# This much of the flux of magnitudes is added to the log flux (off-beats in a swung count-in would
# otherwise be as strong as the beats).
LOUD_SHARE: Final = 0.6
_MELS: Final = 40
_LOW_MELS: Final = 3


@dataclass(frozen=True)
class Onsets:
    """Per frame of HOP samples: flux (standardised), loudness gained over two frames (0 or more),
    low-band flux, chroma (frames, 12)."""

    flux: FloatArray
    loud: FloatArray
    low: FloatArray
    chroma: FloatArray
    frame_rate: float


def onset_envelope(mono: FloatArray, rate: int) -> Onsets:
    """Positive change of the log mel spectrum, all bands and the lowest ones."""
    count = frame_count(len(mono), HOP)
    mel = np.empty((count, _MELS), dtype=np.float32)
    chroma = np.empty((count, 12), dtype=np.float32)
    bands, pitch = mel_filters(rate, N_FFT, _MELS), chroma_filters(rate, N_FFT)
    for start, power in power_blocks(mono, N_FFT, HOP):
        stop = start + len(power)
        np.matmul(power, bands, out=mel[start:stop])
        np.matmul(power, pitch, out=chroma[start:stop])
    top = float(mel.max())
    np.maximum(mel, 1e-6 * top + 1e-12, out=mel)  # 60 dB below the loudest band
    magnitude = np.sqrt(mel)
    loud = np.zeros(count, dtype=np.float32)
    loud[2:] = np.maximum(magnitude[2:] - magnitude[:-2], 0.0).sum(axis=1)
    mel = np.log10(mel)
    rise = np.zeros_like(mel)
    np.maximum(mel[1:] - mel[:-1], 0.0, out=rise[1:])
    low, frame_rate = rise[:, :_LOW_MELS].mean(axis=1), rate / HOP
    quiet = np.clip(standardised(_flattened(rise.mean(axis=1), frame_rate)), -1.0, 6.0)
    strong = np.clip(standardised(_flattened(np.sqrt(loud), frame_rate)), -1.0, 6.0)
    flux = (quiet + LOUD_SHARE * strong) / (1.0 + LOUD_SHARE)
    return Onsets(flux.astype(np.float32), loud, low, chroma, frame_rate)


def _flattened(flux: FloatArray, frame_rate: float) -> DoubleArray:
    """Flux above its mean of the second around, smoothed a little."""
    local = flux - uniform_filter1d(flux, round(frame_rate))
    return np.asarray(gaussian_filter1d(local.astype(np.float64), 1.0))


def standardised(values: DoubleArray) -> DoubleArray:
    """Mean 0, deviation 1; a constant becomes zeros."""
    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > 0 else values * 0.0
