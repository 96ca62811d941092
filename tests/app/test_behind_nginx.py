"""Two app processes behind nginx share one database; the one that looks after runs is killed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_pairs, add_song
from test_durability import ENVIRONMENT
from test_shared_database import free_port

from feedback_app.services import open_services

pytest.importorskip("duckdb_extension_quack", reason="the Quack extension is not installed")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
DOCUMENTED = Path(__file__).parents[2] / "docs" / "scaling.md"


def configuration(folder: Path, port: int, apps: list[int]) -> Path:
    """What docs/scaling.md tells to write, with the ports of the test."""
    block = re.search(r"```nginx\n(.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    text = block[1].replace("listen 80;", f"listen 127.0.0.1:{port};")
    for documented, real in zip((7861, 7862), apps, strict=True):
        assert f"127.0.0.1:{documented}" in text
        text = text.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{real}")
    temporary = "\n".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{text} }}\n"
    )
    return path


class Started:
    """A process that says when it is ready; ended with the test."""

    def __init__(self, argv: list[str], ready: str) -> None:
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if re.match(ready, line):
                return
        raise AssertionError(f"{argv} ended with {self.process.wait()}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(30)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    services = open_services(tmp_path / "workspace", **PLAIN)
    for name in ("ann", "bob"):
        services.operations.add_user(name, "annotator", PASSWORD)
    add_song(services), add_pairs(services, 6)
    services.close()
    return tmp_path / "workspace"


@pytest.fixture
def processes() -> Iterator[list[Started]]:
    started: list[Started] = []
    yield started
    for one in reversed(started):
        if one.process.poll() is None:
            one.end()


class Browser:
    """One person's requests, with the cookie by hand; a 502 is tried again, as the page does."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.cookie = url, ""
        body = f"name={name}&password={PASSWORD.replace(' ', '+')}".encode()
        opener = urllib.request.build_opener(_Stay())
        with opener.open(urllib.request.Request(f"{url}/login", body)) as answer:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]

    def ask(self, path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        headers = {"cookie": self.cookie, "content-type": "application/json"}
        for _ in range(40):
            try:
                request = urllib.request.Request(f"{self.url}{path}", data, headers)
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code not in (502, 503):
                    raise
                time.sleep(0.25)
        raise AssertionError("nobody answered")


class _Stay(urllib.request.HTTPRedirectHandler):
    def http_error_303(self, request, file, code, message, headers):  # type: ignore[no-untyped-def]
        file.headers = headers
        return file

    http_error_302 = http_error_303


def vote(given: dict) -> dict:
    return {"vote_id": str(uuid4()), "assignment_id": given["assignment_id"], "choice": "tie"}


@pytest.mark.long
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")
def test_two_apps_behind_nginx_and_one_is_killed(
    workspace: Path, tmp_path: Path, processes: list[Started]
) -> None:
    run = [sys.executable, "-m", "feedback_app"]
    at = ["--workspace", str(workspace)]
    database, front, ports = free_port(), free_port(), [free_port(), free_port()]
    server = ["database", "serve", "--port", str(database)]
    processes.append(Started([*run, *server, *at], "database at "))
    for port in ports:
        app = ["serve", "--port", str(port), "--database", f"quack:127.0.0.1:{database}"]
        processes.append(Started([*run, *app, *at], "listening on "))
    assert NGINX is not None
    path = configuration(tmp_path, front, ports)
    nginx = subprocess.Popen([NGINX, "-c", str(path), "-p", str(tmp_path)])
    try:
        through = f"http://127.0.0.1:{front}"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{through}/healthz")
                break
            except OSError:
                time.sleep(0.1)
        ann, bob = Browser(through, "ann"), Browser(through, "bob")
        # the same session is good at either app, and both know each other's leases
        direct = [ann.ask("/api/next"), bob.ask("/api/next")]
        ann.url = f"http://127.0.0.1:{ports[0]}"
        first = ann.ask("/api/next")["assignment_id"]
        ann.url = f"http://127.0.0.1:{ports[1]}"
        assert ann.ask("/api/next")["assignment_id"] == first == direct[0]["assignment_id"]
        ann.url = through
        cast = []
        for step in range(6):
            who = (ann, bob)[step % 2]
            given = who.ask("/api/next")
            if "assignment_id" not in given:
                break
            if step == 3:
                processes[1].end(signal.SIGKILL)  # the app that looks after runs
            cast.append(vote(given))
            assert who.ask("/api/vote", cast[-1])["ok"]
            assert who.ask("/api/vote", cast[-1])["ok"]
    finally:
        nginx.terminate()
        nginx.wait(20)
    for one in reversed(processes):
        if one.process.poll() is None:
            one.end()
    services = open_services(workspace, **PLAIN)
    try:
        rows = services.store.database.rows(
            "SELECT vote_id::VARCHAR AS vote_id, pair_id FROM votes"
        )
        assert {row["vote_id"] for row in rows} == {one["vote_id"] for one in cast}
        assert len(rows) == len({row["pair_id"] for row in rows}) == 6
    finally:
        services.close()
