"""A database that several app processes share: `Database` over Quack.

Every process keeps its writer thread and group commit. That their writes do not cross is the work
of one row: each transaction begins by counting up `turns.turn`. Of two that try, DuckDB refuses
the second at once (a write-write conflict); it rolls back and tries again. So write transactions
of all processes come one after the other, each sees all that was committed before it, and nothing
that the writers decide (who is given which pair) can be decided twice. The number also tells
whether somebody else wrote since: `others` counts that, and what is kept in memory beside the
database is then read again.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import duckdb

from feedback_app.database import Database
from feedback_app.errors import StorageError, WorkspaceError
from feedback_app.quack import Session, is_conflict
from feedback_app.schema import MIGRATIONS

TURN_WAIT_S = 60.0
"""Longer than `serving_database.STUCK_S`: a dead process's turn is taken from it before."""
PAUSES_S = (0.001, 0.015)


class SharedDatabase(Database):
    """The database of a workspace, served by `database serve`."""

    shared = True

    def __init__(self, path: Path, address: str, token: str) -> None:
        self.address, self._token = address, token
        self._turn = -1
        self._random = random.Random()
        super().__init__(path)

    def _open(self) -> Any:
        session = Session(self.address, self._token)
        try:
            found = session.execute("SELECT coalesce(max(version), 0) FROM schema_version")
            version = int(found.fetchone()[0])
            session.execute("SELECT turn FROM turns")
        except duckdb.Error as error:
            session.close()
            raise WorkspaceError(
                f"{self.address} serves no workspace; start `python -m feedback_app database serve`"
            ) from error
        if version != len(MIGRATIONS):
            session.close()
            raise WorkspaceError(
                f"the database at {self.address} has schema {version}, this app {len(MIGRATIONS)}. "
                "Run one version of the app on all machines; the newest brings the schema forward."
            )
        return session

    def _check_disk(self) -> None:
        """The disk is the server's affair."""

    def _begin(self, cursor: Any) -> None:
        """Begin a transaction that holds the turn. Raises StorageError where none is to be had."""
        end = time.monotonic() + TURN_WAIT_S
        while True:
            cursor.execute("BEGIN")
            try:
                cursor.execute("UPDATE turns SET turn = turn + 1 RETURNING turn")
                break
            except duckdb.Error as error:
                cursor.execute("ROLLBACK")
                if not is_conflict(error):
                    raise
                if time.monotonic() > end:
                    raise StorageError(
                        f"the database at {self.address} was busy with somebody else's write for "
                        f"{TURN_WAIT_S:.0f} s. Nothing was stored; try again."
                    ) from error
            time.sleep(self._random.uniform(*PAUSES_S))
        turn = int(cursor.fetchone()[0])
        if turn != self._turn + 1:
            self.others += 1
            self.foreign += 1
        self._asked = turn

    def _committed(self) -> None:
        self._turn = self._asked

    def _roll_back(self) -> None:
        cursor = self.cursor()
        try:
            cursor.execute("ROLLBACK")
        except (duckdb.Error, StorageError):
            cursor.forget()  # the next use begins a session of its own

    def close(self) -> None:
        """Commit what waits, and end the sessions of all threads on the server."""
        super().close()
        for cursor in list(self._cursors):
            cursor.close()

    def between_commits(self, work: Any) -> Any:
        raise WorkspaceError(
            f"the database is served from {self.address}: its file is not this process's to copy. "
            "Stop `database serve` and back up the workspace, or copy the file there."
        )
