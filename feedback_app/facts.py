"""What figures about votes are computed from: one narrow in-memory table, kept up with the votes.

A temporary DuckDB table, `facts`, has a row per vote that was not taken back, with all that the
figures ask of its pair, its edits and its assignment worked out once. Votes are append-only, so a
refresh reads only what came since the last one: new votes go in, votes that were undone go out.
Figures are then group-bys over small columns; at a million votes that is the difference between
seconds and tenths of one. The table lives in a connection of its own, behind a lock, and is made
anew with each process: nothing has to be kept in step on disk.

Columns: `choice` 1 a, 2 b, 3 tie, 4 both bad, 5 can't judge; `broken` the side of a gold pair that
is the broken edit (1 a, 2 b), 0 elsewhere; `is_left`, `is_first`: whether a decisive vote went to
the left side, to the side played first (NULL: not decisive or not known); `longer_s`, `louder_db`:
edit a minus edit b, in whole seconds and half decibels (the level before both were brought to one
loudness); `is_current`: the newest of a person's votes on a pair, as `current_votes` has it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from feedback_app.cursors import first_row
from feedback_app.database import Database, Row

COLUMNS = """seq BIGINT, vote_id UUID, pair UBIGINT, annotator VARCHAR, song VARCHAR,
    policy_a VARCHAR, policy_b VARCHAR, choice TINYINT, simulated BOOLEAN, repeat BOOLEAN,
    in_app BOOLEAN, pool VARCHAR, gold BOOLEAN, broken TINYINT, is_left BOOLEAN, is_first BOOLEAN,
    too_fast BOOLEAN, one_sided BOOLEAN, response_ms BIGINT, created_at TIMESTAMP,
    longer_s DOUBLE, louder_db DOUBLE, is_current BOOLEAN"""
LENGTH_LIMIT_S, LEVEL_LIMIT_DB = 15, 6
NEW = f"""
    INSERT INTO facts
    WITH shown AS (
        SELECT p.pair_id, p.song_id, p.pool, p.pool = 'gold' AS gold,
            CASE WHEN p.pool <> 'gold' THEN 0 WHEN ea.preset = 'broken' THEN 1 ELSE 2 END AS broken,
            ea.policy AS policy_a, eb.policy AS policy_b,
            round(ea.duration_s - eb.duration_s) AS longer_s,
            round(2 * ((p.gains_db ->> 'b')::DOUBLE - (p.gains_db ->> 'a')::DOUBLE)) / 2
                AS louder_db
        FROM pairs AS p JOIN edits AS ea ON ea.edit_id = p.edit_a
        JOIN edits AS eb ON eb.edit_id = p.edit_b),
    fresh AS (
        SELECT v.seq, v.vote_id, v.pair_id, v.assignment_id, v.annotator, v.choice, v.simulated,
            v.repeat, v.source, v.response_ms, v.created_at, v.choice IN ('a', 'b') AS decisive,
            v.flags::VARCHAR AS flags, v.listened ->> 'first_side' AS first_side
        FROM votes AS v ANTI JOIN (
            SELECT undoes AS vote_id, annotator FROM votes WHERE kind = 'undo') AS u
            USING (vote_id, annotator)
        WHERE v.kind = 'vote' AND v.seq > $last)
    SELECT v.seq, v.vote_id, hash(v.pair_id), v.annotator, s.song_id, s.policy_a, s.policy_b,
        list_position(['a', 'b', 'tie', 'both_bad', 'skip'], v.choice), v.simulated,
        coalesce(v.repeat, false), v.source = 'app', s.pool, s.gold, s.broken,
        CASE WHEN v.decisive THEN (v.choice = 'b') = a.b_first END,
        CASE WHEN v.decisive AND v.first_side IN ('left', 'right')
            THEN ((v.choice = 'b') = a.b_first) = (v.first_side = 'left') END,
        coalesce(contains(v.flags, '"too_fast"'), false),
        coalesce(contains(v.flags, '"one_sided"'), false),
        v.response_ms, v.created_at,
        greatest(-{LENGTH_LIMIT_S}, least({LENGTH_LIMIT_S}, coalesce(s.longer_s, 0))),
        greatest(-{LEVEL_LIMIT_DB}, least({LEVEL_LIMIT_DB}, coalesce(s.louder_db, 0))), true
    FROM fresh AS v JOIN shown AS s USING (pair_id)
    LEFT JOIN assignments AS a ON a.assignment_id = v.assignment_id"""
TAKEN_BACK = """
    DELETE FROM facts USING votes AS u WHERE u.kind = 'undo' AND u.seq > $last
    AND facts.vote_id = u.undoes AND facts.annotator = u.annotator"""
# Mostly nobody has two votes on a pair: then one count is all that this takes.
TWICE = """SELECT count(*) - count(DISTINCT hash(pair, annotator, simulated, repeat)) FROM facts"""
NEWEST = """
    UPDATE facts SET is_current = (seq = k.newest) FROM (
        SELECT pair, annotator, simulated, repeat, max(seq) AS newest FROM facts GROUP BY ALL) AS k
    WHERE facts.pair = k.pair AND facts.annotator = k.annotator
    AND facts.simulated = k.simulated AND facts.repeat = k.repeat
    AND is_current <> (seq = k.newest)"""


class Facts:
    """The table of facts of one database. Safe to use from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._cursor: Any = None
        self._generation = -1
        self._last = 0
        self._votes = self._pairs = -1
        self._twice = False

    def rows(self, sql: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of a query over `facts` and the other tables, as of now. Values are named."""
        with self._lock:
            self._refresh()
            self._cursor.execute(sql, dict(values or {}))
            names = [column[0] for column in self._cursor.description]
            return [dict(zip(names, row, strict=True)) for row in self._cursor.fetchall()]

    def columns(self, sql: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The same, as numpy arrays by column."""
        with self._lock:
            self._refresh()
            return dict(self._cursor.execute(sql, dict(values or {})).fetchnumpy())

    def _refresh(self) -> None:
        if self._generation != self._database.generation:
            self._cursor, self._generation = self._database.own_cursor()
            self._start_over()
        found = self._cursor.execute(
            "SELECT (SELECT max(seq) FROM votes), (SELECT count(*) FROM votes),"
            " (SELECT count(*) FROM votes WHERE seq <= ?), (SELECT count(*) FROM pairs)",
            [self._last],
        )
        state = first_row(found)
        newest, votes, known, pairs = (int(value or 0) for value in state)
        if known != self._votes or pairs < self._pairs:  # rows went away: a song was removed
            self._start_over()
        elif votes == known:
            return
        self._take_in()
        self._last, self._votes, self._pairs = newest, votes, pairs

    def _start_over(self) -> None:
        self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE facts ({COLUMNS})")
        self._last = self._votes = self._pairs = 0
        self._twice = False

    def _take_in(self) -> None:
        self._cursor.execute("BEGIN")
        if self._last:
            self._cursor.execute(TAKEN_BACK, {"last": self._last})
        self._cursor.execute(NEW, {"last": self._last})
        twice = first_row(self._cursor.execute(TWICE))[0] > 0
        if twice or self._twice:
            self._cursor.execute(NEWEST)
        self._twice = twice
        self._cursor.execute("COMMIT")
