"""The 121 features of every beat, in the order of `feature_table`.

Frame-level values are averaged over the frames whose centres fall into the beat. The featuriser
"fast" is the package's own code; "librosa" computes the same frame-level values by plain calls of
librosa (imported only then): it is the reference that the tests hold the fast path against.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from rlhf_core.audio import spectra
from rlhf_core.audio.feature_table import BEAT_FEATURES, DELTA_SOURCE, FEATURE_SLICES
from rlhf_core.audio.spectra import HOP, N_FFT, N_MELS, N_MFCC, Frames
from rlhf_core.audio.stems import BeatStems, percussive_mask, split_beats
from rlhf_core.errors import ConfigError
from rlhf_core.types import PHRASE_BEATS, BeatGrid, DoubleArray, FloatArray

FEATURISERS: Final = ("fast", "librosa")


def beat_means(values: FloatArray, grid: BeatGrid, frame_rate: float) -> FloatArray:
    """(n_beats, k) means of (frames, k) over each beat; a beat has at least one frame."""
    edges = np.ceil(grid.times * frame_rate - 1e-9).astype(np.int64)
    first = np.clip(edges[:-1], 0, len(values) - 1)
    end = np.clip(np.maximum(edges[1:], first + 1), 1, len(values))
    total = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=total[1:])
    means = (total[end] - total[first]) / (end - first)[:, None]
    return np.asarray(means, dtype=np.float32)


def beat_stems(
    frames: Frames, grid: BeatGrid, rate: int, mask: FloatArray | None = None
) -> BeatStems:
    """Stem proxies on each beat. mask: (frames, bands) percussive share; computed when None."""
    if mask is None:
        mask = percussive_mask(np.sqrt(frames.mel))
    percussive = frames.mel * mask
    return split_beats(
        beat_means(percussive, grid, frames.frame_rate),
        beat_means(frames.mel - percussive, grid, frames.frame_rate),
        grid,
        rate,
    )


def grid_features(grid: BeatGrid) -> dict[str, DoubleArray]:
    """Where a beat stands: in its bar and phrase, and how its length departs from the others."""
    phase, durations = grid.bar_phase, grid.durations
    first = int(np.argmax(phase == 0))
    phrase = (np.arange(grid.n_beats) - first) % PHRASE_BEATS / PHRASE_BEATS
    before = np.concatenate([durations[:1], durations[:-1]])
    return {
        "beat_phase": np.stack([phase / grid.beats_per_bar, phase == 0, phrase], axis=1),
        "tempo_deviation": (60.0 / durations / grid.tempo_bpm - 1.0)[:, None],
        "interval_ratio": (durations / before)[:, None],
    }


def beat_features(
    mono: FloatArray,
    rate: int,
    grid: BeatGrid,
    stems: BeatStems | None = None,
    featuriser: str = "fast",
) -> FloatArray:
    """(n_beats, 121) float32. mono: (samples,) at `rate`; stems: proxies are made when None."""
    if featuriser not in FEATURISERS:
        raise ConfigError(f"unknown featuriser {featuriser!r}; one of {', '.join(FEATURISERS)}")
    if featuriser == "librosa":
        frames, mask = _librosa_frames(mono, rate)
    else:
        frames, mask = spectra.analyse_frames(mono, rate), None
    result = np.zeros((grid.n_beats, BEAT_FEATURES), dtype=np.float32)
    spectral = beat_means(frames.columns, grid, frames.frame_rate)
    result[:, DELTA_SOURCE] = spectral
    for name, values in grid_features(grid).items():
        result[:, FEATURE_SLICES[name]] = values
    result[1:, FEATURE_SLICES["temporal_delta"]] = spectral[1:] - spectral[:-1]
    stems = stems or beat_stems(frames, grid, rate, mask)
    result[:, FEATURE_SLICES["stem_energy"].start :] = stems.features()
    return result


def _librosa_frames(mono: FloatArray, rate: int) -> tuple[Frames, FloatArray]:
    """The frame columns and the percussive mask by plain calls of librosa."""
    import librosa  # slow to import, and only the reference needs it

    feature: Any = librosa.feature
    size: dict[str, int] = {"n_fft": N_FFT, "hop_length": HOP}
    mel = feature.melspectrogram(y=mono, sr=rate, n_mels=N_MELS, **size)
    db = librosa.power_to_db(mel)
    mfcc = feature.mfcc(S=db, n_mfcc=N_MFCC)
    onset = librosa.onset.onset_strength(S=db, sr=rate, center=False, hop_length=HOP)
    parts = {
        "onset_strength": onset,
        "rms": feature.rms(y=mono, frame_length=N_FFT, hop_length=HOP),
        "spectral_centroid": feature.spectral_centroid(y=mono, sr=rate, **size),
        "zero_crossing_rate": feature.zero_crossing_rate(mono, frame_length=N_FFT, hop_length=HOP),
        "rolloff": feature.spectral_rolloff(y=mono, sr=rate, **size),
        "bandwidth": feature.spectral_bandwidth(y=mono, sr=rate, **size),
        "flatness": feature.spectral_flatness(y=mono, **size),
        "spectral_contrast": feature.spectral_contrast(y=mono, sr=rate, **size),
        "mfcc": mfcc,
        "mfcc_delta": feature.delta(mfcc),
        "chroma": feature.chroma_stft(y=mono, sr=rate, tuning=0.0, **size),
    }
    columns = np.zeros((mel.shape[1], DELTA_SOURCE.stop), dtype=np.float32)
    for name, values in parts.items():
        columns[:, FEATURE_SLICES[name]] = np.atleast_2d(values).T
    _, percussive = librosa.decompose.hpss(np.sqrt(mel), kernel_size=(17, 9), mask=True)
    power = np.ascontiguousarray(mel.T)
    return Frames(columns, power, rate / HOP), np.asarray(percussive.T, dtype=np.float32)
