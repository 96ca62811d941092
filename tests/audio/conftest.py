"""Demo songs are synthesised once a session; real songs are read from the folder REAL_SONGS."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from rlhf_core.audio.demo_songs import DemoSong, demo_song
from rlhf_core.audio.demo_synth import RATE
from rlhf_core.audio.io import Audio


@pytest.fixture(scope="session")
def demo() -> Callable[[int], DemoSong]:
    """demo(seed) -> DemoSong, kept for the session."""
    return cache(demo_song)


@pytest.fixture(scope="session")
def demo_audio(demo: Callable[[int], DemoSong]) -> Callable[[int], Audio]:
    """demo_audio(seed) -> Audio as if read from a file."""
    return lambda seed: Audio(demo(seed).samples, RATE, Path(f"demo{seed}.flac"))


@pytest.fixture(scope="session")
def real_songs() -> list[Path]:
    folder = os.environ.get("REAL_SONGS")
    if not folder:
        pytest.skip("REAL_SONGS is not set: no real songs to try")
    songs = sorted(Path(folder).glob("*.ogg"))
    assert songs, f"REAL_SONGS={folder} holds no .ogg files"
    return songs
