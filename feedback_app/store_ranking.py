"""SQL of the order of waiting pairs: what is to be ranked, and the scores that a run found.

Only pairs of the pools `chosen` and `broad` are ranked. Those made at random and across versions
are given by chance alone: figures drawn from them must not depend on any reward model.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from feedback_app.database import Database, Row, utc_now
from feedback_app.json_columns import decoded

RANKED_POOLS: Final = ("chosen", "broad")
AT_ONCE: Final = 400  # rows of one statement
_WAITING = """FROM pairs AS p JOIN songs AS s USING (song_id)
    LEFT JOIN (
        SELECT pair_id, count(DISTINCT annotator) AS taken FROM assignments
        WHERE state = 'done' AND repeat_of IS NULL GROUP BY pair_id) AS t USING (pair_id)
    WHERE NOT p.retired AND list_contains(?, p.pool) AND coalesce(t.taken, 0) < ?
        AND s.status = 'ready' AND s.split = 'train'"""


class RankRows:
    """Scores of pairs that wait for votes."""

    database: Database

    def newest_unranked(self, votes_per_pair: int, reward_model: str) -> datetime | None:
        """When the newest waiting pair that this reward model has not ranked was made."""
        row = self.database.row(
            f"""SELECT max(p.created_at) AS newest {_WAITING} AND NOT EXISTS (
                SELECT 1 FROM pair_scores AS r
                WHERE r.pair_id = p.pair_id AND r.reward_model = ?)""",
            [list(RANKED_POOLS), votes_per_pair, reward_model],
        )
        assert row is not None
        newest: datetime | None = row["newest"]
        return newest

    def waiting_pairs(self, votes_per_pair: int) -> list[Row]:
        """Waiting pairs as `rlhf_core.rank_pairs` reads them, oldest first."""
        rows = self.database.rows(
            f"""SELECT p.pair_id, p.song_id, ea.start_beat, ea.end_beat,
                ea.actions AS actions_a, eb.actions AS actions_b
            FROM (SELECT p.* {_WAITING}) AS p JOIN edits AS ea ON ea.edit_id = p.edit_a
            JOIN edits AS eb ON eb.edit_id = p.edit_b ORDER BY p.created_at, p.pair_id""",
            [list(RANKED_POOLS), votes_per_pair],
        )
        return [_line(decoded(row, ("actions_a", "actions_b"))) for row in rows]

    def put_scores(self, cursor: Any, run: Row, rows: Sequence[Row]) -> int:
        """Take in a ranking's rows; the newest score of a pair replaces the one before."""
        found = {row["pair_id"]: (float(row["information"]), int(row["place"])) for row in rows}
        shared = (run["settings"]["reward_model"], run["run_id"], utc_now())
        values = [(pair_id, *score, *shared) for pair_id, score in found.items()]
        for first in range(0, len(values), AT_ONCE):
            some = values[first : first + AT_ONCE]
            cursor.execute(
                "INSERT OR REPLACE INTO pair_scores"
                " (pair_id, information, place, reward_model, run_id, created_at) VALUES "
                + ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(some)),
                [value for row in some for value in row],
            )
        return len(values)

    def reasons(self) -> list[Row]:
        """How often pairs were given for which reason: {reason, pool, given, voted}.

        reason: score, random, cross, gold, repeat; null on assignments of older versions.
        """
        return self.database.rows(
            "SELECT a.reason, p.pool, count(*) AS given,"
            " count(*) FILTER (a.state = 'done') AS voted"
            " FROM assignments AS a JOIN pairs AS p USING (pair_id) GROUP BY ALL ORDER BY ALL"
        )


def _line(row: Row) -> Row:
    return {
        "pair_id": row["pair_id"],
        "song_id": row["song_id"],
        "passage": {"start_beat": row["start_beat"], "end_beat": row["end_beat"]},
        "edit_a": {"actions": row["actions_a"]},
        "edit_b": {"actions": row["actions_b"]},
    }
