"""Reading the first row of what a cursor has just executed."""

from __future__ import annotations

from typing import Any


def first_row(cursor: Any) -> Any:
    """The first row as a tuple, None where there is none; the rest is read too.

    DuckDB's own `fetchone` leaves the result open, and with it a transaction: for as long as the
    cursor is not used again, no checkpoint goes through and every later version of a changed row
    stays in memory.
    """
    rows = cursor.fetchall()
    return rows[0] if rows else None
