"""SQL of imports: what is known already, and many rows in at once."""

from __future__ import annotations

from typing import Any

from feedback_app.database import Row, fetch

INSERT_ORDER = ("songs", "annotators", "edits", "pairs", "assignments", "votes")


def known_pairs(cursor: Any) -> dict[str, Row]:
    """pair_id → its edits and their versions."""
    rows = fetch(
        cursor,
        "SELECT p.pair_id, p.edit_a, p.edit_b, a.policy AS policy_a, b.policy AS policy_b"
        " FROM pairs AS p JOIN edits AS a ON a.edit_id = p.edit_a"
        " JOIN edits AS b ON b.edit_id = p.edit_b",
    )
    return {row["pair_id"]: row for row in rows}


def known_votes(cursor: Any) -> tuple[set[str], set[tuple[str, str, bool, bool]]]:
    """UUIDs of all votes and undos; (pair, annotator, simulated, repeat) of the current ones."""
    cursor.execute("SELECT vote_id::VARCHAR FROM votes")
    ids = {row[0] for row in cursor.fetchall()}
    cursor.execute(
        "SELECT pair_id, annotator, simulated, coalesce(repeat, false) FROM current_votes"
    )
    return ids, set(cursor.fetchall())


def known_names(cursor: Any) -> dict[str, set[str]]:
    """Ids that an import must not collide with: songs, edits, policies, annotators."""
    keys = {"songs": "song_id", "edits": "edit_id", "policies": "version", "annotators": "name"}
    found = {}
    for table, key in keys.items():
        cursor.execute(f"SELECT {key} FROM {table}")
        found[table] = {row[0] for row in cursor.fetchall()}
    return found


def vote_numbers(cursor: Any, count: int) -> list[int]:
    """The next places in the order of the votes."""
    cursor.execute("SELECT nextval('vote_order') FROM range(?)", [count])
    return sorted(row[0] for row in cursor.fetchall())


def insert_rows(cursor: Any, table: str, rows: list[Row]) -> None:
    """Insert rows with the same columns (names are our own) in one statement."""
    if not rows:
        return
    import pyarrow as pa

    names = ", ".join(rows[0])
    cursor.register("incoming", pa.Table.from_pylist(rows))
    try:
        cursor.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM incoming")
    finally:
        cursor.unregister("incoming")
