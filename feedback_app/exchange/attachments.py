"""What lies beside an exported table: the audio of pairs and the beat features of songs.

Audio: `audio/<pair_id>/{a,b,original}.<flac|wav>`; FLAC is copied as it was rendered, WAV (16 bit)
is decoded from it. Features: `features/<song_id>.npz` with `features` (beats, 121), `times`
(beats + 1, seconds), `bar_phase` (beats,), `names` (121,) and `meta` (JSON text: featuriser and its
version). A file that is not there any more is left out, and counted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from feedback_app.database import Row
from feedback_app.errors import InvalidError
from feedback_app.exchange.archive import DAMAGED, write_npz
from rlhf_core.audio.feature_table import BEAT_FEATURES, FEATURE_SLICES

SIDES = ("a", "b", "original")


@dataclass
class Attachments:
    """Writes each file once; `columns` names the files of one row."""

    root: Path  # of the workspace
    folder: Path  # of the export
    audio: str | None
    features: bool
    missing: set[str] = field(default_factory=set)
    _done: dict[str, str | None] = field(default_factory=dict)

    def columns(self, row: Row) -> dict[str, Any]:
        """audio_a, audio_b, audio_original, features of a record, as far as they are wanted."""
        found: dict[str, Any] = {}
        if self.audio is not None:
            for side in SIDES:
                name = f"audio/{safe(row['pair_id'])}/{side}.{self.audio}"
                found[f"audio_{side}"] = self._once(name, row[f"path_{side}"])
        if self.features:
            found["features"] = self._once(f"features/{safe(row['song_id'])}.npz", row["song_id"])
        return found

    def song(self, song_id: str) -> dict[str, Any] | None:
        """The arrays of a song's analysis; None where there is none here."""
        path = self.root / "cache" / f"{safe(song_id)}.npz"
        try:
            with np.load(path, allow_pickle=False) as data:
                return {name: data[name] for name in ("features", "times", "bar_phase", "meta")}
        except FileNotFoundError:
            return None
        except (*DAMAGED, OSError, KeyError) as error:
            raise InvalidError(
                f"{path}: the analysis of the song cannot be read ({error}). Remove the file; the "
                "next run that needs it makes it again."
            ) from error

    def _once(self, name: str, source: str | None) -> str | None:
        if name not in self._done:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write = self._write_features if name.endswith(".npz") else self._write_audio
            written = bool(source) and write(str(source), target)
            self._done[name] = name if written else None
            if not written:
                self.missing.add(name)
        return self._done[name]

    def _write_audio(self, stored: str, target: Path) -> bool:
        source = self.root / stored
        if not source.is_file():
            return False
        if source.suffix == target.suffix:
            shutil.copyfile(source, target)
            return True
        import soundfile

        try:
            samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
            soundfile.write(target, samples, rate, subtype="PCM_16")
        except (OSError, RuntimeError) as error:
            raise InvalidError(f"{source}: the audio cannot be read ({error})") from error
        return True

    def _write_features(self, song_id: str, target: Path) -> bool:
        arrays = self.song(song_id)
        if arrays is None:
            return False
        meta = json.loads(str(arrays["meta"]))
        kept = {name: meta.get(name) for name in ("feature_version", "featuriser", "stem_source")}
        write_npz(
            target,
            {name: arrays[name] for name in ("features", "times", "bar_phase")}
            | {"names": np.array(feature_names()), "meta": np.array(json.dumps(kept))},
        )
        return True


def feature_names() -> list[str]:
    """The 121 columns by name, those of one feature numbered from 0."""
    names = [""] * BEAT_FEATURES
    for name, place in FEATURE_SLICES.items():
        width = place.stop - place.start
        for i in range(width):
            names[place.start + i] = f"{name}_{i}" if width > 1 else name
    return names


def safe(name: str) -> str:
    """An id as a file name; ids may come from imported files."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:80]
    if plain == name and name:
        return name
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
