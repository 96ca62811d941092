"""A kill right after a schema was made or changed; the copy that is kept of the older one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_migrations import filled

from feedback_app.database import Database
from feedback_app.errors import WorkspaceError
from feedback_app.schema import MIGRATIONS

OPEN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from feedback_app.database import Database
database = Database(Path(sys.argv[1]))
database.execute("INSERT INTO sessions VALUES ('t', 'ada', now()::TIMESTAMP, now()::TIMESTAMP)")
os.kill(os.getpid(), signal.SIGKILL)
"""


def open_and_die(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", OPEN_AND_DIE, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_fresh_database_opens_after_a_kill_at_once(tmp_path: Path) -> None:
    open_and_die(tmp_path / "x.duckdb")
    database = Database(tmp_path / "x.duckdb")
    assert [row["name"] for row in database.rows("SELECT name FROM sessions")] == ["ada"]
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x.duckdb"]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_an_older_one_is_kept_aside_and_opens_after_a_kill(tmp_path: Path, version: int) -> None:
    votes = filled(tmp_path / "x.duckdb", version)
    open_and_die(tmp_path / "x.duckdb")
    database = Database(tmp_path / "x.duckdb")
    found = database.rows("SELECT vote_id, pair_id, choice FROM votes ORDER BY seq")
    assert [tuple(row.values()) for row in found] == votes
    database.close()
    (kept,) = (tmp_path / "backups").iterdir()
    assert kept.name.startswith(f"x-schema{version}-")
    old = duckdb.connect(str(kept), read_only=True)
    assert old.execute("SELECT max(version) FROM schema_version").fetchone() == (version,)
    columns = "SELECT vote_id, pair_id, choice FROM votes ORDER BY seq"
    assert old.execute(columns).fetchall() == votes
    old.close()


def test_a_change_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.duckdb"
    filled(path, len(MIGRATIONS))
    before = path.read_bytes()
    broken = (*MIGRATIONS, ("CREATE TABLE extra (x INTEGER)", "CREATE TABLE songs (x INTEGER)"))
    monkeypatch.setattr("feedback_app.schema.MIGRATIONS", broken)
    with pytest.raises(WorkspaceError, match="could not be brought"):
        Database(path)
    assert path.read_bytes() == before
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".")]
