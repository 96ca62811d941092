"""Who may do what: every route of ours × nobody, annotator, other annotator, researcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, add_pairs, add_song, client_of, write_audio

from feedback_app import auth
from feedback_app.app import build_app
from feedback_app.auth import LockOut, check_password, hash_password
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.services import Services

# (method, path) -> status for (nobody, the pair's annotator, another annotator, researcher)
RULES = {
    ("GET", "/"): (303, 303, 303, 303),
    ("GET", "/login"): (200, 303, 303, 303),
    ("POST", "/login"): (401, 401, 401, 401),
    ("POST", "/logout"): (303, 303, 303, 303),
    ("GET", "/healthz"): (200, 200, 200, 200),
    ("GET", "/metrics"): (403, 403, 403, 403),  # this machine or the token: test_operations
    ("GET", "/api/me"): (401, 200, 200, 200),
    ("GET", "/api/next"): (401, 200, 200, 200),
    ("POST", "/api/vote"): (401, 200, 404, 404),
    ("POST", "/api/undo"): (401, 200, 200, 200),
    ("GET", "/api/my-votes"): (401, 200, 200, 200),
    ("GET", "/api/headphones"): (401, 200, 200, 200),
    ("POST", "/api/headphones"): (401, 200, 200, 200),
    ("GET", "/media/{media}"): (401, 200, 404, 200),
    ("GET", "/research/media/{edit_id}"): (401, 403, 403, 200),
    ("GET", "/research/original/{pair_id}"): (401, 403, 403, 200),
    ("GET", "/research/download/{name}"): (401, 403, 403, 200),
    ("GET", "/research/example/{run_id}/{number}/{side}"): (401, 403, 403, 404),
    ("GET", "/research/song/{song_id}"): (401, 403, 403, 200),
    ("POST", "/research/uploads"): (401, 403, 403, 200),
    ("POST", "/control/{operation}"): (403, 403, 403, 403),
}


def test_every_route_has_a_rule(services: Services) -> None:
    app = build_app(services, pages=False)
    found = {
        (method, route.path)
        for route in app.routes
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    assert found == set(RULES)


def test_the_matrix(services: Services) -> None:
    add_song(services), add_pairs(services, 6)
    (services.workspace.exports / "x.csv").write_text("a\n")
    write_audio(services.workspace.songs / "0123456789abcdef" / "song.wav", 1.0, 0)
    shown = client_of(services, "ann").get("/api/next").json()
    fill = {
        "{media}": shown["left"]["media"].rpartition("/")[2], "{edit_id}": "pair0000-a",
        "{pair_id}": "pair0000", "{name}": "x.csv", "{operation}": "list_annotators",
        "{run_id}": "nowhere", "{song_id}": "0123456789abcdef", "{number}": "0", "{side}": "a",
    }  # fmt: skip
    vote = {"vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": "left"}
    clients = {name: client_of(services, name) for name in (None, "ann", "bob", "res")}
    for (method, path), wanted in RULES.items():
        for name, status in zip((None, "ann", "bob", "res"), wanted, strict=True):
            client = clients[name]
            if path == "/logout":  # ends the session: of a client of its own
                client = client_of(services, name)
            client.follow_redirects = False
            for key, value in fill.items():
                path = path.replace(key, value)
            undo = {name: str(uuid4()) for name in ("vote_id", "undoes", "check_id")}
            body = vote if path == "/api/vote" else undo
            told = {"name": "a.wav", "size": 9999} if path == "/research/uploads" else None
            answer = client.request(
                method, path, json=body if method == "POST" else None, params=told
            )
            assert answer.status_code == status, (method, path, name, answer.text)
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_gradio_pages_are_behind_their_roles(services: Services) -> None:
    app = build_app(services)
    wanted = {None: (401, 401), "ann": (200, 403), "res": (200, 200)}
    for name, statuses in wanted.items():
        client = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
        if name:
            client.post("/login", data={"name": name, "password": PASSWORD})
        for page, status in zip(("/annotate", "/research"), statuses, strict=True):
            for path in (
                "/",
                "/config",
                "/gradio_api/info",
                "/theme.css",
                "/gradio_api/startup-events",
            ):
                answer = client.get(page + path)
                assert answer.status_code == status, (name, page + path, answer.status_code)
    nobody = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    page = nobody.get("/research", headers={"accept": "text/html"})
    assert page.status_code == 303 and page.headers["location"] == "/login?next=/research"


def test_a_request_from_another_site_is_refused(services: Services) -> None:
    client = client_of(services, "ann")
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = client.post("/api/undo", json={}, headers=headers)
        assert answer.status_code == 403, headers
    own = client.post("/api/undo", json={}, headers={"origin": "http://127.0.0.1"})
    assert own.status_code == 422


def test_control_needs_the_token_and_knows_its_operations(services: Services) -> None:
    client = TestClient(
        build_app(services, pages=False), base_url="http://127.0.0.1", client=("127.0.0.1", 1)
    )
    good = {"authorization": f"Bearer {services.holder.token}"}
    assert client.post("/control/list_songs", json={}, headers=good).json() == {"result": []}
    assert client.post("/control/list_songs", json={}).status_code == 403
    assert client.post("/control/__init__", json={}, headers=good).status_code == 404
    assert client.post("/control/list_songs", json={"x": 1}, headers=good).status_code == 422
    add_song(services)
    services.workspace.cache.rmdir()
    services.workspace.cache.write_bytes(b"no folder: what is written below it is refused")
    beats = {"song_id": "0123456789abcdef", "how": "double"}
    refused = client.post("/control/correct_beats", json=beats, headers=good)
    assert refused.status_code == 503 and "correct_beats: [Errno" in refused.json()["error"]
    far = TestClient(
        build_app(services, pages=False), base_url="http://127.0.0.1", client=("10.0.0.9", 1)
    )
    assert far.post("/control/list_songs", json={}, headers=good).status_code == 403


@pytest.mark.parametrize("name", ["..", "../preferences.duckdb", ".x", "a/b", ""])
def test_downloads_stay_in_their_folder(services: Services, name: str) -> None:
    with pytest.raises(InvalidError):
        services.operations.export_file(name)


def test_sources_are_not_served_and_versions_are_cached(services: Services) -> None:
    client = client_of(services)
    assert client.get("/static/research.py").status_code == 404
    answer = client.get("/static/theme.css")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-cache"
    assert "immutable" in client.get("/static/theme.css?v=1").headers["cache-control"]


def test_media_is_served_in_ranges(services: Services) -> None:
    add_song(services), add_pairs(services, 1)
    client = client_of(services, "ann")
    media = client.get("/api/next").json()["right"]["media"]
    part = client.get(media, headers={"range": "bytes=0-3"})
    assert part.status_code == 206 and part.content == b"fLaC"
    assert part.headers["content-type"] == "audio/flac"
    assert "private" in part.headers["cache-control"]


def test_sign_out_disabling_and_a_new_password_end_sessions(services: Services) -> None:
    client = client_of(services, "ann")
    client.post("/logout")
    assert client.get("/api/me").status_code == 401
    app = build_app(services, pages=False)
    client = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    for change in (
        lambda: services.operations.set_password("ann", PASSWORD),
        lambda: services.operations.set_disabled("ann", True),
    ):
        client.post("/login", data={"name": "ann", "password": PASSWORD})
        assert client.get("/api/me").json() == {"name": "ann", "role": "annotator"}
        change()
        assert client.get("/api/me").status_code == 401
    refused = client.post("/login", data={"name": "ann", "password": PASSWORD})
    assert refused.status_code == 401
    with pytest.raises(ConflictError):
        services.operations.set_disabled("res", True)


def test_a_sign_out_of_nobody_writes_nothing(services: Services) -> None:
    client = client_of(services)
    before = services.store.database.foreign
    for cookie in ("", "session=made-up"):
        answer = client.post("/logout", headers={"cookie": cookie}, follow_redirects=False)
        assert answer.status_code == 303
    assert services.store.database.foreign == before


def test_an_expired_session_is_nobody(services: Services) -> None:
    client = client_of(services, "ann")
    services.store.database.execute("UPDATE sessions SET expires_at = TIMESTAMP '2020-01-01'")
    services.sessions.forget()
    assert client.get("/api/me").status_code == 401


def test_guessing_locks_out_for_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    lock = LockOut(clock=lambda: now[0])
    for _ in range(auth.FREE_FAILURES):
        assert lock.wait_s("x") == 0
        lock.failed("x")
    waits = []
    for _ in range(4):
        waits.append(lock.wait_s("x"))
        now[0] += waits[-1]
        assert lock.wait_s("x") == 0
        lock.failed("x")
    assert waits == [1.0, 2.0, 4.0, 8.0] and lock.wait_s("y") == 0
    lock.succeeded("x")
    assert lock.wait_s("x") == 0
    for _ in range(50):
        lock.failed("y")
    assert lock.wait_s("y") == auth.LONGEST_WAIT_S
    now[0] += auth.FORGOTTEN_S + 1  # a studio's address: an hour later slips begin anew
    lock.failed("y")
    assert lock.wait_s("y") == 0


def test_a_locked_name_is_refused_even_with_the_right_password(services: Services) -> None:
    client = client_of(services)
    for _ in range(auth.FREE_FAILURES + 1):
        answer = client.post("/login", data={"name": "ann", "password": "wrong password"})
    assert answer.status_code == 429 and "try again in" in answer.text
    right = client.post("/login", data={"name": "ann", "password": PASSWORD})
    assert right.status_code == 429 and "session" not in client.cookies


def test_what_is_typed_comes_back_escaped(services: Services) -> None:
    page = client_of(services).post("/login", data={"name": '"><script>x', "password": "y"})
    assert page.status_code == 401 and "<script>x" not in page.text
    page = client_of(services).get("/login?next=//evil.example")
    assert "evil" not in page.text


def test_passwords_are_hashed_with_salt() -> None:
    first, second = hash_password(PASSWORD), hash_password(PASSWORD)
    assert first != second and PASSWORD not in first
    assert check_password(PASSWORD, first) and not check_password("other", first)


def test_the_web_process_loads_no_torch_and_no_librosa() -> None:
    code = (
        "import sys, feedback_app.app, feedback_app.__main__, feedback_app.serve\n"
        "assert not {'torch', 'librosa', 'numba'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
