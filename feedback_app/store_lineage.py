"""SQL of what hangs together: versions with the runs that made them, and dry runs as a whole.

A deleted version keeps its row with the status `deleted`, so that its name is never given again
and lineages stay whole; no list shows it. Everything that a dry run made goes with it, rows too:
its runs carry its name in `settings.chain.dry_run`, its pairs and versions name those runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feedback_app.cursors import first_row
from feedback_app.database import Database, Row, fetch
from feedback_app.errors import NotFoundError
from feedback_app.json_columns import decoded

TABLES = {"policy": "policies", "reward model": "reward_models"}
RUN_OF = "(settings -> 'chain' ->> 'dry_run')"


class LineageRows:
    """Versions of both kinds, and dry runs."""

    database: Database

    def versions_with_runs(self, kind: str) -> list[Row]:
        """Versions, oldest first, each with the settings of its run (`run_settings`, or None)."""
        rows = self.database.rows(
            f"SELECT v.*, r.settings AS run_settings FROM {TABLES[kind]} AS v"
            " LEFT JOIN runs AS r USING (run_id) WHERE v.status <> 'deleted'"
            " ORDER BY v.created_at, v.version"
        )
        return [decoded(row, ("metrics", "run_settings")) for row in rows]

    def kind_of_version(self, version: str) -> str:
        """`policy` or `reward model`. Raises NotFoundError for a name that no version has."""
        for kind, table in TABLES.items():
            found = self.database.row(f"SELECT status FROM {table} WHERE version = ?", [version])
            if found is not None and found["status"] == "deleted":
                raise NotFoundError(f"{version} was deleted")
            if found is not None:
                return kind
        raise NotFoundError(f"there is no version {version!r}")

    def set_status(self, version: str, status: str) -> None:
        table = TABLES[self.kind_of_version(version)]
        self.database.execute(f"UPDATE {table} SET status = ? WHERE version = ?", [status, version])

    def children(self, version: str) -> list[str]:
        """Versions that were made from this one, as parent or as reward."""
        rows = self.database.rows(
            "SELECT version FROM policies WHERE status <> 'deleted' AND (parent = $1"
            " OR reward_model = $1) ORDER BY version",
            [version],
        )
        return [row["version"] for row in rows]

    def pairs_of_version(self, version: str) -> Row:
        """voted: pairs with an edit of this version and a vote; waiting: that may be given."""
        row = self.database.row(
            """SELECT count(*) FILTER (EXISTS (SELECT 1 FROM votes AS v
                    WHERE v.pair_id = p.pair_id)) AS voted,
                count(*) FILTER (NOT p.retired) AS waiting
            FROM pairs AS p JOIN edits AS a ON a.edit_id = p.edit_a
            JOIN edits AS b ON b.edit_id = p.edit_b WHERE a.policy = $1 OR b.policy = $1""",
            [version],
        )
        assert row is not None
        return row

    def pairs_given(self, version: str) -> Row:
        """given: pairs with an edit of this version that a person was given or may be given."""
        row = self.database.row(
            """SELECT count(*) AS given FROM pairs AS p JOIN edits AS a ON a.edit_id = p.edit_a
            JOIN edits AS b ON b.edit_id = p.edit_b
            WHERE (a.policy = $1 OR b.policy = $1) AND (NOT p.retired OR EXISTS (
                SELECT 1 FROM assignments AS g WHERE g.pair_id = p.pair_id))""",
            [version],
        )
        assert row is not None
        return row

    def runs_naming(self, kind: str, version: str) -> list[Row]:
        """Runs of a kind whose settings name a version, on either side."""
        rows = self.database.rows(
            "SELECT * FROM runs WHERE kind = ? AND ((settings ->> 'policy') = ?"
            " OR (settings ->> 'versus') = ?)",
            [kind, version, version],
        )
        return [decoded(row, ("argv", "settings")) for row in rows]

    def latest_of_settings(self, kind: str, **settings: str) -> Row | None:
        """The newest finished run of a kind whose settings have these values."""
        conditions = "".join(f" AND (settings ->> '{name}') = ?" for name in settings)
        row = self.database.row(
            f"SELECT * FROM runs WHERE kind = ? AND state = 'finished'{conditions}"
            " ORDER BY created_at DESC LIMIT 1",
            [kind, *settings.values()],
        )
        return None if row is None else decoded(row, ("argv", "settings"))

    # -- dry runs -----------------------------------------------------------------------------

    def dry_run_names(self) -> list[str]:
        """Names of dry runs, oldest first."""
        rows = self.database.rows(
            f"SELECT {RUN_OF} AS name, min(created_at) AS began FROM runs"
            f" WHERE {RUN_OF} IS NOT NULL GROUP BY name ORDER BY began, name"
        )
        return [row["name"] for row in rows]

    def runs_of_dry_run(self, name: str) -> list[Row]:
        """Its runs, oldest first. Raises NotFoundError where there are none."""
        rows = self.database.rows(
            f"SELECT * FROM runs WHERE {RUN_OF} = ? ORDER BY created_at, run_id", [name]
        )
        if not rows:
            raise NotFoundError(f"there is no dry run {name!r}")
        return [decoded(row, ("argv", "settings")) for row in rows]

    def versions_of_runs(self, run_ids: list[str]) -> dict[str, list[Row]]:
        """{"policy": rows, "reward model": rows} that these runs made."""
        return {
            kind: [
                decoded(row, ("metrics",))
                for row in self.database.rows(
                    f"SELECT * FROM {table} WHERE list_contains(?, run_id)"
                    " ORDER BY created_at, version",
                    [run_ids],
                )
            ]
            for kind, table in TABLES.items()
        }

    def keep_votes_of_dry_run(self, snapshot: Path, name: str) -> int:
        """Leave in a snapshot's file nothing but this dry run's simulated votes; their number."""
        source, kept = (str(p).replace("'", "''") for p in (snapshot, snapshot.with_suffix(".dry")))
        cursor: Any = self.database.cursor()  # COPY takes no bound file name
        cursor.execute(
            f"COPY (SELECT * FROM read_parquet('{source}') WHERE simulated AND pair_id IN ("
            f"SELECT pair_id FROM pairs WHERE run_id IN (SELECT run_id FROM runs WHERE {RUN_OF} = ?"
            f"))) TO '{kept}' (FORMAT parquet)",
            [name],
        )
        rows = int(first_row(cursor)[0])
        snapshot.with_suffix(".dry").replace(snapshot)
        return rows

    def snapshots_used(self, but: list[str]) -> set[str]:
        """Hashes of snapshots that versions and runs name, other than these runs and theirs."""
        rows = self.database.rows(
            """SELECT snapshot FROM policies WHERE NOT list_contains($1, coalesce(run_id, ''))
            UNION SELECT snapshot FROM reward_models
                WHERE NOT list_contains($1, coalesce(run_id, ''))
            UNION SELECT settings ->> 'snapshot' AS snapshot FROM runs
                WHERE NOT list_contains($1, run_id)""",
            [but],
        )
        return {row["snapshot"] for row in rows if row["snapshot"]}

    def delete_runs_and_all(self, run_ids: list[str]) -> Row:
        """Remove these runs with their pairs, edits, simulated votes and versions, at once.

        Returns how many {runs, pairs, votes, versions}.
        """

        def work(cursor: Any) -> Row:
            pairs = [
                row["pair_id"]
                for row in fetch(
                    cursor, "SELECT pair_id FROM pairs WHERE list_contains(?, run_id)", [run_ids]
                )
            ]
            votes = _delete(cursor, "votes WHERE simulated AND list_contains(?, pair_id)", pairs)
            _delete(
                cursor,
                "edits WHERE edit_id IN (SELECT unnest([edit_a, edit_b]) FROM pairs"
                " WHERE list_contains(?, pair_id))",
                pairs,
            )
            _delete(cursor, "pairs WHERE list_contains(?, pair_id)", pairs)
            versions = sum(
                _delete(cursor, f"{table} WHERE list_contains(?, run_id)", run_ids)
                for table in TABLES.values()
            )
            _delete(cursor, "runs WHERE list_contains(?, run_id)", run_ids)
            cursor.execute(
                "DELETE FROM annotators WHERE starts_with(name, 'judge:') AND password IS NULL"
                " AND name NOT IN (SELECT annotator FROM votes)"
            )
            return {
                "runs": len(run_ids),
                "pairs": len(pairs),
                "votes": votes,
                "versions": versions,
            }

        return self.database.write(work)


def _delete(cursor: Any, what: str, values: list[str]) -> int:
    cursor.execute(f"DELETE FROM {what}", [values])
    return int(first_row(cursor)[0])
