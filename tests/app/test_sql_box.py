"""The SQL box: right answers, and nothing to be reached, changed or exhausted through it."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import client_of
from votes_of_all_kinds import Cast, fill

from feedback_app import __main__ as command_line
from feedback_app import asking, sql_box
from feedback_app.errors import InvalidError, NotFoundError
from feedback_app.exchange import Query
from feedback_app.services import Services

VOTES = [
    Cast(0, "ann", "a", 2, "<script>alert(1)</script>"), Cast(0, "bob", "a"), Cast(1, "ann", "b"),
    Cast(1, "bob", "tie"), Cast(2, "judge", "a", simulated=True), Cast(0, "ann", "b", repeat=True),
]  # fmt: skip


@pytest.fixture
def records(services: Services, tmp_path: Path) -> Path:
    fill(services, 3, VOTES)
    path = tmp_path / "records.parquet"
    services.store.copy_record(path, Query(voters="both"))
    return path


def asked(records: Path, query: str, rows: int = 100, seconds: float = 20.0) -> list[list[str]]:
    return list(sql_box.ask(sql_box.open_box(records, 256), query, rows, seconds, None)["rows"])


def test_the_tables_hold_what_they_say(records: Path) -> None:
    assert asked(records, "SELECT count(*) FROM votes") == [["5"]]
    assert asked(records, "SELECT count(*) FROM all_votes WHERE simulated") == [["1"]]
    assert asked(records, "SELECT pair_id, n_votes, agreement FROM pairs ORDER BY 1") == [
        ["p0", "2", "1.0"], ["p1", "2", "0.5"],
    ]  # fmt: skip
    assert asked(records, "SELECT count(*) FROM edits") == [["6"]]
    frame = pd.read_parquet(records)
    wanted = sum((actions == 1).sum() for actions in frame.drop_duplicates("edit_a")["actions_a"])
    found = asked(records, "SELECT count(*) FROM beats WHERE action = 'CUT' AND edit_id LIKE '%a'")
    assert found == [[str(wanted)]]
    assert asked(records, "FROM votes SELECT DISTINCT listened") == [[None]]
    assert asked(records, "DESCRIBE votes")[0][0] == "vote_id"
    names = [row[0] for row in asked(records, "SHOW TABLES")]
    assert names == ["all_votes", "beats", "edits", "pairs", "votes"]


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE all_votes", "SELECT 1; SELECT 2", "", "SET enable_external_access = true",
        "ATTACH '{path}' AS live", "COPY votes TO '{path}.csv'", "INSTALL httpfs", "LOAD httpfs",
        "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('{path}')", "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('{path}')", "SELECT * FROM sqlite_scan('{path}', 'x')",
        "SELECT * FROM sessions", "SELECT password FROM annotators", "CALL pragma_version()",
        "EXPORT DATABASE '{path}'", "PRAGMA database_list; SELECT 1", "SELECT getenv('HOME')",
        "CREATE TABLE x AS SELECT 1", "SELEC 1", "SELECT path_a FROM all_votes",
        "SELECT * FROM query('DROP TABLE all_votes')", "FROM 'https://example.org/x.csv'",
    ],
)  # fmt: skip
def test_nothing_else_can_be_reached_or_changed(records: Path, query: str) -> None:
    box = sql_box.open_box(records, 256)
    with pytest.raises(InvalidError) as refused:
        sql_box.ask(box, query.replace("{path}", str(records)), 10, 20.0, None)
    assert str(refused.value) and "Stack Trace" not in str(refused.value)
    assert sql_box.ask(box, "SELECT count(*) FROM all_votes", 10, 20.0, None)["rows"] == [["6"]]


def test_long_and_large_queries_end_in_words(records: Path) -> None:
    with pytest.raises(InvalidError, match=r"stopped after 0\.3 s"):
        asked(records, "SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3", seconds=0.3)
    with pytest.raises(InvalidError, match=r"(?i)memory"):
        asked(records, "SELECT list(i) FROM range(300000000) t(i)")
    box = sql_box.open_box(records, 256)
    answer = sql_box.ask(box, "SELECT * FROM range(50)", 7, 20.0, None)
    assert len(answer["rows"]) == 7 and answer["more"]
    assert len(asked(records, "SELECT repeat('x', 10000)")[0][0]) == sql_box.CELL + 1


def test_the_app_asks_a_process_of_its_own(services: Services) -> None:
    """By operation: a snapshot named by its hash that stays as it was, rows, the CSV."""
    fill(services, 3, VOTES)
    query = "SELECT comment, count(*) AS n FROM votes GROUP BY ALL ORDER BY n, comment"
    answer = services.operations.sql(query)
    assert answer["columns"] == ["comment", "n"] and answer["types"] == ["VARCHAR", "BIGINT"]
    assert answer["rows"] == [["<script>alert(1)</script>", "1"], ["", "4"]]
    assert list(pd.read_csv(services.operations.export_file(Path(answer["csv"]).name))["n"]) == [
        1, 4,
    ]  # fmt: skip
    services.store.database.execute("DELETE FROM votes WHERE annotator = 'bob'")
    same = services.operations.sql(query, snapshot=answer["snapshot"])
    assert same["rows"] == answer["rows"]
    now = services.operations.sql(query)
    assert now["snapshot"] != answer["snapshot"] and now["rows"][1] == ["", "2"]
    with pytest.raises(NotFoundError):
        services.operations.sql(query, snapshot="0" * 64)
    with pytest.raises(InvalidError, match="does not exist"):
        services.operations.sql("SELECT * FROM nothing")
    assert services.store.vote_totals()["votes_total"] > 0


def test_a_query_that_kills_its_process_is_told(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(services, 1, VOTES[:1])
    monkeypatch.setattr(asking, "GRACE", -19.9)
    with pytest.raises(InvalidError, match="stopped after"):
        services.operations.sql("SELECT 1")
    monkeypatch.setattr(asking.sys, "executable", "/bin/false")
    monkeypatch.setattr(asking, "GRACE", 20.0)
    with pytest.raises(InvalidError, match="ended its process"):
        services.operations.sql("SELECT 1")


def test_annotators_ask_nothing(services: Services) -> None:
    for name in ("ann", None):
        client = client_of(services, name)
        answer = client.post("/control/sql", json={"query": "SELECT 1"})
        assert answer.status_code == 403
        assert client.get("/research/download/query-x.csv").status_code in (401, 403)


def test_data_by_command(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(services, 3, VOTES)
    root = str(services.workspace.root)
    services.close()

    def run(*argv: str) -> str:
        assert command_line.main([*argv, "--workspace", root]) == 0
        return capsys.readouterr().out

    shown = run("sql", "SELECT choice, count(*) AS n FROM votes GROUP BY ALL ORDER BY choice")
    assert [line.split() for line in shown.splitlines()[:4]] == [
        ["choice", "n"], ["a", "2"], ["b", "2"], ["tie", "1"],
    ]  # fmt: skip
    made = run("export", str(tmp_path / "out"), "--format", "csv", "--annotators", "ann")
    path = Path(made.split("path: ")[1].splitlines()[0])
    assert len(pd.read_csv(path)) == 3 and "rows: 3" in made
    audio = run("export", str(tmp_path / "out"), "--format", "jsonl", "--audio", "flac")
    assert "rows: 5" in audio and "files of audio or features were not there" in audio
    fresh = tmp_path / "fresh"
    assert command_line.main(["votes", "import", str(path.parent), "--workspace", str(fresh)]) == 0
    assert "3 votes taken in, 0 rows refused" in capsys.readouterr().out
    assert command_line.main(["sql", "DROP TABLE x", "--workspace", root]) == 2
    assert "only reads" in capsys.readouterr().err
