"""One song in a real format under an awkward name, and settings that keep first versions small."""

from __future__ import annotations

import os
from pathlib import Path

import soundfile

from rlhf_core.audio.demo_songs import demo_song

AWKWARD = "Ваня's <b>“take” 3.ogg"
SMALL = {
    "imitation_steps": 40,
    "first_pairs": 12,
    "votes_per_pair": 1,
    "required_cap_s": 0.5,
    "test_share": 0,
    "version_examples": 1,
    "nice": 0,
}


def make_song(folder: Path) -> Path:
    """A real recording where REAL_SONGS names a folder, else a synthesised song as Ogg Vorbis."""
    target = folder / AWKWARD
    real = os.environ.get("REAL_SONGS")
    recordings = list(Path(real).glob("*.ogg")) if real else []
    if recordings:
        target.write_bytes(max(recordings, key=lambda path: path.stat().st_size).read_bytes())
        return target
    made, blocks = demo_song(seed=1), 65536  # libsndfile's Vorbis writer crashes on long writes
    with soundfile.SoundFile(target, "w", 44100, 2, format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(made.samples), blocks):
            file.write(made.samples[start : start + blocks])
    return target
