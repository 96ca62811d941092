"""Mel and chroma filter banks, DCT and framing, without librosa.

Same definitions as librosa's defaults (Slaney's mel scale with area normalisation; Gaussian
chroma bumps weighted around 440 * 2 ** (5 - 4.75) Hz), which the tests hold against librosa itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.fft import rfft

from rlhf_core.types import DoubleArray, FloatArray

BLOCK: Final = 192  # frames a block: it stays in the cache


def hz_to_mel(hz: DoubleArray) -> DoubleArray:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    hz = np.asarray(hz, dtype=np.float64)
    above = 15.0 + np.log(np.maximum(hz, 1e-3) / 1000.0) * 27.0 / np.log(6.4)
    return np.where(hz < 1000.0, hz * 3 / 200, above)


def mel_to_hz(mel: DoubleArray) -> DoubleArray:
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15.0, mel * 200 / 3, 1000.0 * np.exp(np.log(6.4) / 27 * (mel - 15.0)))


@lru_cache(maxsize=16)
def mel_centres(rate: int, bands: int) -> DoubleArray:
    """(bands,) centre frequencies in Hz."""
    return mel_to_hz(np.linspace(0.0, float(hz_to_mel(np.array(rate / 2))), bands + 2))[1:-1]


@lru_cache(maxsize=16)
def mel_filters(rate: int, n_fft: int, bands: int) -> FloatArray:
    """(n_fft // 2 + 1, bands): triangles of unit area."""
    bins = np.fft.rfftfreq(n_fft, 1 / rate)
    edges = mel_to_hz(np.linspace(0.0, float(hz_to_mel(np.array(rate / 2))), bands + 2))
    rising = (bins[:, None] - edges[None, :-2]) / np.diff(edges)[None, :-1]
    falling = (edges[None, 2:] - bins[:, None]) / np.diff(edges)[None, 1:]
    weights = np.maximum(0.0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return np.ascontiguousarray(weights, dtype=np.float32)


@lru_cache(maxsize=16)
def chroma_filters(rate: int, n_fft: int) -> FloatArray:
    """(n_fft // 2 + 1, 12): how much each bin belongs to each pitch class, C first, A440."""
    hz = np.arange(1, n_fft) * rate / n_fft
    place = 12 * np.log2(hz / 27.5)  # semitones above A0
    place = np.concatenate([[place[0] - 18.0], place])  # the bin at 0 Hz: far below all others
    width = np.concatenate([np.maximum(np.diff(place), 1.0), [1.0]])
    distance = np.remainder(place[:, None] - np.arange(12)[None, :] + 126, 12) - 6
    bumps = np.exp(-0.5 * (2 * distance / width[:, None]) ** 2)
    bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
    bumps *= np.exp(-0.5 * ((place / 12 - 5.0) / 2.0) ** 2)[:, None]
    from_c = np.roll(bumps, -3, axis=1)[: n_fft // 2 + 1]
    return np.ascontiguousarray(from_c, dtype=np.float32)


@lru_cache(maxsize=16)
def hann(length: int) -> FloatArray:
    """Periodic Hann window."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length), dtype=np.float32)


def frame_count(samples: int, hop: int) -> int:
    """Frames of a centred transform."""
    return 1 + samples // hop


def power_blocks(mono: FloatArray, n_fft: int, hop: int) -> Iterator[tuple[int, FloatArray]]:
    """(first frame, |STFT|^2 of the next frames as (frames, n_fft // 2 + 1)); frame t is centred on
    sample t * hop, zeros beyond the ends."""
    count, half = frame_count(len(mono), hop), n_fft // 2
    window = hann(n_fft)
    for start in range(0, count, BLOCK):
        # a padded copy of the stretch alone: a whole one would double the memory of a long song
        first, size = start * hop - half, (min(BLOCK, count - start) - 1) * hop + n_fft
        stretch = np.zeros(size, dtype=np.float32)
        inside = mono[max(first, 0) : first + size]
        stretch[max(-first, 0) : max(-first, 0) + len(inside)] = inside
        frames = np.lib.stride_tricks.sliding_window_view(stretch, n_fft)[::hop]
        spectrum = rfft(frames * window, axis=1, overwrite_x=True)
        flat = spectrum.view(np.float32)
        np.multiply(flat, flat, out=flat)
        yield start, flat[:, 0::2] + flat[:, 1::2]
