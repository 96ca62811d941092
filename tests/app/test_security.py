"""Limits, bodies, cookies, and texts with script or line breaks in them on their way out."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import time
import zipfile
from pathlib import Path
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_pairs, add_song, client_of, write_audio

from feedback_app.auth import generate_password
from feedback_app.errors import InvalidError
from feedback_app.limits import Buckets
from feedback_app.middleware import BODY_LIMIT, PAGE_BODY_LIMIT
from feedback_app.services import Services, open_services
from feedback_app.uploads import Uploads

HOSTILE = '=cmd|\'/c x\'!A1"; <script>alert(1)</script>\r\n{"level": "error"}\x1b[31m'


def opened(root: Path, **settings: object) -> Services:
    services = open_services(root, **PLAIN, **settings)
    for name, role in (("ann", "annotator"), ("res", "researcher")):
        services.operations.add_user(name, role, PASSWORD)
    return services


def test_a_bucket_gives_a_minutes_worth_at_once_and_then_evenly() -> None:
    now = [0.0]
    buckets = Buckets(clock=lambda: now[0])
    assert [buckets.wait_s("a", 6) for _ in range(6)] == [0.0] * 6
    assert buckets.wait_s("a", 6) == 10.0  # six a minute: one every ten seconds
    assert buckets.wait_s("b", 6) == 0.0
    now[0] = 10.0
    assert buckets.wait_s("a", 6) == 0.0 and buckets.wait_s("a", 6) == 10.0
    now[0] = 1e6
    assert [buckets.wait_s("a", 6) for _ in range(7)] == [0.0] * 6 + [10.0]


def test_too_many_votes_are_refused_in_words_and_nothing_is_lost(tmp_path: Path) -> None:
    services = opened(tmp_path, votes_per_minute=3)
    add_song(services), add_pairs(services, 6)
    client, cast = client_of(services, "ann"), []
    shown = client.get("/api/next").json()
    for _ in range(3):
        vote = {"vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": "tie"}
        answer = client.post("/api/vote", json=vote)
        assert answer.status_code == 200
        cast.append(vote["vote_id"])
        shown = answer.json()["next"]
    vote = {"vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": "tie"}
    refused = client.post("/api/vote", json=vote)
    assert refused.status_code == 429
    assert "too many votes" in refused.json()["error"]
    assert 0 < int(refused.headers["retry-after"]) <= 20
    other = client_of(services, "res")  # somebody else is not held up
    assert other.post("/api/undo", json={}).status_code == 422
    assert [row["vote_id"] for row in client.get("/api/my-votes").json()] == cast[::-1]
    services.close()


def test_signing_in_too_often_from_one_address(tmp_path: Path) -> None:
    services = opened(tmp_path, sign_ins_per_minute=4)
    client = client_of(services)
    for _ in range(4):
        answer = client.post("/login", data={"name": "ann", "password": PASSWORD})
    page = client.post(
        "/login", data={"name": "ann", "password": PASSWORD}, headers={"accept": "text/html"}
    )
    assert answer.status_code != 429 and page.status_code == 429
    assert "too many attempts to sign in" in page.text and "<!doctype html>" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    services.close()


def test_too_many_uploads(tmp_path: Path) -> None:
    services = opened(tmp_path, uploads_per_minute=2)
    client = client_of(services, "res")
    path = "/research/gradio_api/upload"
    assert [client.post(path).status_code for _ in range(3)] == [404, 404, 429]  # no pages mounted
    services.close()


@pytest.mark.parametrize(
    ("path", "limit", "status"),
    [
        ("/api/vote", BODY_LIMIT, 413), ("/api/headphones", BODY_LIMIT, 413),
        ("/login", BODY_LIMIT, 413), ("/control/status", PAGE_BODY_LIMIT, 403),
    ],
)  # fmt: skip
def test_a_long_body_is_cut_off(services: Services, path: str, limit: int, status: int) -> None:
    """With a content-length, and in pieces without one."""
    client = client_of(services, "ann")
    form = {"content-type": "application/x-www-form-urlencoded"}
    pieces = (b"x" * 65536 for _ in range(limit // 65536 + 1))
    assert client.post(path, content=pieces, headers=form).status_code == status
    told = client.post(path, content=b"x" * (limit + 1))
    assert told.status_code == 413 and "at most" in told.json()["error"]


def test_a_command_may_name_thousands_of_songs(services: Services, tmp_path: Path) -> None:
    app = client_of(services).app
    client = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    paths = [str(tmp_path / f"{'a long name ' * 5}{number}.wav") for number in range(3000)]
    headers = {"authorization": f"Bearer {services.holder.token}"}
    answer = client.post("/control/add_songs", json={"paths": paths}, headers=headers)
    assert answer.status_code == 404 and "no such file" in answer.json()["error"]


def test_an_upload_has_a_limit_as_a_whole(tmp_path: Path) -> None:
    services = opened(tmp_path, max_upload_total_mb=1)
    client = client_of(services, "res")
    answer = client.post("/research/gradio_api/upload", content=b"x" * (1024 * 1024 + 1))
    assert answer.status_code == 413 and "at most 1048576 bytes" in answer.json()["error"]
    services.close()


def test_only_a_hash_of_a_session_is_kept_and_its_cookie_is_bound(services: Services) -> None:
    client = client_of(services)
    client.follow_redirects = False
    cookie = client.post("/login", data={"name": "ann", "password": PASSWORD}).headers["set-cookie"]
    token = re.match(r"session=([^;]+)", cookie)
    assert token and "HttpOnly" in cookie and "SameSite=lax" in cookie
    stored = services.store.database.rows("SELECT * FROM sessions")
    assert token[1] not in str(stored) and re.fullmatch(r"[0-9a-f]{64}", stored[0]["token_hash"])
    assert stored[0]["expires_at"] > stored[0]["created_at"]
    hashes = services.store.database.rows("SELECT password FROM annotators")
    assert all(row["password"].startswith("scrypt$16384$8$1$") for row in hashes)


def test_over_tls_the_cookie_and_the_browser_stay_with_tls(services: Services) -> None:
    app = client_of(services).app
    client = TestClient(app, base_url="https://study.example", follow_redirects=False)
    answer = client.post("/login", data={"name": "ann", "password": PASSWORD})
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age=31536000" in answer.headers["strict-transport-security"]
    plain = client_of(services).get("/login")
    assert "strict-transport-security" not in plain.headers


def test_uploads_lie_in_a_private_folder_and_go_after_a_day(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.prepare()
    assert uploads.folder.stat().st_mode & 0o077 == 0
    for name in ("old", "new"):
        (uploads.folder / name).mkdir()
        (uploads.folder / name / "x.wav").write_bytes(b"x")
    outside = tmp_path / "song.wav"
    outside.write_bytes(b"kept")
    (uploads.folder / "old" / "link").symlink_to(outside)
    past = time.time() - 2 * 86400
    for path in (*(uploads.folder / "old").iterdir(), uploads.folder / "old"):
        os.utime(path, (past, past), follow_symlinks=False)
    assert uploads.tidy() == 2
    left = sorted(p.name for p in uploads.folder.rglob("*"))
    assert left in (["new", "x.wav"], ["new", "old", "x.wav"])  # an emptied folder is new again
    assert outside.read_bytes() == b"kept" and uploads.tidy() == 0


def test_made_up_passwords_do_not_repeat() -> None:
    made = {generate_password() for _ in range(500)}
    assert len(made) == 500 and all(len(password) == 14 for password in made)


def voted(services: Services, comment: str, name: str = "ann") -> None:
    client = client_of(services, name)
    shown = client.get("/api/next").json()
    vote = {"vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": "left",
            "comment": comment, "tags": [comment[:60]]}  # fmt: skip
    assert client.post("/api/vote", json=vote).status_code == 200


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_exports_hold_hostile_texts_and_stay_well_formed(
    services: Services, tmp_path: Path, form: str
) -> None:
    add_song(services, title=HOSTILE), add_pairs(services, 2)
    voted(services, HOSTILE)
    made = services.operations.export(form, str(tmp_path))
    assert made["rows"] == 1
    path = Path(made["path"])
    if form == "csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    elif form == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(path).to_pylist()
    assert len(rows) == 1
    kept = f"'{HOSTILE}" if form == "csv" else HOSTILE  # behind an apostrophe it is no formula
    assert kept in [str(value) for value in rows[0].values()]


def test_the_card_of_an_export_has_no_markup_of_strangers(
    services: Services, tmp_path: Path
) -> None:
    evil = "<img src=x onerror=a()>|[x](javascript:a())\n# head"
    row = {"pair_id": "p", "annotator": "=<b>", "choice": "a", "policy_a": evil, "policy_b": "v"}
    (tmp_path / "votes.jsonl").write_text(json.dumps(row) + "\n")
    assert services.operations.import_votes(str(tmp_path / "votes.jsonl"))["accepted"] == 1
    made = services.operations.export("jsonl", str(tmp_path), annotators=["=<b>", evil])
    assert made["rows"] == 1
    card = (Path(made["folder"]) / "README.md").read_text()
    assert "&lt;img src=x" in card and "annotators: =&lt;b&gt;" in card
    for part in ("<img", "<b>", "[x]", "\n# head", ">|"):
        assert part not in card, part


def test_imports_take_nothing_from_outside_of_their_folder(
    services: Services, tmp_path: Path
) -> None:
    folder, secret = tmp_path / "export", tmp_path / "secret.wav"
    write_audio(secret, 1.0, seed=0)
    write_audio(folder / "good.wav", 1.0, seed=1)
    (folder / "link.wav").symlink_to(secret)
    evil = ["../secret.wav", str(secret), "link.wav", "x\0.wav", "x" * 300 + ".wav", "."]
    named = [(f"p{number}", name) for number, name in enumerate(evil)]
    rows = [
        {"pair_id": pair, "annotator": "zoe", "choice": "a", "policy_a": "v", "policy_b": "w",
         "audio_a": name} for pair, name in [*named, ("../../evil", "good.wav")]
    ]  # fmt: skip
    (folder / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert services.operations.import_votes(str(folder))["accepted"] == len(rows)
    edits = services.store.database.rows("SELECT edit_id, audio_path FROM edits WHERE policy = 'v'")
    taken = {row["edit_id"]: row["audio_path"] for row in edits}
    assert {taken[f"{pair}-a"] for pair, _ in named} == {""}
    kept = services.workspace.resolve(taken["../../evil-a"]).resolve()
    assert kept.is_relative_to(services.workspace.root / "imported")
    assert kept.read_bytes() == (folder / "good.wav").read_bytes()
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.write(folder / "preferences.jsonl", "preferences.jsonl")
        archive.writestr("../../../../../../tmp/../escaped.txt", "x")
        archive.writestr(str(tmp_path / "escaped.txt"), "x")
    again = services.operations.import_votes(str(tmp_path / "export.zip"))
    assert again["accepted"] == 0 and not list(tmp_path.rglob("escaped.txt"))
    assert not Path("/escaped.txt").exists()


@pytest.mark.parametrize("name", ["a\nb", "x\r", "\x1b[31m", "  a", "a\u202eb", "", "x" * 61])
def test_names_that_could_forge_a_line_are_refused(services: Services, name: str) -> None:
    with pytest.raises(InvalidError, match="cannot be a name"):
        services.operations.add_user(name, "annotator", PASSWORD)


@pytest.mark.parametrize("name", ["../x.wav", "..%2fx.wav", "/etc/x.wav", "a\nb.wav"])
def test_songs_stay_in_their_folder_whatever_their_name(
    services: Services, tmp_path: Path, name: str
) -> None:
    source = tmp_path / "in" / name.replace("/", "_")
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(b"RIFF" + name.encode())
    services.operations.add_songs([str(source)])
    kept = [path for path in services.workspace.songs.rglob("*") if path.is_file()]
    assert len(kept) == 1 and kept[0].resolve().is_relative_to(services.workspace.songs)
