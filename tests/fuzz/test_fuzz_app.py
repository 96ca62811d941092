"""Malformed votes over HTTP and malformed files of votes: refused in words, never a fault (5xx).

The test client raises what the server would answer with 500, so any exception fails the test.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[1] / "app"))

from conftest import PASSWORD, PLAIN, add_pairs, add_song, client_of

from feedback_app.errors import AppError
from feedback_app.services import Services, open_services
from rlhf_core.errors import CoreError
from tests.fuzz.malformed import JSON, TEXT, WANTED, altered, damaged, quick, refused

COLUMNS = ("pair_id", "annotator", "choice", "strength")
ROWS = [
    {"pair_id": f"pair000{n}", "annotator": f"p{n}", "choice": c, "strength": s}
    for n, (c, s) in enumerate([("a", 1), ("b", 3), ("tie", None), ("both_bad", None)])
]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    rates = {"votes_per_minute": 10**6, "reads_per_minute": 10**6}
    opened = open_services(
        tmp_path_factory.mktemp("fuzz"), **PLAIN | {"votes_per_pair": 1000} | rates
    )
    opened.operations.add_user("ann", "annotator", PASSWORD)
    add_song(opened), add_pairs(opened, 6)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(services: Services) -> TestClient:
    return client_of(services, "ann")


GOOD = {
    "/api/vote": {"vote_id": str(uuid4()), "choice": "left", "strength": 2, "tags": ["x"],
                  "assignment_id": "ASSIGNMENT", "comment": "y", "response_ms": 100,
                  "listened": {"left_s": 1.0, "regions_left_s": 9.0, "first_side": "left"},
                  "client_version": "1", "exclude": ["x"]},
    "/api/undo": {"vote_id": str(uuid4()), "undoes": str(uuid4())},
    "/api/headphones": {"check_id": str(uuid4()),
                        "rounds": [{"answer": 1, "truth": 1}] * 6},
}  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, paths: Sequence[str] = tuple(GOOD)) -> tuple[str, bytes]:
    """A path and a body: an altered good one, any JSON, or a good one's damaged bytes."""
    path = draw(st.sampled_from(sorted(paths)))
    kind = draw(st.sampled_from(("altered", "altered", "altered", "json", "bytes")))
    if kind == "bytes":
        return path, draw(damaged([json.dumps(GOOD[path]).encode()]))
    value = draw(altered(GOOD[path]) if kind == "altered" else JSON)
    return path, json.dumps(value).encode("utf-8", "surrogatepass")


def check_request(client: TestClient, path: str, body: bytes) -> bool:
    """Whether it was refused."""
    shown = client.get("/api/next").json()
    body = body.replace(b"ASSIGNMENT", str(shown.get("assignment_id", "none")).encode())
    answer = client.post(path, content=body)
    assert answer.status_code in (200, 400, 403, 404, 409, 422), answer.text
    answer.json()
    if answer.status_code == 200:
        return False
    assert answer.json()["error"]
    return True


@quick()
@given(request=requests())
def test_votes(client: TestClient, request: tuple[str, bytes]) -> None:
    check_request(client, *request)


@pytest.mark.long
@pytest.mark.parametrize("path", sorted(GOOD))
def test_votes_in_full(client: TestClient, path: str) -> None:
    assert refused(600, requests([path]), lambda one: check_request(client, *one)) >= WANTED


@quick()
@given(exclude=TEXT, path=TEXT)
def test_addresses(client: TestClient, exclude: str, path: str) -> None:
    assert client.get("/api/next", params={"exclude": exclude}).status_code == 200
    for prefix in (
        "/media/",
        "/research/media/",
        "/research/download/",
        "/static/",
        "/login?next=",
    ):
        address = prefix + "".join(f"%{byte:02x}" for byte in path.encode("utf-8", "replace"))
        answer = client.get(address, follow_redirects=False)
        assert answer.status_code < 500, (address, answer.text)


@st.composite
def files(draw: st.DrawFn, kinds: Sequence[str] = ("csv", "jsonl")) -> tuple[str, bytes]:
    """A file of votes: damaged bytes, altered rows, or any rows at all."""
    kind = draw(st.sampled_from(kinds))
    write = as_csv if kind == "csv" else as_lines
    how = draw(st.sampled_from(("damaged", "altered", "any")))
    if how == "damaged":
        return kind, draw(damaged([write(ROWS)]))
    if how == "altered":
        rows = draw(altered(ROWS))
    else:
        rows = draw(st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, JSON)), max_size=4))
    rows = rows if isinstance(rows, list) else [rows]
    return kind, as_lines(rows) if kind == "jsonl" else _csv_of_anything(rows)


def _csv_of_anything(rows: list[Any]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, escapechar="\\")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = [row.get(name) for name in COLUMNS] if isinstance(row, dict) else [row]
        writer.writerow(cells)
    return text.getvalue().encode("utf-8", "surrogatepass")


def check_import(services: Services, folder: Path, kind: str, content: bytes) -> bool:
    """Whether anything of it was refused."""
    path = folder / f"votes.{kind}"
    path.write_bytes(content)
    sql = "SELECT count(*) AS n FROM votes WHERE source = 'import'"
    database = services.store.database
    before = database.row(sql)
    try:
        told = services.operations.import_votes(str(path))
    except (AppError, CoreError) as error:
        assert "votes" in str(error)
        assert database.row(sql) == before  # nothing of it went in
        return True
    after = database.row(sql)
    assert before and after and after["n"] - before["n"] == told["accepted"]
    for row in told["rejected"]:
        assert row["reason"] and int(row["line"]) >= 0
    json.dumps(told)
    return bool(told["rejected"])


@quick()
@given(file=files())
def test_files_of_votes(
    services: Services, tmp_path_factory: pytest.TempPathFactory, file: tuple[str, bytes]
) -> None:
    check_import(services, tmp_path_factory.getbasetemp(), *file)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_files_of_votes_in_full(services: Services, tmp_path: Path, kind: str) -> None:
    assert refused(450, files([kind]), lambda one: check_import(services, tmp_path, *one)) >= WANTED
