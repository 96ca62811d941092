"""Stems by Demucs, where somebody installed it and its weights are on disk already.

The extra `demucs` brings the package; the weights are looked for in the folder DEMUCS_WEIGHTS, or
where Demucs itself keeps what it downloads (torch hub's checkpoints). Nothing is ever downloaded
here. Separated stems become beat-level mel power on the same bands as the proxies, so that the 12
stem columns keep their meaning. Demucs: A. Défossez, "Hybrid spectrogram and waveform source
separation", 2021; htdemucs: S. Rouard et al., 2023.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import soxr  # type: ignore[import-untyped]

from rlhf_core.audio.feature_table import STEMS
from rlhf_core.audio.features import beat_means
from rlhf_core.audio.filters import frame_count, mel_filters, power_blocks
from rlhf_core.audio.io import ANALYSIS_RATE, Audio
from rlhf_core.audio.spectra import HOP, N_FFT, N_MELS
from rlhf_core.audio.stems import BeatStems
from rlhf_core.errors import ConfigError
from rlhf_core.types import BeatGrid, FloatArray

MODEL: Final = "htdemucs"
SIGNATURE: Final = "955717e8"  # the file of MODEL is <SIGNATURE>-<checksum>.th
SOURCE: Final = f"demucs {MODEL}"
WEIGHTS_VARIABLE: Final = "DEMUCS_WEIGHTS"
OVERLAP: Final = 0.25


def weights_folder() -> Path:
    """Where the weights are looked for."""
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    if chosen:
        return Path(chosen)
    home = os.environ.get("TORCH_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(home) if home else cache / "torch") / "hub" / "checkpoints"


def check_available() -> Path:
    """The folder that holds the weights. Raises ConfigError, saying what is missing."""
    if importlib.util.find_spec("demucs") is None:
        raise ConfigError(
            "stems by Demucs were asked for, but the package demucs is not installed; run `pip "
            "install 'rlhf-audio-editor[demucs]'`, or use --stems proxies"
        )
    folder = weights_folder()
    if not folder.is_dir() or not any(folder.glob(f"{SIGNATURE}*.th")):
        raise ConfigError(
            f"stems by Demucs were asked for, but {folder} holds no weights of {MODEL} "
            f"({SIGNATURE}-*.th); put them there (running `demucs` once on any song does), name "
            f"another folder in {WEIGHTS_VARIABLE}, or use --stems proxies"
        )
    return folder


def _load_model(folder: Path) -> Any:
    """The network, in evaluation mode. Only its own classes may come out of the file."""
    import torch
    from demucs.htdemucs import HTDemucs
    from demucs.pretrained import get_model

    scalar = importlib.import_module("numpy._core.multiarray").scalar
    allowed = [HTDemucs, Fraction, scalar, np.dtype, np.dtypes.Float64DType]
    try:
        with torch.serialization.safe_globals(allowed):
            model = get_model(SIGNATURE, folder)
    except (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{folder}: the weights {SIGNATURE}-*.th cannot be loaded ({error}); fetch them again, "
            "or use --stems proxies"
        ) from error
    model.eval()
    missing = [name for name in STEMS if name not in model.sources]
    if missing:
        raise ConfigError(f"{folder}: the Demucs model there has no {', '.join(missing)}")
    return model


def separate(audio: Audio) -> dict[str, FloatArray]:
    """{stem: mono samples at ANALYSIS_RATE} of a song. Raises ConfigError (see check_available)."""
    folder = check_available()
    import torch
    from demucs.apply import apply_model

    model = _load_model(folder)
    rate, channels = int(model.samplerate), int(model.audio_channels)
    mix = np.repeat(audio.samples, 2, axis=1) if audio.channels < channels else audio.samples
    if audio.sample_rate != rate:
        mix = soxr.resample(mix, audio.sample_rate, rate, quality="HQ")
    wave = torch.from_numpy(np.ascontiguousarray(mix.T, dtype=np.float32))
    centre, spread = wave.mean(), wave.std() + 1e-8  # the scaling that Demucs was trained with
    with torch.inference_mode():
        parts = apply_model(
            model, ((wave - centre) / spread)[None], shifts=0, split=True, overlap=OVERLAP
        )[0]
    stems: dict[str, FloatArray] = {}
    for name, part in zip(model.sources, parts, strict=True):
        mono = (part * spread).mean(dim=0).numpy()
        mono = soxr.resample(mono, rate, ANALYSIS_RATE, quality="HQ")
        stems[name] = np.ascontiguousarray(mono, dtype=np.float32)
    return stems


def beat_stems(audio: Audio, grid: BeatGrid) -> BeatStems:
    """Mean mel power of each separated stem on each beat."""
    separated = separate(audio)
    power = [_beat_power(separated[name], grid) for name in STEMS]
    return BeatStems(np.stack(power), ANALYSIS_RATE)


def _beat_power(mono: FloatArray, grid: BeatGrid) -> FloatArray:
    mel = np.empty((frame_count(len(mono), HOP), N_MELS), dtype=np.float32)
    bands = mel_filters(ANALYSIS_RATE, N_FFT, N_MELS)
    for start, power in power_blocks(mono, N_FFT, HOP):
        np.matmul(power, bands, out=mel[start : start + len(power)])
    return beat_means(mel, grid, ANALYSIS_RATE / HOP)
