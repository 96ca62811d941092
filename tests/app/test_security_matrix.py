"""Every route and every Gradio handler of the running app has a rule, and the rule holds.

Routes are read from the app itself (our own, those of the mounted Gradio apps, those of routers
included in them), handlers from the mounted Blocks. One without a rule here fails the test: say
who may use it, then open it in `middleware.OPEN_PATHS`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, add_pairs, add_song
from test_access import RULES as OWN_RULES

from feedback_app.app import build_app
from feedback_app.services import Services

ROLES = (None, "ann", "bob", "res")
SHUT = "shut"  # nobody but the machine of the page's own server code: 401 or 403 for everybody
RESEARCHER, EVERYBODY = "researcher", "everybody"
PUBLIC = {"/static"}
# Gradio's routes, the same on both pages: what the page loads, what it calls, what nobody may.
LOADED = {
    "/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json",
    "/assets/{path:path}", "/static/{path:path}", "/svelte/{path:path}",
    "/gradio_api/startup-events", "/gradio_api/info", "/gradio_api/info/", "/gradio_api/theme.css",
    "/gradio_api/app_id", "/gradio_api/app_id/", "/gradio_api/heartbeat/{session_hash}",
}  # fmt: skip
CALLED = {
    ("POST", "/gradio_api/queue/join"), ("GET", "/gradio_api/queue/data"),
    ("POST", "/gradio_api/run/{api_name}"), ("POST", "/gradio_api/run/{api_name}/"),
    ("POST", "/gradio_api/upload"), ("GET", "/gradio_api/upload_progress"),
    ("GET", "/gradio_api/file={path_or_url:path}"), ("POST", "/gradio_api/cancel"),
    ("POST", "/gradio_api/reset"), ("POST", "/gradio_api/reset/"),
}  # fmt: skip
NOBODY = {
    "/login", "/login/", "/logout", "/robots.txt", "/pwa_icon", "/pwa_icon/{size}", "/monitoring",
    "/monitoring/summary", "/monitoring/{key}", "/gradio_api/deep_link", "/gradio_api/user",
    "/gradio_api/user/", "/gradio_api/login_check", "/gradio_api/login_check/", "/gradio_api/token",
    "/gradio_api/token/", "/gradio_api/dev/reload", "/gradio_api/runs", "/gradio_api/runs/",
    "/gradio_api/openapi.json", "/gradio_api/proxy={url_path:path}",
    "/gradio_api/custom_component/{id}/{environment}/{type}/{file_name}",
    "/gradio_api/stream/{event_id}", "/gradio_api/stream/{event_id}/close",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file",
    "/gradio_api/file/{path:path}", "/gradio_api/api/{api_name}", "/gradio_api/api/{api_name}/",
    "/gradio_api/call/{api_name}", "/gradio_api/call/{api_name}/",
    "/gradio_api/call/v2/{api_name}", "/gradio_api/call/v2/{api_name}/",
    "/gradio_api/call/{api_name}/{event_id}", "/gradio_api/call/v2/{api_name}/{event_id}",
    "/gradio_api/component_server",
    "/gradio_api/component_server/", "/gradio_api/queue/status", "/gradio_api/process_recording",
    "/gradio_api/vibe-edit", "/gradio_api/vibe-edit/", "/gradio_api/undo-vibe-edit",
    "/gradio_api/undo-vibe-edit/", "/gradio_api/vibe-code", "/gradio_api/vibe-code/",
    "/gradio_api/vibe-starter-queries", "/gradio_api/vibe-starter-queries/",
}  # fmt: skip


def routes_of(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of every route, into mounted apps and included routers."""
    for route in routes:
        if hasattr(route, "effective_candidates"):
            yield from routes_of(route.effective_candidates(), prefix)
        elif getattr(route, "methods", None):
            yield from ((method, prefix + route.path) for method in route.methods)
        elif getattr(route, "routes", None):
            yield from routes_of(route.routes, prefix + route.path)
        else:
            yield ("*", prefix + getattr(route, "path", repr(route)))


