"""Checking one imported row: types column by column, then whether it makes sense as a vote.

Nothing here asks the database; whether a pair is known, and whether somebody has voted on it
already, is asked by `transfers`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from feedback_app.database import Row, utc_now
from feedback_app.exchange.query import POOLS, SPLITS
from feedback_app.exchange.record import COLUMNS, Column
from rlhf_core.editing.actions import check_actions
from rlhf_core.editing.edl import EDL, edl_from_json
from rlhf_core.errors import CoreError
from rlhf_core.types import Passage

CHOICES = ("a", "b", "tie", "both_bad", "skip")
SOURCES = ("app", "import", "simulate")
LIMITS = {"int8": 2**7, "int32": 2**31, "int64": 2**63}
MAX_NAME = 60
PAIR_NEEDS = ("edit_a", "edit_b", "policy_a", "policy_b")


@dataclass(frozen=True)
class ImportedVote:
    """One good row. `row` has every column of the record; what the file lacked is None.

    edl_a, edl_b, edl_original: where the file tells beats and segments, else None.
    """

    row: Row
    edl_a: EDL | None = None
    edl_b: EDL | None = None
    edl_original: EDL | None = None

    @property
    def key(self) -> tuple[str, str, bool, bool]:
        """Nobody votes twice with the same key."""
        row = self.row
        return row["pair_id"], row["annotator"], row["simulated"], row["pool"] == "repeat"

    @property
    def tells_pair(self) -> bool:
        """Whether the file says enough to put a pair that is not here."""
        return all(self.row[name] is not None for name in PAIR_NEEDS)


def checked_vote(given: Row) -> ImportedVote | str:
    """A row as a vote, or the reason why it is none."""
    try:
        row = {column.name: _value(column, given.get(column.name)) for column in COLUMNS}
        _check_vote(row)
        _check_edits(row)
        return ImportedVote(row, *_edls(row))
    except ValueError as error:
        return str(error)
    except CoreError as error:
        return f"the edits make no sense: {error}"


def _value(column: Column, value: Any) -> Any:
    """A value of a file as the column's type; empty text is null."""
    if value is None or (value == "" and column.name != "comment"):
        return None
    try:
        return _READERS[column.kind](value)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        shown = repr(value)[:60]
        raise ValueError(f"{column.name} {shown} is not a {column.kind}") from error


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # lone surrogates cannot be stored
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[str(value).lower()]


def _integer(kind: str) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
            raise TypeError
        number = int(value)
        if not -LIMITS[kind] <= number < LIMITS[kind]:
            raise ValueError
        return number

    return read


def _double(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError
    return number


def _moment(value: Any) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(_string(value))
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def _json(value: Any) -> Row:
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise TypeError
    json.dumps(found, allow_nan=False)
    return found


def _list(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def items(value: Any) -> list[Any]:
        found = json.loads(value) if isinstance(value, str) else value
        if not isinstance(found, list):
            raise TypeError
        return [read(item) for item in found]

    return items


def _segment(value: Any) -> Row:
    return {
        "start_beat": _integer("int32")(value["start_beat"]),
        "end_beat": _integer("int32")(value["end_beat"]),
        "gain_start": _double(value["gain_start"]),
        "gain_end": _double(value["gain_end"]),
        "reverse": _boolean(value["reverse"]),
    }


_READERS: dict[str, Callable[[Any], Any]] = {
    "string": _string,
    "bool": _boolean,
    "int8": _integer("int8"),
    "int32": _integer("int32"),
    "int64": _integer("int64"),
    "double": _double,
    "timestamp": _moment,
    "json": _json,
    "strings": _list(_string),
    "ints": _list(_integer("int8")),
    "doubles": _list(_double),
    "segments": _list(_segment),
}


def _check_vote(row: Row) -> None:
    """Refuse what is no vote; fill in what may be left out."""
    if not row["pair_id"]:
        raise ValueError("pair_id is missing")
    name = (row["annotator"] or "").strip()
    if not name or len(name) > MAX_NAME:
        raise ValueError(f"annotator is missing or longer than {MAX_NAME} characters")
    if not name.isprintable():
        raise ValueError("annotator holds characters that cannot be printed")
    for column, known in (("choice", CHOICES), ("source", SOURCES), ("pool", POOLS),
                          ("split", SPLITS)):  # fmt: skip
        value = row[column]
        if value not in known and (value is not None or column == "choice"):
            raise ValueError(f"{column} {value!r} is not one of {', '.join(known)}")
    if row["strength"] is not None and row["strength"] not in (1, 2, 3):
        raise ValueError(f"strength '{row['strength']}' is not 1, 2, 3 or empty")
    if row["strength"] is not None and row["choice"] not in ("a", "b"):
        raise ValueError(f"a choice of {row['choice']} has no strength")
    row |= {"annotator": name, "simulated": bool(row["simulated"]), "b_first": bool(row["b_first"])}
    row["source"] = row["source"] or ("simulate" if row["simulated"] else "import")
    if row["source"] == "simulate" and not row["simulated"]:
        raise ValueError("a vote of source simulate must be marked as simulated")
    row["comment"] = row["comment"] or ""
    row["created_at"] = row["created_at"] or utc_now()
    weight = row["annotator_weight"]
    if weight is not None and not 0 < weight <= 1:
        raise ValueError(f"annotator_weight {weight:g} is not more than 0 and at most 1")
    row["vote_id"] = str(uuid4()) if row["vote_id"] is None else _uuid(row["vote_id"])


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as error:
        raise ValueError(f"vote_id {text!r} is not a UUID") from error


def _check_edits(row: Row) -> None:
    start, end = row["start_beat"], row["end_beat"]
    for side in ("a", "b"):
        actions = row[f"actions_{side}"]
        if not actions:
            continue
        if start is None or end is None:
            raise ValueError("actions without start_beat and end_beat")
        check_actions(np.array(actions, dtype=np.int64), Passage(start, end).n_beats)
    if row["bar_phase"] is not None and (start is None or len(row["bar_phase"]) != end - start):
        raise ValueError("bar_phase must have one entry per beat of the passage")


def _edls(row: Row) -> tuple[EDL | None, EDL | None, EDL | None]:
    """Of both edits and the original, where the row tells beats and segments."""
    if row["beat_times"] is None or row["start_beat"] is None or row["end_beat"] is None:
        return None, None, None
    passage = {"start_beat": row["start_beat"], "end_beat": row["end_beat"]}
    times = np.array(row["beat_times"], dtype=np.float64)
    if np.any(np.diff(times) <= 0):
        raise ValueError("beat_times must rise from beat to beat")
    whole = {"gain_start": 1.0, "gain_end": 1.0, "reverse": False}
    wanted = (row["segments_a"], row["segments_b"], [passage | whole])
    a, b, original = (
        edl_from_json({"passage": passage, "segments": segments}, times) if segments else None
        for segments in wanted
    )
    return a, b, original
