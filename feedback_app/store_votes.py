"""SQL of assignments and votes. Votes are only ever inserted; see `schema` for what undo means."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from feedback_app.database import Database, Row, fetch
from feedback_app.json_columns import decoded, dumps, insert

VOTE_JSON = ("tags", "listened", "client")


class VoteRows:
    """Assignments and votes."""

    database: Database

    def open_assignments(self, cursor: Any, annotator: str) -> list[Row]:
        """Assignments that the annotator holds, oldest first."""
        return fetch(
            cursor,
            "SELECT * FROM assignments WHERE annotator = ? AND state = 'open'"
            " ORDER BY created_at, assignment_id",
            [annotator],
        )

    def abandon_expired(self, cursor: Any, now: datetime) -> None:
        """Leases that ran out go back to the pool."""
        cursor.execute(
            "UPDATE assignments SET state = 'abandoned' WHERE state = 'open' AND leased_until < ?",
            [now],
        )

    def candidates(self, cursor: Any, annotator: str, votes_per_pair: int) -> list[Row]:
        """Pairs that need a vote and that this annotator never had: pair_id, taken, batch."""
        return fetch(
            cursor,
            """WITH load AS (
                SELECT pair_id, count(DISTINCT annotator) AS taken,
                    bool_or(annotator = ?) AS mine
                FROM assignments WHERE state IN ('open', 'done') GROUP BY pair_id)
            SELECT p.pair_id, coalesce(l.taken, 0) AS taken, coalesce(p.run_id, '') AS batch,
                p.created_at FROM pairs AS p LEFT JOIN load AS l USING (pair_id)
            WHERE NOT p.retired AND coalesce(l.taken, 0) < ? AND NOT coalesce(l.mine, false)
            ORDER BY p.pair_id""",
            [annotator, votes_per_pair],
        )

    def add_assignment(self, cursor: Any, row: Row) -> None:
        insert(cursor, "assignments", row)

    def set_assignment(
        self, cursor: Any, assignment_id: str, state: str, leased_until: datetime | None = None
    ) -> None:
        cursor.execute(
            "UPDATE assignments SET state = ?, leased_until = coalesce(?, leased_until)"
            " WHERE assignment_id = ?",
            [state, leased_until, assignment_id],
        )

    def assignment(self, cursor: Any, assignment_id: str) -> Row | None:
        rows = fetch(cursor, "SELECT * FROM assignments WHERE assignment_id = ?", [assignment_id])
        return rows[0] if rows else None

    def assignment_of_media(self, media: str) -> Row | None:
        return self.database.row(
            "SELECT * FROM assignments WHERE media_left = ? OR media_right = ?"
            " OR media_original = ?",
            [media, media, media],
        )

    def vote(self, cursor: Any, vote_id: str) -> Row | None:
        rows = fetch(cursor, "SELECT * FROM votes WHERE vote_id = ?::UUID", [vote_id])
        if not rows:
            return None
        row = rows[0] | {"vote_id": str(rows[0]["vote_id"])}
        row["undoes"] = None if row["undoes"] is None else str(row["undoes"])
        return decoded(row, VOTE_JSON)

    def add_vote(self, cursor: Any, row: Row) -> bool:
        """Append one row; False where its UUID is there already."""
        values = row | {name: dumps(row.get(name)) for name in VOTE_JSON}
        return insert(cursor, "votes", values, ignore=True)

    def is_undone(self, cursor: Any, vote_id: str, annotator: str) -> bool:
        cursor.execute(
            "SELECT 1 FROM votes WHERE kind = 'undo' AND undoes = ?::UUID AND annotator = ?",
            [vote_id, annotator],
        )
        return cursor.fetchone() is not None

    def done_counts(self, cursor: Any, annotator: str, day_start: datetime) -> tuple[int, int]:
        """(votes since day_start, votes in all) of one annotator."""
        cursor.execute(
            """SELECT count(*) FILTER (v.created_at >= ?), count(*) FROM votes AS v
            WHERE annotator = ? AND kind = 'vote' AND NOT simulated AND NOT EXISTS (
                SELECT 1 FROM votes AS u WHERE u.annotator = v.annotator AND u.kind = 'undo'
                AND u.undoes = v.vote_id)""",
            [day_start, annotator],
        )
        today, total = cursor.fetchone()
        return int(today), int(total)

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
                WHERE state = 'done' GROUP BY pair_id)
            SELECT count(*) FILTER (coalesce(taken, 0) < ? AND NOT retired) AS open,
                count(*) FILTER (coalesce(taken, 0) >= ?) AS done, count(*) AS total
            FROM pairs LEFT JOIN load USING (pair_id)""",
            [votes_per_pair, votes_per_pair],
        )
        assert row is not None
        return row

    def free_pairs(self, votes_per_pair: int) -> int:
        """Pairs that nobody has been given as often as they need: what the next can still get."""
        row = self.database.row(
            """WITH load AS (
                SELECT pair_id, count(DISTINCT annotator) AS taken FROM assignments
                WHERE state IN ('open', 'done') GROUP BY pair_id)
            SELECT count(*) AS free FROM pairs LEFT JOIN load USING (pair_id)
            WHERE NOT retired AND coalesce(taken, 0) < ?""",
            [votes_per_pair],
        )
        assert row is not None
        return int(row["free"])

    def vote_totals(self) -> Row:
        row = self.database.row(
            "SELECT count(*) AS votes_total, count(*) FILTER (NOT simulated) AS votes_human,"
            " count(*) FILTER (simulated) AS votes_simulated FROM current_votes"
        )
        assert row is not None
        return row

    def compared(self, include_simulated: bool) -> list[Row]:
        """Every current vote with the versions it compares: for leaderboards and win rates."""
        return self.database.rows(
            """SELECT v.choice, v.strength, v.simulated, v.annotator, v.created_at, v.pair_id,
                ea.policy AS policy_a, eb.policy AS policy_b, p.pool, p.song_id, a.b_first,
                v.listened ->> 'first_side' AS first_side
            FROM current_votes AS v JOIN pairs AS p USING (pair_id)
            JOIN edits AS ea ON ea.edit_id = p.edit_a JOIN edits AS eb ON eb.edit_id = p.edit_b
            LEFT JOIN assignments AS a USING (assignment_id)
            WHERE NOT v.simulated OR ? ORDER BY v.seq""",
            [include_simulated],
        )
