"""Databases of older schema versions, with data in them, come forward whole."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import duckdb
import pytest

from feedback_app.errors import WorkspaceError
from feedback_app.schema import MIGRATIONS, migrate


def filled(path: Path, version: int) -> list[tuple[object, ...]]:
    """A database of an old version with an assignment and votes; returns the votes."""
    connection = duckdb.connect(str(path))
    connection.execute(
        "CREATE TABLE schema_version (version INTEGER PRIMARY KEY,"
        " applied_at TIMESTAMP NOT NULL DEFAULT current_timestamp::TIMESTAMP)"
    )
    for number, statements in enumerate(MIGRATIONS[:version], start=1):
        for statement in statements:
            connection.execute(statement)
        connection.execute("INSERT INTO schema_version (version) VALUES (?)", [number])
    for number in range(30):
        connection.execute(
            "INSERT INTO assignments (assignment_id, pair_id, annotator, b_first, first_side,"
            " media_left, media_right, media_original, state, leased_until, created_at)"
            " VALUES (?, 'p', 'ada', false, 'left', ?, ?, ?, 'done', now(), now())",
            [uuid4().hex for _ in range(4)],
        )
        connection.execute(
            "INSERT INTO votes (vote_id, assignment_id, pair_id, annotator, kind, choice,"
            " simulated, source, created_at) VALUES (?, ?, ?, 'ada', 'vote', 'a', false, 'app',"
            " now()::TIMESTAMP)",
            [str(uuid4()), uuid4().hex, f"pair{number}"],
        )
    votes = connection.execute("SELECT vote_id, pair_id, choice FROM votes ORDER BY seq").fetchall()
    connection.close()
    return votes


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_votes_of_an_older_version_come_forward(tmp_path: Path, version: int) -> None:
    votes = filled(tmp_path / "old.duckdb", version)
    connection = duckdb.connect(str(tmp_path / "old.duckdb"))
    assert migrate(connection) == len(MIGRATIONS)
    columns = "SELECT vote_id, pair_id, choice FROM"
    assert connection.execute(f"{columns} votes ORDER BY seq").fetchall() == votes
    assert sorted(connection.execute(f"{columns} current_votes").fetchall()) == sorted(votes)
    connection.close()
    reopened = duckdb.connect(str(tmp_path / "old.duckdb"))
    assert migrate(reopened) == len(MIGRATIONS)
    reopened.close()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    connection = duckdb.connect(str(tmp_path / "new.duckdb"))
    migrate(connection)
    connection.execute("INSERT INTO schema_version (version) VALUES (999)")
    with pytest.raises(WorkspaceError, match="newer app"):
        migrate(connection)
    connection.close()


def test_a_migration_that_fails_changes_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = duckdb.connect(str(tmp_path / "old.duckdb"))
    migrate(connection)
    broken = (("CREATE TABLE extra (x INTEGER)", "CREATE TABLE songs (x INTEGER)"),)
    monkeypatch.setattr("feedback_app.schema.MIGRATIONS", MIGRATIONS + broken)
    with pytest.raises(WorkspaceError, match="could not be brought"):
        migrate(connection)
    tables = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
    assert "songs" in tables and "extra" not in tables
    connection.close()
