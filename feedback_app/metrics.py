"""Figures for Prometheus, in its text format 0.0.4, and the answer to "are you well?".

`GET /metrics` answers on this machine (asked directly, not through a proxy), elsewhere whoever has
the setting `metrics_token` (`Authorization: Bearer …`). `GET /healthz` answers everybody: 200
{"ok": true}, or 503 with what is wrong in general words.
Source of the format: prometheus.io/docs/instrumenting/exposition_formats
"""

from __future__ import annotations

import hmac
import os
import resource
import shutil
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import duckdb
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from feedback_app.errors import ForbiddenError
from feedback_app.schema import MIGRATIONS
from feedback_app.services import Services

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# Others are counted together: a stranger may make up as many as there is memory for.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
MEGABYTE = 1024 * 1024
Labels = tuple[tuple[str, str], ...]
Line = tuple[str, Mapping[str, str], float]


class Requests:
    """Counts requests and their seconds, by route, method and status."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[str, list[float]] = {}  # per bucket, then over all, then their sum

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        with self._lock:
            key = (route, method if method in METHODS else "other", status)
            self._counts[key] = self._counts.get(key, 0) + 1
            spent = self._seconds.setdefault(route, [0.0] * (len(BUCKETS_S) + 2))
            spent[bisect_left(BUCKETS_S, seconds)] += 1
            spent[-1] += seconds

    def lines(self) -> Iterator[str]:
        with self._lock:
            counts = sorted(self._counts.items())
            seconds = sorted((route, list(spent)) for route, spent in self._seconds.items())
        yield from family(
            "feedback_http_requests_total", "counter", "Requests answered.",
            [("", {"route": r, "method": m, "status": str(s)}, n) for (r, m, s), n in counts],
        )  # fmt: skip
        yield from family(
            "feedback_http_request_seconds", "histogram", "Seconds until the answer was sent.",
            [line for route, spent in seconds for line in _histogram(route, spent)],
        )  # fmt: skip


def _histogram(route: str, spent: list[float]) -> Iterator[Line]:
    total = 0.0
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), spent, strict=False):
        total += count
        yield "_bucket", {"route": route, "le": bound}, total
    yield "_sum", {"route": route}, spent[-1]
    yield "_count", {"route": route}, total


def family(name: str, kind: str, about: str, lines: Iterable[Line]) -> Iterator[str]:
    """One metric with its help, type and values.

    >>> list(family("x", "gauge", "An x.", [("", {"of": 'a"b'}, 2)]))[-1]
    'x{of="a\\\\"b"} 2'
    """
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for suffix, labels, value in lines:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        shown = f"{{{pairs}}}" if pairs else ""
        yield f"{name}{suffix}{shown} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def exposition(services: Services, requests: Requests) -> str:
    """Everything, as Prometheus reads it."""
    return "\n".join([*requests.lines(), *_gauges(services), *_process()]) + "\n"


def _gauges(services: Services) -> Iterator[str]:
    database, workspace = services.store.database, services.workspace
    votes = database.rows("SELECT source, kind, count(*) AS n FROM votes GROUP BY ALL")
    runs = database.rows("SELECT kind, state, count(*) AS n FROM runs GROUP BY ALL")
    places = database.rows("SELECT state, count(*) AS n FROM assignments GROUP BY ALL")
    disk = shutil.disk_usage(workspace.root)
    size = sum(
        path.stat().st_size for path in workspace.root.glob(f"{database.path.name}*")
    )  # fmt: skip
    for name, about, lines in (
        ("votes", "Votes and undos stored.",
         [("", {"source": r["source"], "kind": r["kind"]}, r["n"]) for r in votes]),
        ("runs", "Runs by kind and state.",
         [("", {"kind": r["kind"], "state": r["state"]}, r["n"]) for r in runs]),
        ("assignments", "Assignments by state.",
         [("", {"state": r["state"]}, r["n"]) for r in places]),
        ("writes_waiting", "Writes that wait for the writer thread.",
         [("", {}, database.waiting())]),
        ("database_bytes", "Size of the database and its log.", [("", {}, size)]),
        ("disk_free_bytes", "Room on the workspace's disk.", [("", {}, disk.free)]),
        ("schema_version", "Schema of the database.", [("", {}, len(MIGRATIONS))]),
    ):  # fmt: skip
        yield from family(f"feedback_{name}", "gauge", about, lines)


def _process() -> Iterator[str]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield from family("process_cpu_seconds_total", "counter", "CPU seconds of this process.",
                      [("", {}, used.ru_utime + used.ru_stime)])  # fmt: skip
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    files = len(list(Path("/proc/self/fd").iterdir()))
    yield from family("process_resident_memory_bytes", "gauge", "Resident memory.",
                      [("", {}, pages * os.sysconf("SC_PAGE_SIZE"))])  # fmt: skip
    yield from family("process_open_fds", "gauge", "Open files.", [("", {}, files)])
    yield from family("process_start_time_seconds", "gauge", "Start, seconds since 1970.",
                      [("", {}, STARTED)])  # fmt: skip


STARTED = time.time()


def problems(services: Services) -> list[str]:
    """What keeps the app from taking votes; [] where nothing does. No names, no paths."""
    found = []
    try:
        services.store.database.row("SELECT 1")
    except duckdb.Error:
        found.append("the database does not answer")
    if not services.store.database.is_writing():
        found.append("the writer has ended")
    free = shutil.disk_usage(services.workspace.root).free // MEGABYTE
    if free < services.settings.min_free_mb:
        found.append("the disk is full")
    return found


def add_routes(app: FastAPI, services: Services, requests: Requests) -> None:
    """/healthz and /metrics."""

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        wrong = problems(services)
        if wrong:
            return JSONResponse({"ok": False, "problems": wrong}, status_code=503)
        return JSONResponse({"ok": True})

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        if not _may_read(request, services.settings.metrics_token):
            raise ForbiddenError("figures are for this machine, or for who has metrics_token")
        return PlainTextResponse(
            exposition(services, requests), media_type="text/plain; version=0.0.4; charset=utf-8"
        )


def _may_read(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token and hmac.compare_digest(given.encode(), token.encode()):
        return True
    local = request.client is not None and request.client.host in ("127.0.0.1", "::1")
    return local and not any(name in request.headers for name in FORWARDED)
