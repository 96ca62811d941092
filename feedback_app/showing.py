"""What the browser is told of a pair: enough to play it, nothing that tells which side is which.

Pairs never change once they are there, so those asked for last are kept (some 15 kB each), their
long lists as JSON text straight from the database. Pairs that somebody has begun are given first,
so few are in use at a time. Safe to call from several threads: the worst is to read one twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import orjson

from feedback_app.database import Row
from feedback_app.scheduling import removed_ranges
from feedback_app.store import Store

PAIRS_KEPT: Final = 250
MEDIA_KEPT: Final = 6000
V = TypeVar("V")


class Lately(Generic[V]):
    """The values asked for last, at most so many. Safe to use from any thread.

    >>> lately = Lately(2)
    >>> for name in "abac": lately.get(name) or lately.put(name, name.upper())
    'A'
    >>> ["a" in lately, "b" in lately, "c" in lately]
    [True, False, True]
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[str, V] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> V | None:
        with self._lock:
            value = self._values.pop(key, None)
            if value is not None:
                self._values[key] = value  # the last one now
            return value

    def put(self, key: str, value: V) -> None:
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._most:
                del self._values[next(iter(self._values))]


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
        self._pairs: Lately[Shown] = Lately(PAIRS_KEPT)
        self._media: Lately[Row] = Lately(MEDIA_KEPT)

    def knows(self, pair_id: str) -> bool:
        """Whether a payload of this pair needs no reading."""
        return pair_id in self._pairs

    def payload(self, row: Row) -> Row:
        """What the browser needs to play an assignment, `row["progress"]` with it."""
        shown = self._pair(row["pair_id"])
        for side in ("left", "right", "original"):
            self._media.put(row[f"media_{side}"], row)
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
        found = self._pairs.get(pair_id)
        if found is None:
            found = _shown(self.store.shown_pair(pair_id))
            self._pairs.put(pair_id, found)
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
