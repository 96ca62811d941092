"""Speaking to a DuckDB of another process: Quack, DuckDB's own client-server protocol.

`Session` looks like a DuckDB cursor and runs every statement on the server, in a session of its
own there, so that BEGIN, COMMIT and temporary tables mean what they mean in a file. Statements go
as text through `quack_query_by_name`: the attached catalogue of Quack 1.5 knows neither UPDATE nor
ON CONFLICT, and does not forward transactions (duckdb-quack issue 173). That function takes no
parameters, so values are written into the text as literals (`bound`).

A session that its client drops without a word (SIGKILL) stays open on the server with whatever it
has not committed; `serving_database` ends such sessions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import duckdb

from feedback_app.errors import InvalidError, StorageError, WorkspaceError

SERVED = "served"  # what the file is called in the server
EXTENSIONS = ("httpfs", "quack")
ADDRESS = re.compile(r"quack:(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
INCOMING = 500  # rows of a registered table per INSERT
# quoted text, quoted names and comments are passed over; what is left may be a place for a value
PARTS = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|(\?)|\$([A-Za-z_]\w*)", re.DOTALL
)
# Quack hands every fault on as an InvalidInputException; its words are all that tells them apart.
UNKNOWN = "Invalid connection id"
LOST = (
    "Failed to send message", UNKNOWN, "Could not connect", "Connection refused",
    "Failed to read response", "has been invalidated",
)  # fmt: skip
CONFLICTS = ("Conflict on ", "write-write conflict", "TransactionContext Error")


def check_address(address: str) -> str:
    """The address, where it is one: quack:HOST:PORT."""
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= 65535:
        raise InvalidError(
            f"database {address!r} is not an address; write quack:HOST:PORT, "
            "or leave it out for the file in the workspace"
        )
    return address


def check_token(token: str) -> str:
    """The token, where it can be one."""
    if not TOKEN.fullmatch(token):
        raise InvalidError(
            "the database's token must be 16 to 200 letters, digits, - or _. `python -m "
            "feedback_app database serve` makes one; copy its database.token"
        )
    return token


def load_extensions(connection: Any) -> None:
    """Make Quack known to a connection, from Python packages where they are installed."""
    try:
        with suppress(ImportError):
            from duckdb_extensions import import_extension  # type: ignore[import-untyped]

            for name in EXTENSIONS:
                import_extension(name, con=connection)
        for name in EXTENSIONS:
            connection.execute(f"LOAD {name}")
    except duckdb.Error as error:
        raise WorkspaceError(
            f"DuckDB's Quack extension cannot be loaded ({first_line(error)}). Install it: "
            f"pip install duckdb-extensions=={duckdb.__version__} "
            f"duckdb-extension-httpfs=={duckdb.__version__} "
            f"duckdb-extension-quack=={duckdb.__version__}"
        ) from error


def first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].removeprefix("Invalid Input Error: ") if str(error) else ""


def is_conflict(error: BaseException) -> bool:
    """Whether another transaction holds or has changed the same row."""
    return isinstance(error, duckdb.Error) and any(words in str(error) for words in CONFLICTS)


def literal(value: Any) -> str:
    """A value as DuckDB reads it in SQL text: nothing in it can end the literal."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"'{value}'::DOUBLE"
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidError("a text with a zero character cannot be stored")
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(' ')}'"
    if isinstance(value, UUID):
        return f"'{value}'::UUID"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    raise TypeError(f"a {type(value).__name__} cannot be sent to the database")


def bound(sql: str, values: Sequence[Any] | Mapping[str, Any]) -> str:
    """The statement with its `?` or `$name` replaced by literals."""
    named = values if isinstance(values, Mapping) else None
    waiting = iter(()) if isinstance(values, Mapping) else iter(values)

    def put(match: re.Match[str]) -> str:
        if match[1]:
            # a negative number after a minus would begin a comment
            return f"({literal(next(waiting))})" if named is None else match[0]
        if match[2] and named is not None:
            return f"({literal(named[match[2]])})"
        return match[0]

    try:
        text = PARTS.sub(put, sql)
    except (StopIteration, KeyError) as error:
        raise ValueError(f"too few values for {sql!r}") from error
    if next(waiting, None) is not None:
        raise ValueError(f"too many values for {sql!r}")
    return text


