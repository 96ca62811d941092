"""SQL of what leaves the database as files: snapshots for runs, records for exports."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from feedback_app.cursors import first_row
from feedback_app.database import Database, Row, storage_error
from feedback_app.exchange.pseudonyms import pseudonyms
from feedback_app.exchange.query import Query
from feedback_app.exchange.record import NAMES, PATHS
from feedback_app.facts import Facts
from feedback_app.json_columns import decoded

# Per pair: seconds of the passage's beats, rounded to microseconds so that they survive being
# rebuilt; and whether the song's beats are others now than those that the edits count. Votes that
# were imported may be about a song that was analysed otherwise elsewhere.
CHANGED = """(p.beats_changed OR (p.run_id IS NULL AND coalesce(abs(
    (p.original_edl -> 'passage' ->> 'end_s')::DOUBLE
    - (s.beat_times -> ea.end_beat)::DOUBLE) > 0.01, false)))"""
PASSAGES = f"""
    SELECT p.pair_id, p.song_id, p.pool, p.edit_a, p.edit_b, p.original_path, ea.start_beat,
        ea.end_beat,
        CASE WHEN json_array_length(p.original_edl -> 'beats') > 0 THEN list_append(
            list_transform(from_json(p.original_edl -> 'beats', '[["DOUBLE"]]'), lambda beat:
                round((p.original_edl -> 'passage' ->> 'start_s')::DOUBLE + beat[2], 6)),
            round((p.original_edl -> 'passage' ->> 'end_s')::DOUBLE, 6)) END AS beat_times,
        from_json(coalesce(p.original_edl -> 'bar_phase',
            CASE WHEN NOT {CHANGED} THEN
                to_json(from_json(s.bar_phase, '["TINYINT"]')[ea.start_beat + 1 : ea.end_beat])
            END), '["TINYINT"]') AS bar_phase,
        {CHANGED} AS beats_changed
    FROM pairs AS p JOIN songs AS s USING (song_id) JOIN edits AS ea ON ea.edit_id = p.edit_a
"""
# Of votes that are known to be current: their rows, and the passages of their pairs.
FIRST = "(SELECT * FROM votes WHERE seq IN (SELECT unnest($first)))"
FIRST_PASSAGES = f"{PASSAGES} WHERE p.pair_id IN (SELECT pair_id FROM {FIRST})"
SEGMENTS = (
    '\'[{"start_beat": "INTEGER", "end_beat": "INTEGER", "gain_start": "DOUBLE", '
    '"gain_end": "DOUBLE", "reverse": "BOOLEAN"}]\''
)
# One row per current vote, in terms of the pair's edits. Shared by snapshots and exports; what the
# columns mean is told in `exchange.record`.
RECORD = f"""
    SELECT v.vote_id::VARCHAR AS vote_id, v.pair_id, p.song_id, s.title AS song_title,
        s.synthetic AS song_synthetic, s.split, v.annotator, n.weight AS annotator_weight,
        v.simulated, v.source, v.choice, v.strength, from_json(v.tags, '["VARCHAR"]') AS tags,
        coalesce(v.comment, '') AS comment, from_json(v.flags, '["VARCHAR"]') AS flags,
        CASE WHEN v.repeat THEN 'repeat' ELSE p.pool END AS pool,
        p.start_beat, p.end_beat, p.beat_times, p.bar_phase,
        ea.edit_id AS edit_a, eb.edit_id AS edit_b, ea.policy AS policy_a, eb.policy AS policy_b,
        ea.preset AS preset_a, eb.preset AS preset_b,
        ea.temperature AS temperature_a, eb.temperature AS temperature_b,
        ea.seed AS seed_a, eb.seed AS seed_b,
        ea.duration_s AS duration_a, eb.duration_s AS duration_b,
        from_json(ea.actions, '["TINYINT"]') AS actions_a,
        from_json(eb.actions, '["TINYINT"]') AS actions_b,
        from_json(ea.edl -> 'segments', {SEGMENTS}) AS segments_a,
        from_json(eb.edl -> 'segments', {SEGMENTS}) AS segments_b,
        coalesce(a.b_first, false) AS b_first,
        CASE v.listened ->> 'first_side'
            WHEN 'left' THEN CASE WHEN a.b_first THEN 'b' ELSE 'a' END
            WHEN 'right' THEN CASE WHEN a.b_first THEN 'a' ELSE 'b' END END AS first_played,
        v.listened::VARCHAR AS listened, v.response_ms, v.client::VARCHAR AS client,
        v.created_at, v.seq, p.beats_changed,
        ea.audio_path AS path_a, eb.audio_path AS path_b, p.original_path AS path_original
    FROM {{votes}} AS v JOIN passages AS p USING (pair_id) JOIN songs AS s USING (song_id)
    JOIN edits AS ea ON ea.edit_id = p.edit_a JOIN edits AS eb ON eb.edit_id = p.edit_b
    LEFT JOIN assignments AS a USING (assignment_id)
    JOIN annotators AS n ON n.name = v.annotator
    WHERE n.weight > 0
