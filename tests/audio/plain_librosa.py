"""The 121 beat features by plain calls of librosa and loops: the oracle for the fast featuriser.

Shares no code with the package but the table of names. The metre columns and the last step of the
stem proxies have no counterpart in librosa: they are written out here beat by beat.
"""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np

from rlhf_core.audio.feature_table import FEATURE_SLICES
from rlhf_core.types import BeatGrid

SIZE = {"n_fft": 2048, "hop_length": 512}
ORDER = ("drums", "bass", "vocals", "other")


def frame_features(mono: np.ndarray, rate: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({group: (k, frames)}, mel power (64, frames))."""
    feature: Any = librosa.feature
    mel = feature.melspectrogram(y=mono, sr=rate, n_mels=64, **SIZE)
    db = librosa.power_to_db(mel)
    mfcc = feature.mfcc(S=db, n_mfcc=13)
    parts = {
        "onset_strength": librosa.onset.onset_strength(S=db, sr=rate, center=False, hop_length=512),
        "rms": feature.rms(y=mono, frame_length=2048, hop_length=512),
        "spectral_centroid": feature.spectral_centroid(y=mono, sr=rate, **SIZE),
        "zero_crossing_rate": feature.zero_crossing_rate(mono, frame_length=2048, hop_length=512),
        "rolloff": feature.spectral_rolloff(y=mono, sr=rate, **SIZE),
        "bandwidth": feature.spectral_bandwidth(y=mono, sr=rate, **SIZE),
        "flatness": feature.spectral_flatness(y=mono, **SIZE),
        "spectral_contrast": feature.spectral_contrast(y=mono, sr=rate, **SIZE),
        "mfcc": mfcc,
        "mfcc_delta": feature.delta(mfcc),
        "chroma": feature.chroma_stft(y=mono, sr=rate, tuning=0.0, **SIZE),
    }
    return {name: np.atleast_2d(values) for name, values in parts.items()}, mel


def beat_mean(values: np.ndarray, grid: BeatGrid, rate: int) -> np.ndarray:
    """(n_beats, k): the mean of the frames whose centres lie in the beat."""
    centres = librosa.frames_to_time(np.arange(values.shape[1]), sr=rate, hop_length=512)
    rows = []
    for start, end in zip(grid.times[:-1], grid.times[1:], strict=True):
        inside = values[:, (centres >= start - 1e-9) & (centres < end - 1e-9)]
        rows.append(inside.astype(np.float64).mean(axis=1))
    return np.array(rows)


def metre(grid: BeatGrid) -> dict[str, np.ndarray]:
    """beat_phase, tempo_deviation and interval_ratio, beat by beat."""
    downbeat = list(grid.bar_phase).index(0)
    lengths = [float(b - a) for a, b in zip(grid.times[:-1], grid.times[1:], strict=True)]
    rows: dict[str, list[list[float]]] = {
        "beat_phase": [], "tempo_deviation": [], "interval_ratio": []
    }  # fmt: skip
    for i, length in enumerate(lengths):
        phase = int(grid.bar_phase[i])
        place = [phase / grid.beats_per_bar, float(phase == 0), ((i - downbeat) % 8) / 8]
        rows["beat_phase"].append(place)
        rows["tempo_deviation"].append([60 / length / grid.tempo_bpm - 1])
        rows["interval_ratio"].append([length / lengths[max(i - 1, 0)]])
    return {name: np.array(values) for name, values in rows.items()}


def repeating(power: np.ndarray, bar: int) -> np.ndarray:
    """(n, bands): median over the same beat of nine bars around; at the ends, by whole bars."""
    count = len(power)
    whole = max(1, count // bar) * bar
    result = np.empty_like(power)
    for i in range(count):
        rows = []
        for k in range(-4, 5):
            j = i + k * bar
            while j < 0:
                j += whole
            while j >= count:
                j -= whole
            rows.append(power[min(max(j, 0), count - 1)])
        result[i] = np.median(rows, axis=0)
    return result


def stem_features(mel: np.ndarray, grid: BeatGrid, rate: int) -> dict[str, np.ndarray]:
    """Energy in dB, centroid in Hz and share of the four proxies."""
    _, mask = librosa.decompose.hpss(np.sqrt(mel), kernel_size=(17, 9), mask=True)
    centres = librosa.mel_frequencies(n_mels=66, fmin=0.0, fmax=rate / 2)[1:-1]
    drums = beat_mean(mel * mask, grid, rate)
    rest = beat_mean(mel * (1 - mask), grid, rate)
    bass = np.where(centres < 200, rest, 0.0)
    upper = rest - bass
    near_voice = np.exp(-0.5 * (np.log2(centres / 900) / 1.3) ** 2)
    vocals = np.maximum(upper - repeating(upper, grid.beats_per_bar), 0.0) * near_voice
    stems = {"drums": drums, "bass": bass, "vocals": vocals, "other": upper - vocals}
    total = np.stack([stems[name].sum(axis=1) for name in ORDER], axis=1)
    centroid = np.stack([stems[name] @ centres for name in ORDER], axis=1)
    return {
        "stem_energy": 10 * np.log10(np.maximum(total, 1e-10)),
        "stem_centroid": centroid / np.maximum(total, 1e-10),
        "stem_ratio": total / np.maximum(total.sum(axis=1, keepdims=True), 1e-10),
    }


def plain_features(mono: np.ndarray, rate: int, grid: BeatGrid) -> np.ndarray:
    """(n_beats, 121) float64."""
    frames, mel = frame_features(mono, rate)
    columns = {name: beat_mean(values, grid, rate) for name, values in frames.items()}
    columns |= metre(grid) | stem_features(mel, grid, rate)
    first = [name for name in FEATURE_SLICES if name in frames]
    spectral = np.concatenate([columns[name] for name in first], axis=1)
    columns["temporal_delta"] = np.diff(spectral, axis=0, prepend=spectral[:1])
    return np.concatenate([columns[name] for name in FEATURE_SLICES], axis=1)
