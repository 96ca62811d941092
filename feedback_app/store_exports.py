"""SQL of what leaves the database as files: snapshots for runs, records for exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feedback_app.database import Database, Row

# One row per current vote, in terms of the pair's edits. Shared by snapshots and exports.
RECORD = """
    SELECT v.vote_id::VARCHAR AS vote_id, v.pair_id, p.song_id, s.title AS song_title, v.annotator,
        v.simulated, v.source, v.choice, v.strength, v.tags, v.comment,
        CASE WHEN v.repeat THEN 'repeat' ELSE p.pool END AS pool,
        ea.start_beat, ea.end_beat,
        from_json(ea.actions, '["TINYINT"]') AS actions_a,
        from_json(eb.actions, '["TINYINT"]') AS actions_b,
        ea.edit_id AS edit_a, eb.edit_id AS edit_b, ea.policy AS policy_a, eb.policy AS policy_b,
        ea.preset AS preset_a, eb.preset AS preset_b,
        ea.temperature AS temperature_a, eb.temperature AS temperature_b,
        ea.duration_s AS duration_a, eb.duration_s AS duration_b,
        coalesce(a.b_first, false) AS b_first,
        CASE v.listened ->> 'first_side'
            WHEN 'left' THEN CASE WHEN a.b_first THEN 'b' ELSE 'a' END
            WHEN 'right' THEN CASE WHEN a.b_first THEN 'a' ELSE 'b' END END AS first_played,
        v.listened, v.response_ms, v.client, v.created_at, s.split, v.seq,
        p.beats_changed
    FROM current_votes AS v JOIN pairs AS p USING (pair_id) JOIN songs AS s USING (song_id)
    JOIN edits AS ea ON ea.edit_id = p.edit_a JOIN edits AS eb ON eb.edit_id = p.edit_b
    LEFT JOIN assignments AS a USING (assignment_id)
    JOIN annotators AS n ON n.name = v.annotator
    WHERE n.weight > 0
"""
SNAPSHOT = """vote_id, pair_id, song_id, annotator, simulated, choice, strength, pool, start_beat,
    end_beat, actions_a, actions_b, policy_a, policy_b, b_first, first_played, created_at, split"""
EXPORT = """* EXCLUDE (seq, beats_changed)"""


class ExportRows:
    """Copies of the current votes."""

    database: Database

    def records(self, include_simulated: bool) -> list[Row]:
        """Every exported vote, in the order in which the votes came in."""
        return self.database.rows(
            f"SELECT {EXPORT} FROM ({RECORD}) WHERE NOT simulated OR ? ORDER BY seq",
            [include_simulated],
        )

    def copy_snapshot(self, path: Path, include_simulated: bool) -> int:
        """Write a snapshot's Parquet; returns the number of votes.

        Votes on pairs whose song got other beats since are left out: their actions count beats
        that are not there any more.
        """
        return self._copy(SNAPSHOT, path, "FORMAT parquet", include_simulated, "beats_changed")

    def copy_records(self, path: Path, form: str, include_simulated: bool) -> int:
        """Write the full record as parquet, csv or jsonl; returns the number of votes."""
        options = {"parquet": "FORMAT parquet", "csv": "FORMAT csv, HEADER", "jsonl": "FORMAT json"}
        return self._copy(EXPORT, path, options[form], include_simulated)

    def _copy(
        self, columns: str, path: Path, options: str, simulated: bool, but: str = "false"
    ) -> int:
        cursor: Any = self.database.cursor()
        target = str(path).replace("'", "''")  # COPY takes no bound file name
        cursor.execute(
            f"COPY (SELECT {columns} FROM ({RECORD}) WHERE (NOT simulated OR {simulated})"
            f" AND NOT {but} ORDER BY seq) TO '{target}' ({options})"
        )
        return int(cursor.fetchone()[0])