class Session:
    """A cursor on the server's database. Not for two threads at once."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self._token = check_address(address), check_token(token)
        # One DuckDB per session: two that share one would share the attached session as well.
        self._local = duckdb.connect(":memory:", config={"threads": 1})
        load_extensions(self._local)
        self.is_lost, self._in_transaction = True, False
        self._connect()

    def _connect(self) -> None:
        try:
            with suppress(duckdb.Error):
                self._local.execute("DETACH DATABASE IF EXISTS remote")
            self._local.execute(f"ATTACH '{self.address}' AS remote (TOKEN '{self._token}')")
            self._answer = self._local.execute(_sent("SELECT version()"))
            (version,) = self._answer.fetchall()[0]
            self._local.execute(_sent(f"USE {SERVED}"))
        except duckdb.Error as error:
            raise self._refused(error) from error
        if str(version).removeprefix("v") != duckdb.__version__:
            raise WorkspaceError(
                f"{self.address} runs DuckDB {version}, this app {duckdb.__version__}. "
                "Quack wants the same on both: install one version on all machines."
            )
        self.is_lost = False

    def _refused(self, error: duckdb.Error) -> WorkspaceError:
        if "Authentication failed" in str(error):
            return WorkspaceError(
                f"{self.address} refuses the token. Copy database.token from where `database "
                "serve` runs into the workspace, or set FEEDBACK_APP_DATABASE_TOKEN."
            )
        return WorkspaceError(
            f"{self.address} does not answer as a database ({first_line(error)}). "
            "Is `python -m feedback_app database serve` running there, of the same version?"
        )

    def execute(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Session:
        """Run one statement on the server. Raises StorageError when the server is gone."""
        if self.is_lost and sql == "ROLLBACK":
            self._in_transaction = False
            return self  # went with the session
        if self.is_lost and self._in_transaction:
            # what follows must not be written by itself, without what went before
            raise StorageError(f"the database at {self.address} was lost. Nothing was stored.")
        if self.is_lost:
            self._connect()
        sent = _sent(bound(sql, values))
        try:
            self._answer = self._local.execute(sent)
        except duckdb.Error as error:
            if UNKNOWN in str(error) and not self._in_transaction:
                self._connect()  # the server has begun anew, and has not run this
                self._answer = self._local.execute(sent)
                return self._after(sql)
            if isinstance(error, duckdb.IOException) or any(w in str(error) for w in LOST):
                self.is_lost = True
                raise StorageError(
                    f"the database at {self.address} is out of reach ({first_line(error)}). "
                    "What was not acknowledged may not be stored; send it again: the app goes on "
                    "by itself once the database answers."
                ) from error
            raise
        return self._after(sql)

    def _after(self, sql: str) -> Session:
        if sql in ("BEGIN", "COMMIT", "ROLLBACK"):
            self._in_transaction = sql == "BEGIN"
        return self

    def forget(self) -> None:
        """Begin a new session with the next statement."""
        self.is_lost, self._in_transaction = True, False

    @property
    def description(self) -> Any:
        return self._answer.description

    def fetchone(self) -> Any:
        return self._answer.fetchone()

    def fetchall(self) -> Any:
        return self._answer.fetchall()

    def fetchnumpy(self) -> Any:
        return self._answer.fetchnumpy()

    def cursor(self) -> Session:
        """Another session on the same server."""
        return Session(self.address, self._token)

    def register(self, name: str, table: Any) -> None:
        """Send an Arrow table as a temporary table of the session."""
        names = ", ".join(f'"{column}"' for column in table.column_names)
        rows = [tuple(row.values()) for row in table.to_pylist()]
        for start in range(0, len(rows), INCOMING):
            some = ", ".join(
                "(" + ", ".join(map(literal, row)) + ")" for row in rows[start : start + INCOMING]
            )
            values = f"SELECT * FROM (VALUES {some}) AS incoming ({names})"
            make = f"INSERT INTO {name}" if start else f"CREATE TEMP TABLE {name} AS"
            self.execute(f"{make} {values}")

    def unregister(self, name: str) -> None:
        self.execute(f"DROP TABLE IF EXISTS {name}")

    def close(self) -> None:
        """End the session on the server too: what it has not committed is rolled back."""
        with suppress(duckdb.Error):
            self._local.execute("DETACH DATABASE IF EXISTS remote")
        self._local.close()


def _sent(statement: str) -> str:
    text = statement.replace("'", "''")
    return f"FROM quack_query_by_name('remote', '{text}')"
