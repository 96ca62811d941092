"""The log, health and figures of the app, and how it stops."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_pairs, add_song, client_of
from test_durability import App, workspace_with_pairs

from feedback_app.app import build_app
from feedback_app.client import Remote
from feedback_app.logs import JsonLines, TextLines, about
from feedback_app.metrics import Requests
from feedback_app.services import Services, open_services
from feedback_app.watching import Watch
from feedback_app.workspace import Workspace

FORGED = 'x\n{"level": "error", "message": "forged"}\r\n2026-01-01 ERROR root: forged\x1b[31m\u2028'


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> io.StringIO:
    """What the log of the app writes in the form that the test names."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    logger = logging.getLogger("feedback_app")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    request.addfinalizer(lambda: (logger.removeHandler(handler), logger.setLevel(before)))
    return stream


@pytest.mark.parametrize("lines", [JsonLines, TextLines], indirect=True)
def test_what_people_typed_forges_no_line(lines: io.StringIO) -> None:
    logger = logging.getLogger("feedback_app.test")
    with about(request_id="r1", account=FORGED):
        logger.info("song %s", FORGED, extra={"title": FORGED})
    written = lines.getvalue()
    assert written.count("\n") == 1 and written.endswith("\n") and "\x1b" not in written
    assert len(written.splitlines()) == 1  # nor by the other characters that end lines
    if written.startswith("{"):
        line = json.loads(written)
        assert line["title"] == line["account"] == FORGED and line["level"] == "info"
        assert line["request_id"] == "r1" and line["time"].endswith("Z")


@pytest.mark.parametrize("lines", [JsonLines, TextLines], indirect=True)
def test_an_exception_stays_within_its_event(lines: io.StringIO) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("feedback_app.test").exception("it failed")
    written = lines.getvalue().splitlines()
    if written[0].startswith("{"):
        (line,) = written
        assert "ValueError" in json.loads(line)["exception"]
    else:
        assert all(line.startswith("    ") for line in written[1:])


@pytest.mark.parametrize("lines", [JsonLines], indirect=True)
def test_a_requests_id_is_on_its_lines_and_on_the_run_that_it_started(
    services: Services, lines: io.StringIO
) -> None:
    client = TestClient(
        build_app(services, pages=False), base_url="http://127.0.0.1", client=("127.0.0.1", 1)
    )
    headers = {"authorization": f"Bearer {services.holder.token}", "x-request-id": "my-request-1"}
    song = services.workspace.root / "x.wav"
    song.write_bytes(b"RIFF" + b"\0" * 100)
    answer = client.post("/control/add_songs", json={"paths": [str(song)]}, headers=headers)
    assert answer.headers["x-request-id"] == "my-request-1"
    run_id = answer.json()["result"]["run_id"]
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    submitted = next(line for line in told if line["message"] == "run submitted")
    assert submitted["run_id"] == run_id and submitted["request_id"] == "my-request-1"
    started = next(line for line in told if line["message"] == "run started")
    assert started["run_id"] == run_id and started["pid"] > 0
    services.jobs.cancel(run_id)
    other = client.get("/healthz", headers={"x-request-id": "bad id\x7f"})
    assert len(other.headers["x-request-id"]) == 16  # one of ours in its place


@pytest.mark.parametrize("lines", [JsonLines], indirect=True)
def test_each_request_is_logged_where_that_is_wanted(tmp_path: Path, lines: io.StringIO) -> None:
    services = open_services(tmp_path, **PLAIN, log_requests=True)
    services.operations.add_user("ann", "annotator", PASSWORD)
    client_of(services, "ann").get("/api/me?secret=1")
    line = json.loads(lines.getvalue().splitlines()[-1])
    assert line["message"] == "GET /api/me" and line["account"] == "ann" and line["status"] == 200
    assert PASSWORD not in lines.getvalue() and "secret" not in lines.getvalue()
    services.close()