"""
SNAPSHOT = """vote_id, pair_id, song_id, annotator, simulated, choice, strength, pool, start_beat,
    end_beat, actions_a, actions_b, policy_a, policy_b, b_first, first_played, created_at, split,
    annotator_weight"""
# The same votes with the columns that filters name, narrow and quick, from `facts`.
CHOICE = """
    SELECT f.seq, f.pair, f.simulated, f.annotator, f.policy_a, f.policy_b, f.created_at, s.split,
        CASE WHEN f.repeat THEN 'repeat' ELSE f.pool END AS pool
    FROM facts AS f JOIN songs AS s ON s.song_id = f.song
    JOIN annotators AS n ON n.name = f.annotator
    WHERE f.is_current AND n.weight > 0"""
# Pairs that at least two voters answered, by the share of the most frequent answer.
AGREED = """
    SELECT {pair} FROM (
        SELECT v.{pair}, v.choice, count(*) AS n FROM {votes} AS v
        JOIN annotators AS a ON a.name = v.annotator
        WHERE v.choice <> {skip} AND NOT coalesce(v.repeat, false) AND a.weight > 0
            AND list_contains($voters, v.simulated)
        GROUP BY ALL)
    GROUP BY {pair} HAVING sum(n) >= 2 AND max(n) / sum(n) >= $agreement - 1e-9"""
AGREED_RECORDS = "pair_id IN (" + AGREED.format(
    pair="pair_id", votes="current_votes", skip="'skip'"
) + ")"  # fmt: skip
AGREED_FACTS = "pair IN (" + AGREED.format(
    pair="pair", votes="(SELECT * FROM facts WHERE is_current)", skip="5"
) + ")"  # fmt: skip
# Policies that count as rounds: trained ones, not those of dry runs.
TRAINED = """SELECT created_at FROM policies WHERE parent IS NOT NULL
    AND coalesce(run_id, '') NOT IN
        (SELECT run_id FROM runs WHERE settings -> 'chain' ->> 'dry_run' IS NOT NULL)"""
# The round of a vote: 1 until the first trained policy was there, 2 until the second, …
ROUND = f"""(1 + (SELECT count(*) FROM ({TRAINED}) AS trained
    WHERE trained.created_at <= record.created_at))"""
CALLED = "coalesce($called[list_position($people, annotator)], annotator) AS annotator"
VOTERS = {"human": [False], "simulated": [True], "both": [False, True]}


def _record(votes: str = "current_votes") -> str:
    return RECORD.replace("{votes}", votes)


class ExportRows:
    """Copies of the current votes."""

    database: Database

    if TYPE_CHECKING:

        @cached_property
        def facts(self) -> Facts: ...

        def secret(self, name: str) -> str: ...

    def records(self, include_simulated: bool) -> list[Row]:
        """Every exported vote, in the order in which the votes came in."""
        rows = self.database.rows(
            f"WITH passages AS MATERIALIZED ({PASSAGES}) SELECT {', '.join(NAMES)}"
            f" FROM ({_record()}) WHERE NOT simulated OR ? ORDER BY seq",
            [include_simulated],
        )
        return [decoded(row, ("listened", "client")) for row in rows]

    def copy_snapshot(self, path: Path, include_simulated: bool) -> int:
        """Write a snapshot's Parquet; returns the number of votes.

        Votes on pairs whose song got other beats since are left out: their actions count beats
        that are not there any more. So are imported votes that came without actions.
        """
        where = "(NOT simulated OR $simulated) AND NOT beats_changed AND len(actions_a) > 0"
        return self._copy(path, SNAPSHOT, where, {"simulated": include_simulated})

    def copy_record(self, path: Path, query: Query, limit: int | None = None) -> int:
        """Write the full record of the votes that a query asks for; returns their number.

        With `limit`, only the first so many. `PATHS` are in it besides, for the audio.
        """
        columns = [*NAMES, *PATHS]
        named: dict[str, Any] = {}
        if query.pseudonyms:
            called = self._pseudonyms()
            named = {"people": list(called), "called": list(called.values())}
            columns = [CALLED if name == "annotator" else name for name in columns]
        if limit is None:
            where, values = _filters(query, AGREED_RECORDS)
            return self._copy(path, ", ".join(columns), where, values | named)
        named["first"] = self._chosen(query, f"seq FROM record ORDER BY seq LIMIT {int(limit)}")
        return self._copy(path, ", ".join(columns), "true", named, FIRST, FIRST_PASSAGES)

    def _chosen(self, query: Query, wanted: str) -> list[Any]:
        """The first column of a SELECT from the votes (`record`) that a query asks for."""
        where, values = _filters(query, AGREED_FACTS)
        rows = self.facts.rows(
            f"WITH record AS (SELECT * FROM ({CHOICE}) AS record WHERE {where}) SELECT {wanted}",
            values,
        )
        return [next(iter(row.values())) for row in rows]

    def _pseudonyms(self) -> dict[str, str]:
        """By name, of everybody who may be a person: programs that vote keep their names."""
        rows = self.database.rows(
            """SELECT name, password IS NOT NULL AS has_account FROM annotators
            WHERE password IS NOT NULL
                OR name IN (SELECT annotator FROM votes WHERE NOT simulated)"""
        )
        secret = self.secret("pseudonyms")
        return pseudonyms(secret, ((row["name"], row["has_account"]) for row in rows))

    def count_record(self, query: Query) -> int:
        """How many votes a query asks for."""
        return int(self._chosen(query, "count(*) FROM record")[0])

    def export_choices(self) -> Row:
        """{versions, annotators, rounds}: what there is among the current votes."""
        return self.facts.rows(
            f"""SELECT
                (SELECT coalesce(list(DISTINCT policy ORDER BY policy), []) FROM (
                    SELECT policy_a AS policy FROM facts WHERE is_current
                    UNION SELECT policy_b FROM facts WHERE is_current)) AS versions,
                (SELECT coalesce(list(DISTINCT annotator ORDER BY annotator), [])
                    FROM facts WHERE is_current) AS annotators,
                (SELECT 1 + count(*) FROM ({TRAINED})) AS rounds"""
        )[0]

    def _copy(
        self,
        path: Path,
        columns: str,
        where: str,
        values: dict[str, Any],
        votes: str = "current_votes",
        passages: str = PASSAGES,
    ) -> int:
        cursor: Any = self.database.cursor()
        target = str(path).replace("'", "''")  # COPY takes no bound file name
        try:
            cursor.execute(
                f"COPY (WITH passages AS MATERIALIZED ({passages}) SELECT {columns}"
                f" FROM ({_record(votes)}) AS record WHERE {where} ORDER BY seq)"
                f" TO '{target}' (FORMAT parquet)",
                values,
            )
        except duckdb.IOException as error:  # a full disk, or no right to write there
            raise storage_error(path, error) from error
        return int(first_row(cursor)[0])


def _filters(query: Query, agreed: str) -> tuple[str, dict[str, Any]]:
    """The condition of a query on columns of votes, and its values."""
    parts = ["list_contains($voters, simulated)"]
    values: dict[str, Any] = {"voters": VOTERS[query.voters]}
    for name, column in (("annotators", "annotator"), ("pools", "pool"), ("splits", "split")):
        if wanted := getattr(query, name):
            parts.append(f"list_contains(${name}, {column})")
            values[name] = list(wanted)
    if query.versions:
        parts.append("(list_contains($versions, policy_a) OR list_contains($versions, policy_b))")
        values["versions"] = list(query.versions)
    if query.rounds:
        parts.append(f"list_contains($rounds, {ROUND})")
        values["rounds"] = list(query.rounds)
    if query.agreement is not None:
        parts.append(agreed)
        values["agreement"] = query.agreement
    return " AND ".join(parts), values
