"""SQL of assignments and votes. Votes are only ever inserted; see `schema` for what undo means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from feedback_app.cursors import first_row
from feedback_app.database import Database, Row, fetch, utc_now
from feedback_app.json_columns import decoded, dumps, insert, insert_many
from feedback_app.store_runs import DRY_RUNS

VOTE_JSON = ("tags", "listened", "client", "flags")


class VoteRows:
    """Assignments and votes."""

    database: Database

    # -- what `pool` keeps in memory ----------------------------------------------------------

    def pool_fingerprint(self, cursor: Any) -> tuple[Any, ...]:
        """Changes with pairs to give and their order (0-2), assignments, imported votes."""
        cursor.execute(
            """SELECT
                (SELECT count(*) FROM pairs),
                (SELECT bit_xor(hash(pair_id)) FROM pairs WHERE retired),
                (SELECT bit_xor(hash(pair_id, place, created_at)) FROM pair_scores),
                (SELECT count(*) FROM assignments),
                (SELECT count(*) FROM votes WHERE source <> 'app' AND NOT simulated)"""
        )
        return tuple(first_row(cursor))

    def pair_mark(self, cursor: Any, pair_id: str) -> int:
        """What a retired pair adds to the second entry of `pool_fingerprint`, by exclusive or."""
        cursor.execute("SELECT hash(?::VARCHAR)", [pair_id])
        (found,) = first_row(cursor)
        return int(found)

    def pairs_to_give(self, cursor: Any, since: datetime) -> list[tuple[Any, ...]]:
        """(pair_id, batch, pool, regions_a, regions_b, information, place, created_at), oldest
        first; the regions as JSON text.

        information, place: of the newest ranking; null where none has looked at the pair.
        """
        cursor.execute(
            """SELECT p.pair_id, coalesce(p.run_id, ''), p.pool, p.regions_a, p.regions_b,
                s.information, s.place, p.created_at
            FROM pairs AS p LEFT JOIN pair_scores AS s USING (pair_id)
            WHERE NOT p.retired AND p.created_at >= ? ORDER BY p.created_at, p.pair_id""",
            [since],
        )
        return list(cursor.fetchall())

    def places_taken(self, cursor: Any) -> dict[str, int]:
        """How many people have a place of each pair; pairs of which nobody has are left out."""
        cursor.execute(
            "SELECT pair_id, count(DISTINCT annotator) FROM assignments"
            " WHERE state <> 'abandoned' AND repeat_of IS NULL GROUP BY pair_id"
        )
        return dict(cursor.fetchall())

    def pending_assignments(self, cursor: Any) -> list[Row]:
        """Whole rows of what is open or was abandoned and not voted on since, oldest first."""
        return fetch(
            cursor,
            "SELECT * FROM assignments WHERE state <> 'done' ORDER BY created_at, assignment_id",
        )

    # -- what `person` keeps in memory, of the annotators named ---------------------------------

    def taken_by(self, cursor: Any, names: Sequence[str]) -> list[tuple[str, list[str]]]:
        """(annotator, pairs of which they have a place)"""
        cursor.execute(
            "SELECT annotator, list(pair_id) FROM assignments WHERE list_contains(?, annotator)"
            " AND state <> 'abandoned' AND repeat_of IS NULL GROUP BY annotator",
            [list(names)],
        )
        return list(cursor.fetchall())

    def repeated_by(self, cursor: Any, names: Sequence[str]) -> list[tuple[str, list[str]]]:
        """(annotator, pairs that they were given a second time)"""
        cursor.execute(
            "SELECT annotator, list(DISTINCT pair_id) FROM assignments"
            " WHERE list_contains(?, annotator) AND repeat_of IS NOT NULL AND state <> 'abandoned'"
            " GROUP BY annotator",
            [list(names)],
        )
        return list(cursor.fetchall())

    def heard_by(
        self, cursor: Any, names: Sequence[str], each: int
    ) -> list[tuple[str, str, str, bool]]:
        """(annotator, pair_id, assignment_id, b_first) of the last pairs that each voted on, in
        the order in which they were given. Not those of which they said "can't judge"."""
        cursor.execute(
            """SELECT annotator, pair_id, assignment_id, b_first FROM assignments AS a
            WHERE list_contains($names, annotator) AND state = 'done' AND repeat_of IS NULL
            AND NOT EXISTS (
                SELECT 1 FROM current_votes AS v WHERE v.assignment_id = a.assignment_id
                AND list_contains($names, v.annotator) AND v.choice = 'skip')
            QUALIFY row_number() OVER (
                PARTITION BY annotator ORDER BY created_at DESC, assignment_id DESC) <= $each
            ORDER BY created_at, assignment_id""",
            {"names": list(names), "each": each},
        )
        return list(cursor.fetchall())

    def recent_votes(self, cursor: Any, names: Sequence[str], each: int) -> list[Row]:
        """The last votes of each, oldest first, without undone ones.

        annotator, vote_id, choice, b_first, too_fast.
        """
        return fetch(
            cursor,
            """SELECT v.annotator, v.vote_id::VARCHAR AS vote_id, v.choice, a.b_first,
                coalesce(contains(v.flags::VARCHAR, '"too_fast"'), false) AS too_fast
            FROM (
                SELECT * FROM votes AS v
                WHERE v.kind = 'vote' AND v.source = 'app' AND list_contains($names, v.annotator)
                AND NOT EXISTS (
                    SELECT 1 FROM votes AS u WHERE u.annotator = v.annotator AND u.kind = 'undo'
                    AND u.undoes = v.vote_id)
                QUALIFY row_number() OVER (PARTITION BY v.annotator ORDER BY v.seq DESC) <= $each
            ) AS v JOIN assignments AS a USING (assignment_id)
            ORDER BY v.seq""",
            {"names": list(names), "each": each},
        )

    def early_undos(self, cursor: Any) -> set[tuple[str, str]]:
        """(annotator, vote_id) of undos that came before their vote."""
        cursor.execute(
            """SELECT u.annotator, u.undoes::VARCHAR FROM votes AS u WHERE u.kind = 'undo'
            AND NOT EXISTS (SELECT 1 FROM votes AS v WHERE v.vote_id = u.undoes)"""
        )
        return set(cursor.fetchall())

    def vote_counts(
        self, cursor: Any, names: Sequence[str], pause: timedelta
    ) -> list[tuple[str, datetime | None, datetime, int, int]]:
        """(annotator, first and last vote of the latest sitting, votes in it, votes in all).

        Without undone votes. A `pause` between two votes ends a sitting; one that began more than
        a day ago is not looked for, its first vote is None.
        """
        cursor.execute(
            """WITH live AS (
                SELECT annotator, created_at FROM votes AS v
                WHERE kind = 'vote' AND NOT simulated AND list_contains($names, annotator)
                AND NOT EXISTS (
                    SELECT 1 FROM votes AS u WHERE u.annotator = v.annotator AND u.kind = 'undo'
                    AND u.undoes = v.vote_id)),
            begun AS (
                SELECT annotator, max(created_at) AS since FROM (
                    SELECT annotator, created_at, created_at - lag(created_at) OVER (
                        PARTITION BY annotator ORDER BY created_at) AS gap
                    FROM live WHERE created_at >= $earliest)
                WHERE gap IS NULL OR gap >= to_seconds($pause) GROUP BY annotator)
            SELECT annotator, since, max(created_at),
                count(*) FILTER (created_at >= since), count(*)
            FROM live LEFT JOIN begun USING (annotator) GROUP BY annotator, since""",
            {
                "names": list(names),
                "earliest": utc_now() - timedelta(days=1),
                "pause": pause.total_seconds(),
            },
        )
        return list(cursor.fetchall())

    # -- assignments and votes ----------------------------------------------------------------

    def add_assignments(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert new rows, all in one statement."""
        insert_many(cursor, "assignments", rows)

    def update_assignments(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Write state and lease of assignments, all in one statement.

        Not as a join with the new values: of a hash join's blocks DuckDB 1.5 keeps the handles
        until some 30,000 have piled up, which was 1 kB for each vote.
        """
        ids = [row["assignment_id"] for row in rows]
        cases = " ".join("WHEN ? THEN ?" for _ in rows)
        states = [value for row in rows for value in (row["assignment_id"], row["state"])]
        untils = [value for row in rows for value in (row["assignment_id"], row["leased_until"])]
        cursor.execute(
            f"UPDATE assignments SET state = CASE assignment_id {cases} END,"
            f" leased_until = (CASE assignment_id {cases} END)::TIMESTAMP"
            f" WHERE assignment_id IN ({', '.join('?' for _ in ids)})",
            [*states, *untils, *ids],
        )

    def retire_pair(self, cursor: Any, pair_id: str) -> None:
        """A pair that nobody is to be given any more; its votes stay."""
        cursor.execute("UPDATE pairs SET retired = true WHERE pair_id = ?", [pair_id])

    def add_assignment(self, cursor: Any, row: Row) -> None:
        insert(cursor, "assignments", row)

    def assignment(self, cursor: Any, assignment_id: str) -> Row | None:
        rows = fetch(cursor, "SELECT * FROM assignments WHERE assignment_id = ?", [assignment_id])
        return rows[0] if rows else None

    def assignment_of_media(self, media: str) -> Row | None:
        return self.database.row(
            "SELECT * FROM assignments WHERE media_left = ? OR media_right = ?"
            " OR media_original = ?",
            [media, media, media],
        )

    def votes_by_id(self, cursor: Any, vote_ids: Sequence[str]) -> dict[str, Row]:
        """Rows of votes and undos by their UUIDs; those that there are."""
        marks = ", ".join("?::UUID" for _ in vote_ids)
        rows = fetch(cursor, f"SELECT * FROM votes WHERE vote_id IN ({marks})", vote_ids)
        found = {}
        for row in rows:
            row["vote_id"] = str(row["vote_id"])
            row["undoes"] = None if row["undoes"] is None else str(row["undoes"])
            found[row["vote_id"]] = decoded(row, VOTE_JSON)
        return found

    def add_votes(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Append rows whose UUIDs are new, all in one statement."""
        columns = {name: None for row in rows for name in row}
        whole = [dict.fromkeys(columns) | row for row in rows]
        insert_many(
            cursor,
            "votes",
            [row | {name: dumps(row.get(name)) for name in VOTE_JSON} for row in whole],
        )

    def add_vote(self, cursor: Any, row: Row) -> bool:
        """Append one row; False where its UUID is there already."""
        values = row | {name: dumps(row.get(name)) for name in VOTE_JSON}
        return insert(cursor, "votes", values, ignore=True)

    def is_undone(self, cursor: Any, vote_id: str, annotator: str) -> bool:
        cursor.execute(
            "SELECT 1 FROM votes WHERE kind = 'undo' AND undoes = ?::UUID AND annotator = ?",
            [vote_id, annotator],
        )
        return first_row(cursor) is not None

    def votes_of(self, annotator: str, limit: int = 500) -> list[Row]:
        """One annotator's current votes, newest first, with the side shown on the left."""
        rows = self.database.rows(
            """SELECT v.vote_id::VARCHAR AS vote_id, v.assignment_id, v.choice, v.strength,
                v.tags, v.comment, v.created_at, a.b_first
            FROM current_votes AS v LEFT JOIN assignments AS a USING (assignment_id)
            WHERE v.annotator = ? AND NOT v.simulated ORDER BY v.seq DESC LIMIT ?""",
            [annotator, limit],
        )
        return [decoded(row, VOTE_JSON) for row in rows]

    def pool_counts(self, votes_per_pair: int) -> Row:
        """open: pairs that still need votes; done: that have them; total."""
        row = self.database.row(
            """WITH load AS (
                SELECT pair_id, count(DISTINCT annotator) AS taken FROM assignments
                WHERE state = 'done' AND repeat_of IS NULL GROUP BY pair_id)
            SELECT count(*) FILTER (coalesce(taken, 0) < ? AND NOT retired) AS open,
                count(*) FILTER (coalesce(taken, 0) >= ?) AS done, count(*) AS total
            FROM pairs LEFT JOIN load USING (pair_id)
            WHERE coalesce(run_id, '') NOT IN ("""
            + DRY_RUNS
            + ")",
            [votes_per_pair, votes_per_pair],
        )
        assert row is not None
        return row

    def free_pairs(self, votes_per_pair: int) -> int:
        """Pairs that nobody has been given as often as they need: what the next can still get."""
        row = self.database.row(
            """WITH load AS (
                SELECT pair_id, count(DISTINCT annotator) AS taken FROM assignments
                WHERE state IN ('open', 'done') AND repeat_of IS NULL GROUP BY pair_id)
            SELECT count(*) AS free FROM pairs LEFT JOIN load USING (pair_id)
            WHERE NOT retired AND pool <> 'gold' AND coalesce(taken, 0) < ?""",
            [votes_per_pair],
        )
        assert row is not None
        return int(row["free"])

    # -- headphones -----------------------------------------------------------------------------

    def add_headphone_check(self, row: Row) -> None:
        values = row | {"details": dumps(row.get("details"))}
        self.database.write(lambda cursor: insert(cursor, "headphone_checks", values, ignore=True))

    def headphone_outcome(self, annotator: str) -> Row | None:
        """{outcome, created_at}: passed where it ever was, else the latest (failed, skipped)."""
        return self.database.row(
            "SELECT outcome, created_at FROM headphone_checks WHERE annotator = ?"
            " ORDER BY outcome = 'passed' DESC, created_at DESC LIMIT 1",
            [annotator],
        )

    def last_voted(self, annotator: str) -> datetime | None:
        """When this annotator last voted or undid, UTC."""
        row = self.database.row(
            "SELECT max(created_at) AS last FROM votes WHERE annotator = ? AND source = 'app'",
            [annotator],
        )
        return None if row is None else row["last"]

    # -- what the page shows of a pair ----------------------------------------------------------

    def shown_pair(self, pair_id: str) -> Row:
        """Both edits and the original of a pair: numbers, and JSON text to send on as it is."""
        row = self.database.row(
            """SELECT p.edit_a, p.edit_b, p.regions_a, p.regions_b, p.original_peaks,
                p.original_path, ea.audio_path AS path_a, eb.audio_path AS path_b,
                p.original_edl -> '$.beats' AS beats_original,
                p.original_edl -> '$.passage' AS passage,
                (p.original_edl ->> '$.duration_s')::DOUBLE AS duration_original,
                ea.edl -> '$.beats' AS beats_a, eb.edl -> '$.beats' AS beats_b,
                ea.edl -> '$.segments' AS segments_a, eb.edl -> '$.segments' AS segments_b,
                ea.duration_s AS duration_a, eb.duration_s AS duration_b,
                ea.peaks AS peaks_a, eb.peaks AS peaks_b
            FROM pairs AS p JOIN edits AS ea ON ea.edit_id = p.edit_a
            JOIN edits AS eb ON eb.edit_id = p.edit_b WHERE p.pair_id = ?""",
            [pair_id],
        )
        assert row is not None
        return row
