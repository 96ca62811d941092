"""A database that several app processes share: `Database` over Quack.

Every process keeps its writer thread and group commit. That their writes do not cross is the work
of one row: each transaction begins by counting up `turns.turn`. Of two that try, DuckDB refuses
the second at once (a write-write conflict); it rolls back and tries again. So write transactions
of all processes come one after the other, each sees all that was committed before it, and nothing
that the writers decide (who is given which pair) can be decided twice. The number also tells
whether somebody else wrote since; what that was stands in the `journal`, so that what is kept in
memory beside the database follows it. Where the journal does not say, `others` counts up, and
everything is read again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from feedback_app import journal
from feedback_app.cursors import first_row
from feedback_app.database import Database, News
from feedback_app.errors import StorageError, WorkspaceError
from feedback_app.quack import Session, is_conflict
from feedback_app.schema import MIGRATIONS

TURN_WAIT_S = 60.0
"""Longer than `serving_database.STUCK_S`: a dead process's turn is taken from it before."""
PAUSES_S = (0.001, 0.015)
NEWS_KEPT = 20_000  # events; an app that only writes other things would collect them for ever


class SharedDatabase(Database):
    """The database of a workspace, served by `database serve`."""

    shared = True

    def __init__(self, path: Path, address: str, token: str, *, min_free_mb: int = 0) -> None:
        self.address, self._token = address, token
        self._turn = self._asked = -1
        self._told: list[News] = []
        self._news: list[News] = []
        self._random = random.Random()
        super().__init__(path, min_free_mb=min_free_mb)

    def _open(self) -> Any:
        session = Session(self.address, self._token)
        try:
            found = session.execute("SELECT coalesce(max(version), 0) FROM schema_version")
            version = int(first_row(found)[0])
            session.execute("SELECT turn FROM turns")
            session.execute("SELECT turn FROM journal LIMIT 0")
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
        self._asked = int(first_row(cursor)[0])
        self._told = []
        if self._asked != self._turn + 1:
            self._catch_up(cursor)
        self._foreign_before = self.foreign

    def _catch_up(self, cursor: Any) -> None:
        """Take in what others wrote since the last turn of this process."""
        found = None if self._turn < 0 else journal.read(cursor, self._turn, self._asked)
        if found is None or len(self._news) > NEWS_KEPT:
            self.others += 1
            self.foreign += 1
            self._news = []
            return
        events, elsewhere = found
        self._news += events
        self.foreign += elsewhere

    def tell(self, name: str, values: Sequence[Any]) -> None:
        # a copy: what a row is later in the same transaction is another event
        self._told.append((name, [dict(v) if isinstance(v, dict) else v for v in values]))

    def take_news(self) -> list[News]:
        news, self._news = self._news, []
        return news

    def _before_commit(self, cursor: Any) -> None:
        journal.write(cursor, self._asked, self._told, self.foreign != self._foreign_before)

    def _committed(self) -> None:
        self._turn = self._asked

    def _roll_back(self) -> None:
        self._news = []  # what they change is read afresh (`on_rollback`)
        cursor = self.cursor()
        try:
            cursor.execute("ROLLBACK")
        except (duckdb.Error, StorageError):
            cursor.forget()  # the next use begins a session of its own

    def between_commits(self, work: Any) -> Any:
        raise WorkspaceError(
            f"the database is served from {self.address}: its file is not this process's to touch. "
            "Stop `database serve` first."
        )