def rule_of(method: str, path: str) -> str | None:
    """Who may use a Gradio route of one of the pages."""
    page = next(page for page in ("/annotate", "/research") if path.startswith(page))
    inner, method = path.removeprefix(page), "GET" if method == "HEAD" else method
    if inner in LOADED and method == "GET":
        return EVERYBODY if page == "/annotate" else RESEARCHER
    if (method, inner) in CALLED:
        return SHUT if page == "/annotate" else RESEARCHER
    return SHUT if inner in NOBODY else None


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, FastAPI]]:
    from conftest import PLAIN

    from feedback_app.services import open_services

    services = open_services(tmp_path_factory.mktemp("matrix"), **PLAIN)
    for name, role in (("ann", "annotator"), ("bob", "annotator"), ("res", "researcher")):
        services.operations.add_user(name, role, PASSWORD)
    add_song(services), add_pairs(services, 2)
    yield services, build_app(services)
    services.close()


@pytest.fixture(scope="module")
def clients(app: tuple[Services, FastAPI]) -> dict[str | None, TestClient]:
    made: dict[str | None, TestClient] = {}
    for name in ROLES:
        client = TestClient(app[1], base_url="http://127.0.0.1", follow_redirects=False)
        if name:
            client.post("/login", data={"name": name, "password": PASSWORD})
            assert client.get("/api/me").json()["name"] == name
        made[name] = client
    return made


def is_own(path: str) -> bool:
    return path in {own for _, own in OWN_RULES}


def test_every_route_has_a_rule(app: tuple[Services, FastAPI]) -> None:
    unruled = []
    for method, path in routes_of(app[1].routes):
        ours = (method if method != "HEAD" else "GET", path) in OWN_RULES
        if ours or path in PUBLIC:
            continue
        page = path.startswith(("/annotate", "/research"))
        if not page or rule_of(method, path) is None:
            unruled.append((method, path))
    assert not unruled, "say who may use these"


