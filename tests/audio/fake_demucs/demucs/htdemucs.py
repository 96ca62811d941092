from __future__ import annotations

from torch import nn


class HTDemucs(nn.Module):
    """Holds what the real network tells about itself."""

    def __init__(self) -> None:
        super().__init__()
        self.samplerate, self.audio_channels = 44100, 2
        self.sources = ["drums", "bass", "other", "vocals"]