@pytest.mark.parametrize("lines", [JsonLines], indirect=True)
def test_who_hangs_up_is_no_fault_and_a_fault_is(lines: io.StringIO) -> None:
    requests = Requests()
    scope = {"type": "http", "path": "/x", "method": "GET", "headers": []}

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None: ...

    async def left(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def answered(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()

    for app in (left, broken, answered):
        watch = Watch(app, requests, log_requests=True)
        # in a thread of its own: a browser test before may have left a loop in this one
        with ThreadPoolExecutor(1) as thread, suppress(ZeroDivisionError):
            thread.submit(asyncio.run, watch(dict(scope), receive, send)).result()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(line["status"], line["level"]) for line in told] == [
        (499, "info"), (500, "error"), (200, "info"),
    ]  # fmt: skip


def parsed(text: str) -> dict[str, float]:
    """Prometheus's text format by its definition: a name, labels, a value."""
    out = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            out[name] = float(value)
    return out


def test_figures_count_what_happened(services: Services) -> None:
    add_song(services), add_pairs(services, 3)
    app = build_app(services, pages=False)
    client = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    client.post("/login", data={"name": "ann", "password": PASSWORD})
    shown = client.get("/api/next").json()
    for number in range(3):
        client.request(f"MADEUP{number}", "/api/vote")
    for _ in range(2):
        vote = {"vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": "tie"}
        shown = client.post("/api/vote", json=vote).json()["next"]
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = parsed(answer.text)
    assert found['feedback_votes{source="app",kind="vote"}'] == 2
    key = 'feedback_http_requests_total{route="/api/vote",method="POST",status="200"}'
    assert found[key] == 2
    assert found[key.replace("POST", "other").replace("200", "405")] == 3
    assert found['feedback_http_request_seconds_count{route="/api/vote"}'] == 5
    buckets = [v for k, v in found.items() if "_bucket" in k and '"/api/vote"' in k]
    assert buckets == sorted(buckets) and buckets[-1] == 5
    assert found['feedback_assignments{state="done"}'] == 2
    for name in ("disk_free_bytes", "database_bytes"):
        assert found[f"feedback_{name}"] > 0
    assert found["process_resident_memory_bytes"] > 10e6
    for line in answer.text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ", "feedback_", "process_"))


def test_who_may_read_the_figures(tmp_path: Path) -> None:
    services = open_services(tmp_path, **PLAIN, metrics_token="0123456789abcdef")
    app = build_app(services, pages=False)

    def status(host: str, **headers: str) -> int:
        client = TestClient(app, base_url="http://127.0.0.1", client=(host, 1))
        return client.get("/metrics", headers=headers).status_code

    assert status("127.0.0.1") == 200 and status("::1") == 200
    assert status("10.0.0.9") == 403
    assert status("127.0.0.1", **{"x-forwarded-for": "10.0.0.9"}) == 403  # through a proxy
    assert status("10.0.0.9", authorization="Bearer 0123456789abcdef") == 200
    assert status("10.0.0.9", authorization="Bearer 0123456789abcdeX") == 403
    assert status("10.0.0.9", authorization="Bearer ") == 403
    services.close()


def test_health_says_what_is_wrong(tmp_path: Path) -> None:
    services = open_services(tmp_path, **PLAIN)
    client = client_of(services)
    assert client.get("/healthz").json() == {"ok": True}
    services.close()
    answer = client.get("/healthz")
    assert answer.status_code == 503 and answer.json()["ok"] is False
    assert "the writer has ended" in answer.json()["problems"]
    full = open_services(tmp_path, **PLAIN, min_free_mb=2**40)  # more than any disk has
    answer = client_of(full).get("/healthz")
    assert answer.status_code == 503 and answer.json()["problems"] == ["the disk is full"]
    full.close()


def test_it_stops_gracefully_on_sigterm_and_runs_go_on(tmp_path: Path) -> None:
    """What was acknowledged is there (test_crash_crowd ends so as well), and a run works on
    without the app; here it is a shell that waits for a file, and makes another."""
    workspace_with_pairs(tmp_path, 3)
    song, go, done = tmp_path / "x.wav", tmp_path / "go", tmp_path / "done"
    song.write_bytes(b"RIFF" + bytes(100))
    waits = f"until [ -e {go} ]; do sleep 0.1; done; touch {done}"
    launcher = {"launcher": ["sh", "-c", waits], "launcher_kinds": ["analyse"]}
    (tmp_path / "settings.json").write_text(json.dumps(launcher))
    app = App(tmp_path)
    holder = Workspace(tmp_path).holder()
    assert holder is not None
    run_id = Remote(holder).call("add_songs", paths=[str(song)])["run_id"]
    browser = app.browser("ann")
    shown = app.ask(browser, "/api/next")
    vote = {"vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": "left"}
    assert app.ask(browser, "/api/vote", vote)["ok"]
    assert app.end(signal.SIGTERM) == 0
    assert not (tmp_path / "app.lock").exists()
    assert not (tmp_path / "preferences.duckdb.wal").exists()  # all in the file itself
    services = open_services(tmp_path)
    stored = services.store.database.rows("SELECT vote_id FROM votes")
    assert [str(row["vote_id"]) for row in stored] == [vote["vote_id"]]
    assert services.store.run(run_id)["state"] == "running"
    assert not done.exists()
    go.touch()
    until = time.monotonic() + 60
    while not done.exists():
        assert time.monotonic() < until, "the run ended with the app"
        time.sleep(0.05)
    services.close()
