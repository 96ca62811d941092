"""A database that several apps share over Quack: vote safety, refusals, no double assignment."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import test_first_sign_in
import test_votes
from conftest import PASSWORD, PLAIN, add_pairs, add_song, client_of
from test_votes import vote_of

from feedback_app.backup import restore_backup
from feedback_app.errors import InvalidError, WorkspaceError
from feedback_app.quack import Session, bound, literal
from feedback_app.services import Services, open_services
from feedback_app.serving_database import DatabaseServer
from feedback_app.shared_database import SharedDatabase
from feedback_app.votes import VoteForm

pytest.importorskip("duckdb_extension_quack", reason="the Quack extension is not installed")
TOKEN = "a-token-for-the-tests"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(name="server")
def database_server(tmp_path: Path) -> Iterator[DatabaseServer]:
    server = DatabaseServer(tmp_path / "workspace", "127.0.0.1", free_port(), TOKEN, memory_mb=256)
    yield server
    server.close()


def opened(server: DatabaseServer, tmp_path: Path, **values: object) -> Services:
    settings = PLAIN | {"database": server.address, "database_token": TOKEN} | values
    return open_services(tmp_path / "workspace", **settings)


@pytest.fixture
def services(server: DatabaseServer, tmp_path: Path) -> Iterator[Services]:
    """As in conftest, over Quack."""
    found = opened(server, tmp_path)
    for name, role in (("ann", "annotator"), ("bob", "annotator"), ("res", "researcher")):
        found.operations.add_user(name, role, PASSWORD)
    assert isinstance(found.store.database, SharedDatabase)
    yield found
    found.close()


@pytest.mark.parametrize(
    "test",
    [
        test_votes.test_a_vote_is_stored_in_terms_of_the_edits,
        test_votes.test_a_repeat_is_acknowledged_and_other_content_is_refused,
        test_votes.test_undo_reopens_the_pair,
        test_votes.test_an_undo_may_come_before_its_vote,
        test_votes.test_nobody_undoes_or_votes_for_another,
        test_votes.test_prefetch_gives_another_pair_and_the_vote_keeps_it,
        test_votes.test_my_pair_is_not_given_to_another,
        test_votes.test_an_abandoned_pair_returns_to_the_pool,
        test_first_sign_in.test_of_two_at_the_same_time_one_gets_in,
    ],
)
def test_safety_as_with_a_file(test: object, services: Services) -> None:
    test(services)  # type: ignore[operator]


def test_the_served_database_has_its_bound_of_memory(services: Services) -> None:
    found = services.store.database.row("SELECT current_setting('memory_limit') AS bound")
    assert found == {"bound": "256.0 MiB"}


def test_literals_come_back_as_they_were() -> None:
    values = ["it's", "--'/*", "?", "$a", "ü\n\\", 0, -7, 1.5, -1e-300, True, None, ["a", "b'"]]
    values.append(datetime(2026, 1, 2, 3, 4, 5, 678901))
    marks = ", ".join("?" for _ in values)
    connection = duckdb.connect()
    row = connection.execute(bound(f'SELECT {marks}, \'?\', "a?" FROM (SELECT 1 AS "a?")', values))
    assert row.fetchone()[: len(values)] == tuple(
        float(v) if isinstance(v, float) else v for v in values
    )
    named = bound("SELECT $a, $b, $a -- $a?", {"a": "x'", "b": -1})
    assert connection.execute(named).fetchone() == ("x'", -1, "x'")
    with pytest.raises(InvalidError):
        literal("a\0b")


def test_refusals_say_why(server: DatabaseServer, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="refuses the token"):
        Session(server.address, "another-token-altogether")
    with pytest.raises(WorkspaceError, match="does not answer as a database"):
        Session(f"quack:127.0.0.1:{free_port()}", TOKEN)
    with pytest.raises(InvalidError, match="loopback only"):
        DatabaseServer(tmp_path / "other", "0.0.0.0", free_port(), TOKEN)
    with pytest.raises(WorkspaceError, match="cannot be opened"):
        subprocess_of = "from pathlib import Path; from feedback_app.database import Database;"
        code = f"{subprocess_of} Database(Path({str(tmp_path / 'workspace/preferences.duckdb')!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode != 0
        raise WorkspaceError(done.stderr)
    session = Session(server.address, TOKEN)
    session.execute("INSERT INTO schema_version (version) VALUES (9999)")
    with pytest.raises(WorkspaceError, match="has schema 9999"):
        opened(server, tmp_path)


def test_another_version_of_duckdb_is_refused(
    server: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb, "__version__", "1.5.99")
    with pytest.raises(WorkspaceError, match=r"runs DuckDB .*, this app 1\.5\.99"):
        Session(server.address, TOKEN)


def test_a_backup_is_made_while_the_database_is_served(
    server: DatabaseServer, services: Services, tmp_path: Path
) -> None:
    add_song(services), add_pairs(services, 3)
    services.annotation.vote("ann", form_of(_given(services))).result(30)
    held = Session(server.address, TOKEN)  # somebody's write, not committed
    held.execute("BEGIN")
    held.execute("UPDATE turns SET turn = turn + 1")
    made = services.operations.backup(str(tmp_path / "kept"))
    held.execute("ROLLBACK")
    held.close()
    assert made["counts"]["votes"] == 1 and made["counts"]["pairs"] == 3
    report = services.operations.doctor()  # reads every table, through the server too
    assert report["checked"]["database"] > 20
    assert {finding["area"] for finding in report["findings"]} == {"audio"}, "the song has no file"
    services.annotation.vote("ann", form_of(_given(services))).result(30)
    restored = restore_backup(Path(made["path"]), tmp_path / "restored")
    assert restored["counts"] == made["counts"]
    with closing(open_services(tmp_path / "restored", **PLAIN)) as again:
        again.annotation.vote("ann", form_of(_given(again))).result(30)
        orders = again.store.database.rows("SELECT seq FROM votes ORDER BY seq")
        assert [row["seq"] for row in orders] == [1, 2], "votes go on being numbered"


def _given(services: Services) -> str:
    return str(services.annotation.next("ann").result(30)["assignment_id"])


def test_a_server_gone_is_told_and_the_vote_goes_in_when_it_is_back(
    server: DatabaseServer, services: Services, tmp_path: Path
) -> None:
    add_song(services), add_pairs(services, 2)
    client = client_of(services, "ann")
    vote = vote_of(client.get("/api/next").json())
    server.close()
    assert client.post("/api/vote", json=vote).status_code == 503
    port = int(server.address.rpartition(":")[2])
    again = DatabaseServer(tmp_path / "workspace", "127.0.0.1", port, TOKEN)
    try:
        assert client.post("/api/vote", json=vote).status_code == 200
        assert client.post("/api/vote", json=vote).status_code == 200
        assert len(services.store.database.rows("SELECT * FROM votes")) == 1
    finally:
        services.close()
        again.close()


def test_a_client_that_dies_in_a_transaction_does_not_hold_the_others_up_for_ever(
    server: DatabaseServer, services: Services
) -> None:
    add_song(services), add_pairs(services, 1)
    dead = Session(server.address, TOKEN)
    dead.execute("BEGIN")
    dead.execute("UPDATE turns SET turn = turn + 1")
    assert [server.look(now) for now in (0.0, 10.0, 19.0)] == [False, False, False]
    assert server.look(21.0)
    assert client_of(services, "ann").get("/api/next").json()["assignment_id"]


def test_two_apps_give_no_place_twice_and_know_each_others_votes(
    server: DatabaseServer, services: Services, tmp_path: Path
) -> None:
    add_song(services), add_pairs(services, 24)
    people = [f"p{index}" for index in range(6)]
    for name in people:
        services.operations.add_user(name, "annotator", PASSWORD)
    second = opened(server, tmp_path)
    try:
        apps = (services, second)

        def votes(index: int) -> list[str]:
            """One person, whose requests go to one app and to the other in turn."""
            got = []
            for step in range(10):
                app = apps[(index + step) % 2]
                given = app.annotation.next(people[index]).result(30)
                if given is None:
                    break
                form = form_of(given["assignment_id"])
                app.annotation.vote(people[index], form).result(30)
                # the same vote once more, to the other app: acknowledged, not doubled
                apps[(index + step + 1) % 2].annotation.vote(people[index], form).result(30)
                got.append(given["pair_id"])
            return got

        with ThreadPoolExecutor(len(people)) as pool:
            given = [pair for one in pool.map(votes, range(len(people))) for pair in one]
        assert sorted(given) == sorted(set(given)), "a place was given twice"
        assert len(given) == 24, "votes_per_pair is 1: every pair once, none left over"
        rows = services.store.database.rows("SELECT vote_id, pair_id, seq FROM votes")
        assert len(rows) == len({row["pair_id"] for row in rows}) == 24
        assert services.jobs._keeper() and not second.jobs._keeper()
        services.close()
        assert second.jobs._keeper(), "who is left looks after the runs"
    finally:
        second.close()


def form_of(assignment_id: str) -> VoteForm:
    return VoteForm(str(uuid4()), assignment_id, "tie")
