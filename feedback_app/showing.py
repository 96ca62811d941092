"""What the browser is told of a pair: enough to play it, nothing that tells which side is which.

Pairs never change once they are there, so the last ones are kept, their long lists as JSON text
straight from the database. Safe to call from several threads: the worst is to read one twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from feedback_app.database import Row
from feedback_app.scheduling import removed_ranges
from feedback_app.store import Store

PAIRS_KEPT: Final = 1000
MEDIA_KEPT: Final = 6000


@dataclass(frozen=True)
class Shown:
    """A pair as the page needs it; "a", "b" and "original" are the keys of all dictionaries."""

    sounds: dict[str, Row]
    paths: dict[str, str]
    reveal: dict[str, Any]


def order(row: Row) -> tuple[str, str]:
    """The edits on the left and on the right of an assignment."""
    return ("b", "a") if row["b_first"] else ("a", "b")


class Showing:
    """Payloads of assignments, and of what was done, which is told only after the vote."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept: dict[str, Shown] = {}
        self._media: dict[str, Row] = {}

    def knows(self, pair_id: str) -> bool:
        """Whether a payload of this pair needs no reading."""
        return pair_id in self._kept

    def payload(self, row: Row) -> Row:
        """What the browser needs to play an assignment, `row["progress"]` with it."""
        shown = self._pair(row["pair_id"])
        while len(self._media) >= MEDIA_KEPT:
            self._media.pop(next(iter(self._media)), None)
        self._media |= {row[f"media_{side}"]: row for side in ("left", "right", "original")}
        sides = {
            side: {"media": f"/media/{row[f'media_{side}']}", **shown.sounds[name]}
            for side, name in zip(("left", "right"), order(row), strict=True)
        }
        original = {"media": f"/media/{row['media_original']}", **shown.sounds["original"]}
        return {
            "assignment_id": row["assignment_id"],
            **sides,
            "original": original,
            "first_side": row["first_side"],
            "required_s": {side: row[f"required_{side}_s"] or 0.0 for side in ("left", "right")},
            "progress": row["progress"],
        }

    def reveal(self, row: Row) -> Row:
        """What was done on each side."""
        told = self._pair(row["pair_id"]).reveal
        return {side: told[name] for side, name in zip(("left", "right"), order(row), strict=True)}

    def path(self, media: str, annotator: str) -> str | None:
        """The stored path of a sound lately shown to this annotator; None: ask the database."""
        row = self._media.get(media)
        if row is None or row["annotator"] != annotator:
            return None
        paths = self._pair(row["pair_id"]).paths
        if media == row["media_original"]:
            return paths["original"]
        return paths[order(row)[media != row["media_left"]]]

    def _pair(self, pair_id: str) -> Shown:
        found = self._kept.get(pair_id)
        if found is None:
            found = _shown(self.store.shown_pair(pair_id))
            while len(self._kept) >= PAIRS_KEPT:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[pair_id] = found
        return found


def _shown(row: Row) -> Shown:
    sounds = {}
    for name in ("a", "b", "original"):
        peaks = row["original_peaks" if name == "original" else f"peaks_{name}"]
        sounds[name] = {
            "duration_s": row[f"duration_{name}"],
            "beats": _text(row[f"beats_{name}"]),
            "peaks": None if peaks is None else _text(peaks),
        }
        if name != "original":
            sounds[name]["regions"] = _text(row[f"regions_{name}"])
    passage, original = json.loads(row["passage"]), json.loads(row["beats_original"])
    times = [passage["start_s"] + beat[1] for beat in original] + [passage["end_s"]]
    reveal = {
        name: _reveal(row[f"segments_{name}"], json.loads(row[f"beats_{name}"]), passage, times)
        for name in ("a", "b")
    }
    paths = {name: row[f"path_{name}"] for name in ("a", "b")}
    return Shown(sounds, paths | {"original": row["original_path"]}, reveal)


def _reveal(segments: str, beats: Sequence[Any], passage: Row, times: Sequence[float]) -> Row:
    return {
        "segments": _text(segments),
        "removed": removed_ranges(beats, passage["start_beat"], times),
    }


def _text(value: str) -> orjson.Fragment:
    return orjson.Fragment(value.encode())