def test_a_route_that_gradio_brings_is_shut_until_it_has_a_rule(
    app: tuple[Services, FastAPI], clients: dict[str | None, TestClient]
) -> None:
    for page in ("/annotate", "/research"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = clients["res"].request(method, f"{page}/gradio_api/brand-new")
            assert answer.status_code == 403
    assert rule_of("GET", "/research/gradio_api/brand-new") is None


FILL = {
    "{path:path}": "x.js", "{path_or_url:path}": "/etc/passwd", "{url_path:path}": "http://x/",
    "{session_hash}": "abc", "{api_name}": "handler", "{event_id}": "e", "{size}": "3",
    "{id}": "i", "{environment}": "client", "{type}": "t", "{file_name}": "f", "{run}": "1",
    "{component_id}": "1", "{segment_id}": "1", "{ext}": "ts", "{key}": "k",
}  # fmt: skip


def filled(path: str) -> str:
    for name, value in FILL.items():
        path = path.replace(name, value)
    assert "{" not in path, path
    return path


def test_the_matrix_of_gradio_routes(
    app: tuple[Services, FastAPI], clients: dict[str | None, TestClient]
) -> None:
    checked = 0
    for method, path in sorted(set(routes_of(app[1].routes))):
        if not path.startswith(("/annotate", "/research")) or is_own(path):
            continue
        rule = rule_of(method, path)
        streams = "heartbeat" in path or "queue/data" in path or "upload_progress" in path
        for name in ROLES:
            allowed = name is not None and (
                rule == EVERYBODY or (rule == RESEARCHER and name == "res")
            )
            if allowed and streams:
                continue  # these answer for as long as the page is open
            answer = clients[name].request(method, filled(path), json={})
            checked += 1
            told = (method, path, name, answer.status_code)
            if name is None:
                assert answer.status_code == 401, told
            elif allowed:
                file = "file=" in path  # Gradio itself refuses what was not uploaded
                assert answer.status_code not in ((401,) if file else (401, 403)), told
                assert answer.status_code < 500, told
            else:
                assert answer.status_code == 403, told
    assert checked > 400


def blocks_of(app: FastAPI) -> dict[str, gr.Blocks]:
    return {
        route.path: route.app.get_blocks()
        for route in app.routes
        if hasattr(getattr(route, "app", None), "get_blocks")
    }


def test_every_handler_refuses_whoever_is_no_researcher(app: tuple[Services, FastAPI]) -> None:
    pages = blocks_of(app[1])
    assert set(pages) == {"/annotate", "/research"}
    assert not pages["/annotate"].fns  # nothing there for an annotator to call
    handlers = [fn for fn in pages["/research"].fns.values() if fn.fn is not None]
    assert len(handlers) > 20
    for handler in handlers:
        for name in (None, "", "ann", "bob", "nobody"):
            request = gr.Request(username=name)
            with pytest.raises(gr.Error, match="for researchers"):
                handler.fn(request, *[None] * len(handler.inputs))


def test_no_component_has_functions_of_the_server(app: tuple[Services, FastAPI]) -> None:
    for page in blocks_of(app[1]).values():
        for block in page.blocks.values():
            own = [n for n in dir(type(block)) if getattr(getattr(block, n), "_is_server_fn", 0)]
            assert not block.__dict__.get("server"), block
            if own:  # a component of Gradio's may have some: its route is shut (NOBODY above)
                assert rule_of("POST", "/research/gradio_api/component_server") == SHUT


def test_handlers_are_reached_by_researchers_alone(
    app: tuple[Services, FastAPI], clients: dict[str | None, TestClient]
) -> None:
    for index, handler in blocks_of(app[1])["/research"].fns.items():
        body = {"fn_index": index, "data": [], "session_hash": "x", "trigger_id": None}
        for path in ("queue/join", f"run/{handler.api_name or 'predict'}"):
            for name, status in ((None, 401), ("ann", 403), ("bob", 403)):
                for page in ("/research", "/annotate"):
                    answer = clients[name].post(f"{page}/gradio_api/{path}", json=body)
                    assert answer.status_code == status, (index, path, name)


def test_uploads_go_into_the_workspace(
    app: tuple[Services, FastAPI], clients: dict[str | None, TestClient]
) -> None:
    """Under a name of the server's, whatever the file was called."""
    services, _ = app
    address = "/research/gradio_api/upload"
    for name in ("../../evil.wav", "/etc/evil.wav", "a\nb.wav", "x" * 300 + ".wav"):
        answer = clients["res"].post(address, files={"files": (name, b"RIFF")})
        assert answer.status_code == 200, answer.text
        (stored,) = answer.json()
        path = Path(stored).resolve()
        assert path.is_relative_to(services.workspace.root / "uploads"), stored
        assert path.read_bytes() == b"RIFF" and "\n" not in path.name
    for name, status in ((None, 401), ("ann", 403)):
        assert clients[name].post(address, files={"files": ("x", b"x")}).status_code == status


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "/proc/self/environ", "{root}/preferences.duckdb", "{root}/app.lock",
        "{root}/settings.json", "{root}/songs/../preferences.duckdb", "http://127.0.0.1:1/x",
        "{root}/runs/made/audio/pair0000/a.flac",
    ],
)  # fmt: skip
def test_gradio_gives_out_no_file_of_ours(
    app: tuple[Services, FastAPI], clients: dict[str | None, TestClient], path: str
) -> None:
    services, _ = app
    (services.workspace.root / "settings.json").write_text("{}")
    wanted = path.replace("{root}", str(services.workspace.root))
    for page in ("/annotate", "/research"):
        answer = clients["res"].get(f"{page}/gradio_api/file={wanted}")
        assert answer.status_code in (403, 404), wanted
