"""Nothing lost: kills after an acknowledgement, two apps on a workspace, faults in a group."""

from __future__ import annotations

import http.cookiejar
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, add_pairs, add_song

from feedback_app import database as database_module
from feedback_app.database import Database
from feedback_app.errors import InvalidError, WorkspaceError
from feedback_app.schema import MIGRATIONS, migrate
from feedback_app.serve import first_accounts
from feedback_app.services import Services, open_services
from feedback_app.settings import settings_from
from feedback_app.votes import VoteForm

ENVIRONMENT = dict(os.environ) | {
    "FEEDBACK_APP_AUTO_PREPARE": "false",
    "FEEDBACK_APP_AUTO_GENERATE": "false",
    "FEEDBACK_APP_REQUIRED_REGION_SHARE": "0",
}


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "feedback_app", *arguments, "--workspace", str(root)],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False,
    )  # fmt: skip


class App:
    """The real server in a process of its own."""

    def __init__(self, root: Path) -> None:
        argv = [sys.executable, "-m", "feedback_app", "serve", "--workspace", str(root)]
        self.process = subprocess.Popen(
            [*argv, "--port", "0"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        assert self.process.stdout is not None
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if match := re.match(r"listening on (http://\S+)", line):
                self.url = match[1]
                return
        raise AssertionError("".join(self.said))

    def browser(self, name: str) -> urllib.request.OpenerDirector:
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        opener = urllib.request.build_opener(jar)
        form = urllib.parse.urlencode({"name": name, "password": PASSWORD, "next": ""})
        opener.open(f"{self.url}/login", form.encode(), timeout=30).close()
        return opener

    def ask(
        self, opener: urllib.request.OpenerDirector, path: str, body: dict | None = None
    ) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data)
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def end(self, sign: signal.Signals) -> int:
        self.process.send_signal(sign)
        return self.process.wait(timeout=30)


def workspace_with_pairs(root: Path, count: int) -> None:
    services = open_services(root)
    services.operations.add_user("ann", "annotator", PASSWORD)
    services.operations.add_user("res", "researcher", PASSWORD)
    add_song(services), add_pairs(services, count)
    services.close()


def test_a_vote_survives_sigkill_right_after_its_acknowledgement(tmp_path: Path) -> None:
    workspace_with_pairs(tmp_path, 5)
    app = App(tmp_path)
    browser = app.browser("ann")
    shown = app.ask(browser, "/api/next")
    cast = []
    for _ in range(3):
        vote = {
            "vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": "left",
        }  # fmt: skip
        answer = app.ask(browser, "/api/vote", vote)
        assert answer["ok"]
        cast.append(vote["vote_id"])
        shown = answer["next"]
    assert app.end(signal.SIGKILL) == -signal.SIGKILL
    again = App(tmp_path)
    browser = again.browser("ann")
    assert [row["vote_id"] for row in again.ask(browser, "/api/my-votes")] == cast[::-1]
    assert again.ask(browser, "/api/next")["assignment_id"] == shown["assignment_id"]
    assert again.end(signal.SIGTERM) == 0
    assert not (tmp_path / "app.lock").exists()


def test_a_second_app_is_refused_and_commands_go_through_the_first(tmp_path: Path) -> None:
    workspace_with_pairs(tmp_path, 2)
    app = App(tmp_path)
    try:
        second = command(tmp_path, "serve", "--port", "0")
        assert second.returncode == 2
        assert f"in use by process {app.process.pid} at {app.url}" in second.stderr
        added = command(tmp_path, "users", "add", "zoë", "--role", "annotator")
        assert re.search(r"name zoë  password \S{14}", added.stdout), added.stderr
        assert "zoë" in command(tmp_path, "users", "list").stdout
        made = command(tmp_path, "backup", str(tmp_path.parent / "kept"))
        assert "2 pairs" in made.stdout, made.stderr
        refused = command(tmp_path, "promote", "policy_v9")
        assert refused.returncode == 2 and "version 'policy_v9'" in refused.stderr
        assert (tmp_path / "app.lock").stat().st_mode & 0o077 == 0
    finally:
        app.end(signal.SIGTERM)
    assert "zoë" in command(tmp_path, "users", "list").stdout


def test_the_first_start_makes_and_tells_one_researcher(tmp_path: Path) -> None:
    services = open_services(tmp_path)
    lines = first_accounts(services)
    found = re.search(r"researcher +name researcher +password (\S{14})  \(one-time", lines[-1])
    assert found is not None and services.operations.role_of("researcher") == "researcher"
    assert services.sessions.sign_in("researcher", found[1], "here", PASSWORD)
    assert first_accounts(services) == []
    services.close()


def test_a_port_in_use_is_told_at_once(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = command(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert found.returncode == 2 and "Choose another --port" in found.stderr


def test_many_threads_get_each_place_of_a_pair_once(services: Services) -> None:
    add_song(services), add_pairs(services, 40)
    names = [f"listener{i}" for i in range(16)]
    barrier = threading.Barrier(len(names))

    def listen(name: str) -> list[str]:
        barrier.wait()
        held: list[str] = []
        while (found := services.annotation.next(name, tuple(held)).result()) is not None:
            held.append(found["assignment_id"])
        return held

    with ThreadPoolExecutor(len(names)) as pool:
        given = [one for held in pool.map(listen, names) for one in held]
    assert len(given) == len(set(given)) == 40  # one vote a pair: each given exactly once
    rows = services.store.database.rows("SELECT pair_id, annotator FROM assignments")
    assert len({row["pair_id"] for row in rows}) == 40
    assert max(sum(row["annotator"] == name for row in rows) for name in names) <= 4


def test_a_pair_goes_to_k_different_annotators(tmp_path: Path) -> None:
    services = open_services(tmp_path, votes_per_pair=3)
    add_song(services), add_pairs(services, 1)
    given = [services.annotation.next(f"l{i}").result() for i in range(5)]
    assert [found is not None for found in given] == [True, True, True, False, False]
    services.close()


def test_one_faulty_write_does_not_harm_the_others_in_its_group(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.duckdb")
    database.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
    gate = threading.Event()
    database.submit(lambda cursor: gate.wait())  # holds the writer while the group gathers

    def add(value: int) -> object:
        def work(cursor: duckdb.DuckDBPyConnection) -> int:
            if value == 3:
                raise InvalidError("refused before it changed anything")
            cursor.execute("INSERT INTO t VALUES (?)", [7 if value == 5 else value])
            return value

        return database.submit(work)

    futures = [add(value) for value in range(10)]
    gate.set()
    failed = [i for i, future in enumerate(futures) if future.exception() is not None]
    assert failed == [3, 7]  # 5 took the key of 7
    stored = {row["x"] for row in database.rows("SELECT x FROM t")}
    assert stored == {0, 1, 2, 4, 6, 7, 8, 9}
    database.close()
    with pytest.raises(WorkspaceError):
        database.submit(lambda cursor: None)


def test_migrations_from_empty_and_twice(tmp_path: Path) -> None:
    connection = duckdb.connect(str(tmp_path / "x.duckdb"))
    assert migrate(connection) == len(MIGRATIONS)
    assert migrate(connection) == len(MIGRATIONS)
    tables = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
    assert {
        "songs", "policies", "reward_models", "edits", "pairs", "assignments", "votes",
        "annotators", "sessions", "runs", "schema_version", "current_votes",
    } <= tables  # fmt: skip


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    open_services(tmp_path).close()
    connection = duckdb.connect(str(tmp_path / "preferences.duckdb"))
    connection.execute("INSERT INTO schema_version (version) VALUES (99)")
    connection.close()
    with pytest.raises(WorkspaceError, match="schema 99"):
        open_services(tmp_path)
    with pytest.raises(WorkspaceError, match="schema 99"):  # and the lock was let go
        open_services(tmp_path)


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "preferences.duckdb").write_bytes(b"x" * 9000)
    found = command(tmp_path, "status")
    assert found.returncode == 2 and "cannot be opened" in found.stderr


def test_settings_are_checked_by_name_and_value(tmp_path: Path) -> None:
    for text, part in (
        ("{", "not JSON"), ('{"gaol": 3}', "unknown setting gaol"), ('{"goal": 0}', ">= 1"),
        ('{"goal": "x"}', "expected a int"), ('{"share_random": 0.9}', "add up to 1"),
    ):  # fmt: skip
        (tmp_path / "settings.json").write_text(text)
        found = command(tmp_path, "status")
        assert found.returncode == 2 and part in found.stderr, found.stderr
    for name, value, part in (
        ("goal", True, "expected a int"), ("goal", 1.5, "expected a int"), ("nice", 20, "0..19"),
        ("goal", math.inf, "expected a int"), ("session_days", 10**7, "1..3650"),
        ("required_cap_s", math.nan, ">= 0"), ("required_cap_s", math.inf, ">= 0"),
        ("min_free_mb", -1, ">= 0"), ("test_share", "1.01", "0..1"), ("port", -1, "0..65535"),
        ("log_requests", "perhaps", "expected a bool"), ("log_format", "xml", "text or json"),
    ):  # fmt: skip
        with pytest.raises(InvalidError, match=f"setting {name} .*{re.escape(part)}"):
            settings_from({name: value})
    (tmp_path / "settings.json").unlink()
    (tmp_path / "settings.json").mkdir()  # what the disk does not give is told in words as well
    found = command(tmp_path, "status")
    assert found.returncode == 2 and found.stderr.startswith("error: [Errno"), found.stderr


def test_no_reader_keeps_old_versions_in_memory_or_checkpoints_off(tmp_path: Path) -> None:
    # of a workspace that was opened before, as after every restart
    opened = {"votes_per_pair": 9, "required_region_share": 0.0, "auto_generate": False}
    with closing(open_services(tmp_path / "workspace", **opened)) as services:
        services.operations.add_user("ann", "annotator", PASSWORD)
        add_song(services), add_pairs(services, 3)
    with closing(open_services(tmp_path / "workspace", **opened)) as services:
        database = services.store.database
        for _ in range(3):
            given = services.annotation.next("ann").result(30)
            form = VoteForm(str(uuid4()), given["assignment_id"], "left")
            services.annotation.vote("ann", form).result(30)
        services.operations.status(), services.operations.results()
        services.operations.preview_export()
        database.between_commits(lambda cursor: cursor.execute("CHECKPOINT").fetchall())
        held = database.row(
            "SELECT memory_usage_bytes AS n FROM duckdb_memory() WHERE tag = 'TRANSACTION'"
        )
        assert held is not None and held["n"] == 0


@pytest.mark.parametrize(("file_mb", "log"), [(0, 6), (160, 10), (5000, 16)])
def test_the_log_is_written_into_the_file_in_proportion(
    tmp_path: Path, file_mb: int, log: int
) -> None:
    path = tmp_path / "sparse.duckdb"
    with path.open("wb") as file:
        file.truncate(file_mb * 1024 * 1024)
    with closing(duckdb.connect()) as connection:
        database_module.bound_log(connection, path)
        found = connection.execute("SELECT current_setting('checkpoint_threshold')").fetchall()
    # DuckDB reads MB as 10^6 bytes and tells MiB
    assert float(found[0][0].removesuffix(" MiB")) == pytest.approx(log / 1.048576, abs=0.06)


def test_what_waits_in_the_log_stays_small(tmp_path: Path) -> None:
    log, longest = tmp_path / "a.duckdb.wal", 0
    with closing(Database(tmp_path / "a.duckdb")) as database:
        for number in range(120):
            database.execute("INSERT INTO secrets VALUES (?, ?)", [str(number), "x" * 100_000])
            longest = max(longest, log.stat().st_size if log.exists() else 0)
        assert len(database.rows("SELECT name FROM secrets")) == 120
    assert 3_000_000 < longest < 7_000_000


class Recorded:
    """A cursor that notes what it was asked."""

    def __init__(self, cursor: Any, asked: list[tuple[str, list[Any]]]) -> None:
        self.cursor, self.asked = cursor, asked

    def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        self.asked.append((sql, list(values)))
        self.cursor.execute(sql, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)


def test_a_vote_is_stored_without_joins_whose_blocks_pile_up(services: Services) -> None:
    """DuckDB 1.5 keeps the handles of a hash join's blocks until some 30,000 are there."""
    add_song(services), add_pairs(services, 4)
    asked: list[tuple[str, list[Any]]] = []
    desk = services.annotation._desk
    given = services.annotation.next("ann").result(30)
    work = desk.work
    desk.work = lambda cursor, requests: work(Recorded(cursor, asked), requests)
    for _ in range(2):
        form = VoteForm(str(uuid4()), given["assignment_id"], "left")
        given = services.annotation.vote("ann", form).result(30)["next"]
    services.annotation.undo("ann", str(uuid4()), form.vote_id).result(30)
    assert {sql.split()[0] for sql, _ in asked} == {"SELECT", "INSERT", "UPDATE"}
    for sql, values in asked:
        plan = str(services.store.database.rows(f"EXPLAIN {sql}", values))
        assert "JOIN" not in plan, sql


def test_results_are_read_to_their_end() -> None:
    package = Path(database_module.__file__).parent
    left = {path.name for path in package.rglob("*.py") if "fetchone()" in path.read_text("utf-8")}
    assert left == {"quack.py"}, "use cursors.first_row: fetchone leaves a transaction open"
