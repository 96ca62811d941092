"""SQL of annotators (people who sign in, importers' names, judges) and their sessions."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from feedback_app.cursors import first_row
from feedback_app.database import Database, Row, utc_now
from feedback_app.errors import ConflictError, NotFoundError, SignInError


def ensure_annotator(cursor: Any, name: str) -> None:
    """A row for a name that votes without signing in (an import, a judge)."""
    cursor.execute(
        "INSERT INTO annotators VALUES (?, 'annotator', NULL, ?, false, 1.0)"
        " ON CONFLICT DO NOTHING",
        [name, utc_now()],
    )


def _add_session(cursor: Any, token_hash: str, name: str, expires_at: datetime) -> None:
    now = utc_now()
    cursor.execute("DELETE FROM sessions WHERE expires_at < ?", [now])
    cursor.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", [token_hash, name, now, expires_at])


class AccountRows:
    """Annotators and sessions."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def annotator(self, name: str) -> Row | None:
        return self.database.row("SELECT * FROM annotators WHERE name = ?", [name])

    def has_researcher(self) -> bool:
        return (
            self.database.row(
                "SELECT 1 FROM annotators WHERE role = 'researcher' AND NOT disabled LIMIT 1"
            )
            is not None
        )

    def add_annotator(self, name: str, role: str, password: str) -> None:
        """A new account. Raises ConflictError when the name is taken by one that can sign in."""

        def work(cursor: Any) -> None:
            cursor.execute("SELECT password FROM annotators WHERE name = ?", [name])
            found = first_row(cursor)
            if found is not None and found[0] is not None:
                raise ConflictError(f"there is an account {name!r} already; choose another name")
            if found is not None:
                cursor.execute(
                    "UPDATE annotators SET role = ?, password = ?, disabled = false WHERE name = ?",
                    [role, password, name],
                )
                return
            cursor.execute(
                "INSERT INTO annotators VALUES (?, ?, ?, ?, false, 1.0)",
                [name, role, password, utc_now()],
            )

        self.database.write(work)

    def update_annotator(self, name: str, column: str, value: Any) -> None:
        """Change password, disabled or weight; a new password or a disabling ends all sessions."""
        if column not in ("password", "disabled", "weight"):
            raise ValueError(column)

        def work(cursor: Any) -> None:
            cursor.execute("SELECT 1 FROM annotators WHERE name = ?", [name])
            if first_row(cursor) is None:
                raise NotFoundError(f"there is no account {name!r}")
            cursor.execute(f"UPDATE annotators SET {column} = ? WHERE name = ?", [value, name])
            if column != "weight":
                cursor.execute("DELETE FROM sessions WHERE name = ?", [name])

        self.database.write(work)

    def secret(self, name: str) -> str:
        """A secret of this database, made when it is first asked for; it never leaves."""
        known = self.database.row("SELECT value FROM secrets WHERE name = ?", [name])
        if known is not None:
            return str(known["value"])
        fresh = secrets.token_hex(32)

        def work(cursor: Any) -> str:
            cursor.execute(
                "INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", [name, fresh]
            )
            cursor.execute("SELECT value FROM secrets WHERE name = ?", [name])
            return str(first_row(cursor)[0])

        return self.database.write(work)

    def add_session(self, token_hash: str, name: str, expires_at: datetime) -> None:
        self.database.write(lambda cursor: _add_session(cursor, token_hash, name, expires_at))

    def begin_account(
        self, name: str, change: tuple[str, str], token_hash: str, expires_at: datetime
    ) -> None:
        """Change the hash of a one-time password (old, new) and add the session, both or neither.

        Raises SignInError where the old one is not the account's any more: of two who use it at
        the same time one gets in.
        """

        def work(cursor: Any) -> None:
            cursor.execute(
                "SELECT 1 FROM annotators WHERE name = ? AND password = ? AND NOT disabled",
                [name, change[0]],
            )
            if first_row(cursor) is None:
                raise SignInError("this one-time password has just been used")
            cursor.execute("UPDATE annotators SET password = ? WHERE name = ?", [change[1], name])
            _add_session(cursor, token_hash, name, expires_at)

        self.database.write(work)

    def session(self, token_hash: str) -> Row | None:
        """name, role, expires_at of a session whose account may sign in."""
        return self.database.row(
            "SELECT s.name, a.role, s.expires_at FROM sessions AS s JOIN annotators AS a"
            " ON a.name = s.name WHERE s.token_hash = ? AND NOT a.disabled AND s.expires_at > ?",
            [token_hash, utc_now()],
        )

    def end_session(self, token_hash: str) -> None:
        self.database.execute("DELETE FROM sessions WHERE token_hash = ?", [token_hash])
