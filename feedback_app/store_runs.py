"""SQL of runs: what was started, where its folder is, how it ended."""

from __future__ import annotations

from typing import Any

from feedback_app.database import Database, Row, utc_now
from feedback_app.errors import NotFoundError
from feedback_app.json_columns import decoded, dumps, insert

RUN_JSON = ("argv", "settings")
ENDED = ("finished", "failed", "cancelled")
DRY_RUNS = "SELECT run_id FROM runs WHERE (settings -> 'chain' ->> 'dry_run') IS NOT NULL"


class RunRows:
    """Runs."""

    database: Database

    def add_run(self, cursor: Any, run_id: str, kind: str, folder: str, settings: Row) -> None:
        row = {
            "run_id": run_id,
            "kind": kind,
            "argv": dumps([]),
            "folder": folder,
            "state": "queued",
            "ingested": False,
            "created_at": utc_now(),
            "settings": dumps(settings),
        }
        insert(cursor, "runs", row)

    def update_run(self, cursor: Any, run_id: str, **values: Any) -> None:
        row = {n: dumps(v) if n in RUN_JSON else v for n, v in values.items()}
        if row.get("state") in ENDED:
            row["finished_at"] = utc_now()
        assignments = ", ".join(f"{name} = ?" for name in row)
        cursor.execute(f"UPDATE runs SET {assignments} WHERE run_id = ?", [*row.values(), run_id])

    def run(self, run_id: str) -> Row:
        row = self.database.row("SELECT * FROM runs WHERE run_id = ?", [run_id])
        if row is None:
            raise NotFoundError(f"there is no run {run_id!r}")
        return decoded(row, RUN_JSON)

    def runs(self, limit: int) -> list[Row]:
        """The newest runs, newest first."""
        rows = self.database.rows(
            "SELECT * FROM runs ORDER BY created_at DESC, run_id DESC LIMIT ?", [limit]
        )
        return [decoded(row, RUN_JSON) for row in rows]

    def open_runs(self) -> list[Row]:
        """Runs that still need looking after, oldest first."""
        rows = self.database.rows(
            "SELECT * FROM runs WHERE state IN ('queued', 'running') OR NOT ingested"
            " ORDER BY created_at, run_id"
        )
        return [decoded(row, RUN_JSON) for row in rows]

    def latest_run(self, kind: str) -> Row | None:
        """The newest run of a kind; those of dry runs do not count."""
        row = self.database.row(
            f"SELECT * FROM runs WHERE kind = ? AND run_id NOT IN ({DRY_RUNS})"
            " ORDER BY created_at DESC, run_id DESC LIMIT 1",
            [kind],
        )
        return None if row is None else decoded(row, RUN_JSON)
