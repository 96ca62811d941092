"""Reading and writing JSON columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from feedback_app.cursors import first_row


def dumps(value: Any) -> str | None:
    """A JSON column's text; None stays NULL."""
    return None if value is None else json.dumps(value, allow_nan=False, ensure_ascii=False)


def decoded(row: dict[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """The row with its JSON columns read."""
    return row | {name: json.loads(row[name]) for name in columns if isinstance(row.get(name), str)}


def insert(cursor: Any, table: str, row: dict[str, Any], *, ignore: bool = False) -> bool:
    """Insert one row by column names (names come from our own code, values are bound).

    With `ignore`, a row whose key exists is left as it is. Returns whether a row went in.
    """
    columns = ", ".join(row)
    marks = ", ".join("?" for _ in row)
    conflict = " ON CONFLICT DO NOTHING" if ignore else ""
    cursor.execute(
        f"INSERT INTO {table} ({columns}) VALUES ({marks}){conflict} RETURNING 1",
        list(row.values()),
    )
    return first_row(cursor) is not None


def insert_many(cursor: Any, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows with the same columns in one statement."""
    columns = list(rows[0])
    marks = "(" + ", ".join("?" for _ in columns) + ")"
    cursor.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join(marks for _ in rows)}",
        [row[name] for row in rows for name in columns],
    )
