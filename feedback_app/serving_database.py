"""`python -m feedback_app database serve`: a workspace's database for several app processes.

This process alone opens the file (and brings its schema forward); apps on this machine, or behind
a tunnel, speak to it with Quack and a token. Quack 1.5 keeps the session of a client that died
open, with its transaction: every second it is tried here whether the turn of `shared_database` is
free, and where one transaction has held it for longer than STUCK_S all sessions are ended (what
they had not committed is rolled back; apps connect again by themselves). Where DuckDB has given the
database up, for a full disk mostly, the process ends, to be started again by what looks after it.
"""

from __future__ import annotations

import logging
import secrets
import signal
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb

from feedback_app import journal
from feedback_app.cursors import first_row
from feedback_app.database import bound_log, bounded, open_file
from feedback_app.errors import InvalidError, WorkspaceError
from feedback_app.quack import (
    SERVED,
    check_address,
    check_token,
    first_line,
    is_conflict,
    load_extensions,
)
from feedback_app.settings import load_settings
from feedback_app.workspace import Workspace

logger = logging.getLogger(__name__)
DEFAULT_PORT = 9494
LOOPBACK = ("127.0.0.1", "localhost")
NOTHING = (
    "CREATE MACRO memory.main.duckdb_tables() AS TABLE"
    " SELECT NULL::VARCHAR AS schema_name, NULL::VARCHAR AS sql WHERE false",
    "CREATE MACRO memory.main.duckdb_views() AS TABLE"
    " SELECT NULL::VARCHAR AS schema_name, NULL::VARCHAR AS view_name WHERE false",
)
STUCK_S = 20.0
LOOK_S = 1.0


def token_path(root: Path) -> Path:
    return root / "database.token"


def read_token(root: Path, setting: str) -> str:
    """The token of a workspace's database: the setting, else the file that `serve` made."""
    if setting:
        return check_token(setting)
    try:
        return check_token(token_path(root).read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(
            f"{token_path(root)} cannot be read, and the setting database_token is empty. Start "
            "`python -m feedback_app database serve` on this workspace, or copy its database.token."
        ) from error


def _token(root: Path, setting: str) -> str:
    path = token_path(root)
    if not setting and not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")
    return read_token(root, setting)


class DatabaseServer:
    """The file of a workspace, open and served. Close it to commit and let go."""

    def __init__(
        self, root: Path, host: str, port: int, token: str, *, memory_mb: int | None = None
    ) -> None:
        self.address = check_address(f"quack:{host}:{port}")
        if host not in LOOPBACK:
            raise InvalidError(
                f"the database is served on loopback only, not on {host}: Quack sends token and "
                "votes unencrypted. For other machines lay a tunnel (ssh -L), see docs/scaling.md."
            )
        workspace = Workspace(root)
        workspace.create()
        self._token = check_token(token)
        self._path, self._memory_mb = workspace.database, memory_mb
        open_file(self._path).close()  # refuses and migrates as for an app
        self._connection = self._open()
        self._held_since: float | None = None
        self._held_turn = -1

    def _open(self) -> Any:
        """The file, open and served.

        Attaching, a client asks for all tables and makes them on its side, and Quack 1.5 fails at a
        default that calls a function (nextval). It needs none of them: NOTHING answers that
        question in the database in which a session begins; then it goes over to the file (USE).
        """
        connection = duckdb.connect(":memory:")
        try:
            path = str(self._path).replace("'", "''")
            connection.execute(f"ATTACH '{path}' AS {SERVED}")
            for macro in NOTHING:
                connection.execute(macro)
            connection.execute(f"USE {SERVED}")
            connection.execute("CREATE TABLE IF NOT EXISTS turns (turn BIGINT NOT NULL)")
            connection.execute("INSERT INTO turns SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM turns)")
            connection.execute(journal.TABLE)
            # a turn that the journal does not know: whoever wrote to the file while it was not
            # served left no word there, and apps that have waited read everything afresh
            connection.execute("UPDATE turns SET turn = turn + 1")
            load_extensions(connection)
            bound_log(connection, self._path)
            bounded(connection, self._memory_mb)
            self._listen(connection)
        except duckdb.Error as error:
            connection.close()
            raise WorkspaceError(f"{self._path} cannot be served ({first_line(error)})") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _listen(self, connection: Any) -> None:
        try:
            connection.execute(f"CALL quack_serve('{self.address}', token='{self._token}')")
        except duckdb.Error as error:
            raise WorkspaceError(
                f"cannot serve {self.address} ({first_line(error)}). Choose another --port, "
                "or stop what uses it."
            ) from error

    def look(self, now: float) -> bool:
        """Notice a turn that nobody gives back; returns whether sessions had to be ended."""
        try:
            turn, held = self._turn()
        except (duckdb.FatalException, duckdb.IOException) as error:
            # it cannot be attached anew while sessions of this process still know it
            raise WorkspaceError(
                f"DuckDB gave the database up ({first_line(error)}). Nothing acknowledged is lost. "
                "Make room on the disk and start `database serve` again (systemd does)."
            ) from error
        if not held or turn != self._held_turn:
            self._held_since, self._held_turn = (now if held else None), turn
            return False
        if self._held_since is None or now - self._held_since < STUCK_S:
            self._held_since = now if self._held_since is None else self._held_since
            return False
        logger.warning("an app died in a transaction: all sessions are ended, apps connect again")
        self._connection.execute(f"CALL quack_stop('{self.address}')")
        self._listen(self._connection)
        self._held_since = None
        return True

    def _turn(self) -> tuple[int, bool]:
        """The turn that was committed last, and whether somebody has the next one."""
        cursor: Any = self._connection.cursor()
        with closing(cursor):
            cursor.execute(f"USE {SERVED}")
            turn = int(first_row(cursor.execute("SELECT turn FROM turns"))[0])
            try:
                cursor.execute("BEGIN")
                cursor.execute("UPDATE turns SET turn = turn")
            except duckdb.Error as error:
                if not is_conflict(error):
                    raise
                return turn, True
            finally:
                cursor.execute("ROLLBACK")
        return turn, False

    def close(self) -> None:
        with suppress(duckdb.Error):
            self._connection.execute(f"CALL quack_stop('{self.address}')")
        with suppress(duckdb.Error):
            self._connection.execute("USE memory")
            self._connection.execute(f"DETACH {SERVED}")  # writes the log into the file
        self._connection.close()


def serve_database(root: Path, *, host: str, port: int) -> int:
    """Serve until told to stop; returns the exit status."""
    settings = load_settings(Workspace(root).root)
    Workspace(root).create()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    token = _token(root, settings.database_token)
    server = DatabaseServer(root, host, port, token, memory_mb=settings.database_memory_mb)
    try:
        print(f"database at {server.address}", flush=True)
        while not stop.wait(LOOK_S):
            server.look(time.monotonic())
    except KeyboardInterrupt:
        logger.info("stopping")
    finally:
        server.close()
    return 0
