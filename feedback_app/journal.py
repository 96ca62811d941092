"""What the batches of several apps on one shared database let each other know.

One row per write transaction, under its turn (`shared_database`): what its batches did, as events
that another app's `pool` can follow, and whether something else was written as well. An app that
comes late reads the rows in between; where one is missing (it is older than KEPT turns, or the
database was written to without this) it cannot know, and reads everything afresh.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from feedback_app.database import News

KEPT: Final = 1000  # turns
TIDIED_EVERY: Final = 100
TABLE: Final = """CREATE TABLE IF NOT EXISTS journal (
    turn BIGINT NOT NULL, elsewhere BOOLEAN NOT NULL, events VARCHAR NOT NULL)"""
_TIME = "$time"


def write(cursor: Any, turn: int, events: list[News], elsewhere: bool) -> None:
    """Note what the transaction of this turn did; in it."""
    cursor.execute("INSERT INTO journal VALUES (?, ?, ?)", [turn, elsewhere, _text(events)])
    if turn % TIDIED_EVERY == 0:
        cursor.execute("DELETE FROM journal WHERE turn < ?", [turn - KEPT])


def read(cursor: Any, after: int, before: int) -> tuple[list[News], bool] | None:
    """(events, whether something else was written) of the turns between; None: not known."""
    if before - after - 1 > KEPT:
        return None
    cursor.execute(
        "SELECT elsewhere, events FROM journal WHERE turn > ? AND turn < ? ORDER BY turn",
        [after, before],
    )
    rows = cursor.fetchall()
    if len(rows) != before - after - 1:
        return None
    events = [event for _, text in rows for event in _events(text)]
    return events, any(elsewhere for elsewhere, _ in rows)


def _text(events: list[News]) -> str:
    return json.dumps(events, default=lambda value: {_TIME: value.isoformat()})


def _events(text: str) -> list[News]:
    return [(name, values) for name, values in json.loads(text, object_hook=_time)]


def _time(found: dict[str, Any]) -> Any:
    return datetime.fromisoformat(found[_TIME]) if set(found) == {_TIME} else found
