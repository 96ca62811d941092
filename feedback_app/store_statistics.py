"""SQL of the figures about votes: counts by version, by person and by pair, over `facts`.

`weights` is {annotator: weight}; a vote counts as much as its annotator's weight, and people who
are not in it or weigh 0 are left out. So the effect of another weight is the same query again.
Simulated votes and people's votes are never in one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from feedback_app.cursors import first_row
from feedback_app.database import Database, Row, utc_now
from feedback_app.facts import Facts
from feedback_app.json_columns import decoded, insert

SITTING_GAP_S = 600  # a longer pause between two votes ends a sitting
# Votes that compare edits: gold pairs and hidden repeats ask about the listener instead.
ABOUT_EDITS = "is_current AND NOT gold AND NOT repeat AND choice < 5"
BETWEEN = f"""{ABOUT_EDITS} AND policy_a <> policy_b
    AND (list_contains($versions, policy_a) OR list_contains($versions, policy_b))"""
WEIGHED = """WITH w AS (SELECT unnest($names) AS annotator, unnest($weights) AS weight),
    v AS MATERIALIZED (SELECT f.*, w.weight FROM facts AS f JOIN w USING (annotator)
        WHERE w.weight > 0 AND f.simulated = $simulated AND {which})"""
COUNTS = """sum(weight) FILTER (choice = 1) AS won_a, sum(weight) FILTER (choice = 2) AS won_b,
    sum(weight) FILTER (choice IN (3, 4)) AS ties, sum(weight * weight) AS squares"""
ANSWER = "CASE choice WHEN 1 THEN 0 WHEN 2 THEN 2 ELSE 1 END"


class StatisticsRows:
    """Counts for Results and People."""

    database: Database

    @cached_property
    def facts(self) -> Facts:
        return Facts(self.database)

    def weights(self) -> dict[str, float]:
        """Everybody's weight."""
        rows = self.database.rows("SELECT name, weight FROM annotators")
        return {row["name"]: row["weight"] for row in rows}

    def comparisons(
        self, weights: Mapping[str, float], by: Sequence[str], *, simulated: bool = False
    ) -> dict[str, Any]:
        """Columns policy_a, policy_b, those of `by`, won_a, won_b, ties, squares."""
        known = {"song", "annotator", "longer_s", "louder_db"}
        if unknown := set(by) - known:
            raise ValueError(f"unknown columns {unknown}")
        names = ", ".join(("policy_a", "policy_b", *by))
        found = self.facts.columns(
            f"{WEIGHED.format(which=ABOUT_EDITS)} SELECT {names}, {COUNTS} FROM v"
            f" GROUP BY {names} ORDER BY {names}",
            _weighed(weights, simulated),
        )
        return found | {name: _filled(found[name]) for name in ("won_a", "won_b", "ties")}

    def pairs_won(
        self, versions: Sequence[str], *, simulated: bool = False
    ) -> dict[tuple[str, str], int]:
        """By (winner, loser), one of them among `versions`: pairs of edits that most votes, each
        as its annotator weighs, gave to the winner."""
        found = self.facts.rows(
            f"""{WEIGHED.format(which=BETWEEN)},
            p AS (SELECT policy_a, policy_b, coalesce(sum(weight) FILTER (choice = 1), 0)
                    - coalesce(sum(weight) FILTER (choice = 2), 0) AS lead
                FROM v GROUP BY pair, policy_a, policy_b)
            SELECT if(lead > 0, policy_a, policy_b) AS winner,
                if(lead > 0, policy_b, policy_a) AS loser, count(*) AS pairs
            FROM p WHERE lead <> 0 GROUP BY ALL""",
            _weighed(self.weights(), simulated) | {"versions": list(versions)},
        )
        return {(row["winner"], row["loser"]): int(row["pairs"]) for row in found}

    def people_counts(self) -> dict[str, Row]:
        """What each person's own votes say about them, whatever they weigh, by name."""
        rows = self.facts.rows(f"""
            WITH sittings AS (
                SELECT annotator, count(gap) AS timed, sum(gap) AS sitting_s FROM (
                    SELECT annotator, epoch(created_at) - lag(epoch(created_at)) OVER (
                        PARTITION BY annotator ORDER BY created_at, seq) AS gap
                    FROM facts WHERE in_app AND is_current AND NOT simulated)
                WHERE gap <= {SITTING_GAP_S} GROUP BY annotator),
            again AS (
                SELECT r.annotator, count(*) AS repeats, count(*) FILTER (
                    least(r.choice, 3) = least(f.choice, 3)) AS repeats_same
                FROM facts AS r JOIN facts AS f USING (pair, annotator)
                WHERE r.repeat AND r.is_current AND NOT r.simulated AND r.choice < 5
                AND NOT f.repeat AND f.is_current AND NOT f.simulated AND f.choice < 5
                GROUP BY r.annotator)
            SELECT f.annotator, count(*) AS votes, count(*) FILTER (choice < 5) AS answers,
                count(*) FILTER (choice = 5) AS skips, count(*) FILTER (choice < 3) AS decided,
                count(*) FILTER (is_left) AS lefts, count(is_left) AS sided,
                count(*) FILTER (is_first) AS firsts, count(is_first) AS played,
                count(*) FILTER (gold AND choice < 5) AS gold,
                count(*) FILTER (gold AND choice = broken) AS gold_failed,
                count(*) FILTER (too_fast) AS too_fast, count(*) FILTER (one_sided) AS one_sided,
                median(response_ms) FILTER (in_app) AS median_ms,
                coalesce(any_value(timed), 0) AS timed,
                coalesce(any_value(sitting_s), 0) AS sitting_s,
                coalesce(any_value(repeats), 0) AS repeats,
                coalesce(any_value(repeats_same), 0) AS repeats_same
            FROM facts AS f LEFT JOIN sittings USING (annotator) LEFT JOIN again USING (annotator)
            WHERE is_current AND NOT simulated GROUP BY f.annotator""")
        return {row["annotator"]: row for row in rows}

    def weighted_votes(self, weights: Mapping[str, float]) -> float:
        """How many votes there are to learn from, each counted as its annotator weighs."""
        found = self.facts.rows(
            f"{WEIGHED.format(which='is_current AND choice < 5')} SELECT sum(weight) AS n FROM v",
            _weighed(weights, False),
        )
        return float(found[0]["n"] or 0)

    def answer_patterns(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Columns a, neither, b, items: how many pairs of edits got how many of each answer."""
        return self.facts.columns(
            f"""{WEIGHED.format(which=ABOUT_EDITS)}
            SELECT a, neither, b, count(*) AS items FROM (
                SELECT count(*) FILTER (choice = 1) AS a, count(*) FILTER (choice = 2) AS b,
                    count(*) FILTER (choice IN (3, 4)) AS neither FROM v GROUP BY pair)
            WHERE a + neither + b > 1 GROUP BY a, neither, b ORDER BY a, neither, b""",
            _weighed(weights, False),
        )

    def answers_in_common(self, weights: Mapping[str, float]) -> list[Row]:
        """first, second, answer_first, answer_second, n: every two people who judged one pair.

        Answers are 0 a, 1 neither, 2 b; first < second.
        """
        return self.facts.rows(
            f"""{WEIGHED.format(which=ABOUT_EDITS)},
            h AS MATERIALIZED (SELECT pair, annotator, {ANSWER} AS answer FROM v)
            SELECT x.annotator AS first, y.annotator AS second, x.answer AS answer_first,
                y.answer AS answer_second, count(*) AS n
            FROM h AS x JOIN h AS y USING (pair) WHERE x.annotator < y.annotator
            GROUP BY ALL ORDER BY ALL""",
            _weighed(weights, False),
        )

    def sampled_edits(self, versions: Sequence[str], each: int) -> list[Row]:
        """version, actions, beats of at most `each` edits of each version, by chance but fixed."""
        rows = self.database.rows(
            """SELECT policy AS version, actions, edl -> '$.beats' AS beats FROM edits
            WHERE edit_id IN (
                SELECT edit_id FROM edits WHERE list_contains(?, policy)
                QUALIFY row_number() OVER (
                    PARTITION BY policy ORDER BY hash(edit_id), edit_id) <= ?)
            ORDER BY policy, edit_id""",
            [list(versions), each],
        )
        return [decoded(row, ("actions", "beats")) for row in rows]

    def headphone_outcomes(self) -> dict[str, str]:
        """passed where it ever was, else the latest outcome, by name."""
        rows = self.database.rows(
            """SELECT annotator, CASE WHEN bool_or(outcome = 'passed') THEN 'passed'
                ELSE arg_max(outcome, created_at) END AS outcome
            FROM headphone_checks GROUP BY annotator"""
        )
        return {row["annotator"]: row["outcome"] for row in rows}

    # -- tags and comments ------------------------------------------------------------------------

    def search_votes(
        self, text: str, tag: str | None, annotator: str | None, limit: int
    ) -> list[Row]:
        """People's votes with a comment or tags, newest first, that hold a text in either."""
        rows = self.facts.rows(
            """SELECT v.vote_id::VARCHAR AS vote_id, v.pair_id, s.title, v.annotator, v.choice,
                v.strength, v.tags, v.comment, v.created_at,
                f.policy_a, f.policy_b
            FROM votes AS v JOIN facts AS f USING (seq) JOIN songs AS s ON s.song_id = f.song
            WHERE f.is_current AND NOT f.simulated
            AND (v.comment <> '' OR json_array_length(v.tags) > 0)
            AND ($text = '' OR contains(lower(v.comment), lower($text))
                OR contains(lower(array_to_string(from_json(v.tags, '["VARCHAR"]'), chr(10))),
                    lower($text)))
            AND ($tag IS NULL OR list_contains(from_json(v.tags, '["VARCHAR"]'), $tag))
            AND ($annotator IS NULL OR v.annotator = $annotator)
            ORDER BY v.created_at DESC, v.seq DESC LIMIT $limit""",
            {"text": text, "tag": tag, "annotator": annotator, "limit": limit},
        )
        return [decoded(row, ("tags",)) for row in rows]

    def tag_counts(self) -> list[Row]:
        """tag, votes: how often each tag stands on people's votes, most used first."""
        return self.facts.rows(
            """SELECT tag, count(*) AS votes FROM (
                SELECT unnest(from_json(v.tags, '["VARCHAR"]')) AS tag
                FROM votes AS v JOIN facts AS f USING (seq)
                WHERE f.is_current AND NOT f.simulated AND json_array_length(v.tags) > 0)
            GROUP BY tag ORDER BY votes DESC, tag"""
        )

    # -- weights ----------------------------------------------------------------------------------

    def change_weight(
        self, change_id: str, name: str, weight: float, reason: str | None, by: str | None
    ) -> float:
        """Write a person's weight, what it was and who changed it; returns what it was."""

        def work(cursor: Any) -> float:
            cursor.execute("SELECT weight FROM annotators WHERE name = ?", [name])
            before = float(first_row(cursor)[0])
            cursor.execute("UPDATE annotators SET weight = ? WHERE name = ?", [weight, name])
            row = {"change_id": change_id, "annotator": name, "before": before, "after": weight,
                   "reason": reason, "created_at": utc_now(), "changed_by": by}  # fmt: skip
            insert(cursor, "weight_changes", row)
            return before

        return self.database.write(work)

    def take_back_weight(self, by: str | None) -> Row | None:
        """Undo the newest change that stands: {annotator, before, after}; None where there is none.

        `before` is what the person weighs again.
        """

        def work(cursor: Any) -> Row | None:
            cursor.execute(
                "SELECT change_id, annotator, before, after FROM weight_changes"
                " WHERE undone_at IS NULL ORDER BY created_at DESC, change_id DESC LIMIT 1"
            )
            found = first_row(cursor)
            if found is None:
                return None
            change_id, name, before, after = found
            cursor.execute("UPDATE annotators SET weight = ? WHERE name = ?", [before, name])
            cursor.execute(
                "UPDATE weight_changes SET undone_at = ?, undone_by = ? WHERE change_id = ?",
                [utc_now(), by, change_id],
            )
            return {"annotator": name, "before": before, "after": after}

        return self.database.write(work)

    def weight_changes(self, limit: int = 50) -> list[Row]:
        """Changes of weights, newest first, those taken back among them."""
        return self.database.rows(
            "SELECT annotator, before, after, reason, created_at, changed_by, undone_at, undone_by"
            " FROM weight_changes ORDER BY created_at DESC, change_id DESC LIMIT ?",
            [limit],
        )

    # -- finding what to listen to ----------------------------------------------------------------

    def find_pairs(self, text: str, version: str | None, limit: int) -> list[Row]:
        """Pairs whose song, id, versions or pool hold a text, with people's votes, newest first."""
        return self.facts.rows(
            """WITH found AS MATERIALIZED (
                SELECT p.pair_id, s.title, p.pool, ea.policy AS policy_a, eb.policy AS policy_b,
                    p.created_at, p.retired
                FROM pairs AS p JOIN songs AS s USING (song_id)
                JOIN edits AS ea ON ea.edit_id = p.edit_a
                JOIN edits AS eb ON eb.edit_id = p.edit_b
                WHERE ($text = '' OR contains(lower(concat_ws(' ', s.title, p.pair_id, ea.policy,
                    eb.policy, p.pool, ea.preset, eb.preset)), lower($text)))
                AND ($version IS NULL OR $version IN (ea.policy, eb.policy))
                ORDER BY p.created_at DESC, p.pair_id LIMIT $limit),
            votes AS (SELECT pair, count(*) AS votes FROM facts
                WHERE is_current AND NOT simulated AND NOT repeat
                AND pair IN (SELECT hash(pair_id) FROM found) GROUP BY pair)
            SELECT found.*, coalesce(votes, 0) AS votes
            FROM found LEFT JOIN votes ON votes.pair = hash(found.pair_id)
            ORDER BY created_at DESC, pair_id""",
            {"text": text, "version": version, "limit": limit},
        )

    def accounts(self) -> list[Row]:
        """Everybody with the numbers of their votes; password hashes stay inside."""
        return self.facts.rows(
            """SELECT a.name, a.role, a.disabled, a.weight, a.created_at,
                a.password IS NOT NULL AS can_sign_in,
                count(f.seq) FILTER (NOT f.simulated) AS votes,
                count(f.seq) FILTER (f.simulated) AS simulated, max(f.created_at) AS last_vote
            FROM annotators AS a LEFT JOIN facts AS f ON f.annotator = a.name AND f.is_current
            GROUP BY ALL ORDER BY a.name"""
        )

    def vote_totals(self) -> Row:
        """votes_total, votes_human, votes_simulated: current votes, repeats and gold among them."""
        return self.facts.rows(
            """SELECT count(*) AS votes_total, count(*) FILTER (NOT simulated) AS votes_human,
                count(*) FILTER (simulated) AS votes_simulated FROM facts WHERE is_current"""
        )[0]


def _weighed(weights: Mapping[str, float], simulated: bool) -> Any:
    return {
        "names": list(weights),
        "weights": [float(value) for value in weights.values()],
        "simulated": simulated,
    }


def _filled(column: Any) -> Any:
    """Sums over nothing are NULL in SQL, which numpy gets as masked: 0 here."""
    return column.filled(0.0) if hasattr(column, "filled") else column
