"""What a browser receives before a vote: nothing in it tells which edit is which, or what for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_pairs, add_song
from test_votes_quality import vote

from feedback_app.app import build_app
from feedback_app.services import Services, open_services
from rlhf_core.audio.io import write_audio

SECRETS = {
    "policy": "policy_v9871", "preset": "presetqueer", "temperature": 1.23457, "seed": 918273645,
}  # fmt: skip
TITLE, SONG, RUN = "Lied der Nachtigall", "feedbeefcafe0123", "generate-29990101-000000-abcdef"


def wav(path: Path) -> np.ndarray:
    import soundfile

    return np.atleast_2d(soundfile.read(path, dtype="float32")[0]).T


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Ordinary, chosen, cross and gold pairs, as runs leave them, with telling names and dates."""
    made = open_services(tmp_path / "w", **(PLAIN | {"gold_rate": 0.5, "repeat_rate": 0.3,
                                                     "repeat_gap": 1}))  # fmt: skip
    made.operations.add_user("ann", "annotator", PASSWORD)
    add_song(made, SONG, title=TITLE), add_pairs(made, 16, SONG)
    update = ", ".join(f"{name} = ?" for name in SECRETS)
    made.store.database.execute(f"UPDATE edits SET {update}", list(SECRETS.values()))
    for index, pool in enumerate(["random", "chosen", "cross", "gold"] * 4):
        made.store.database.execute(
            "UPDATE pairs SET pool = ?, run_id = ? WHERE pair_id = ?",
            [pool, RUN, f"pair{index:04d}"],
        )
    for folder in (made.workspace.runs / "made" / "audio").iterdir():
        for age, name in enumerate(("original", "a", "b")):  # written anew by the product's writer
            path = folder / f"{name}.flac"
            write_audio(path, wav(path), 8000)
            os.utime(path, (1e9 + 3600 * age, 1e9 + 3600 * age))
    yield made
    made.close()


def words() -> list[str]:
    """Whatever would tell."""
    kinds = ["random", "chosen", "cross", "broad", "gold", "broken", "repeat", "b_first", "edit_",
             "pair0", "reason", "information", "actions", "run_id"]  # fmt: skip
    return [*kinds, *map(str, SECRETS.values()), TITLE, SONG, RUN, "generate-"]


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """The metadata blocks of a FLAC file (RFC 9639, section 8)."""
    assert data[:4] == b"fLaC"
    found, at, last = [], 4, False
    while not last:
        last, kind = bool(data[at] & 0x80), data[at] & 0x7F
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        found.append((kind, data[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


def test_nothing_that_is_received_before_a_vote_tells(services: Services) -> None:
    client = TestClient(build_app(services), base_url="http://127.0.0.1")
    client.post("/login", data={"name": "ann", "password": PASSWORD})
    shown = client.get("/api/next").json()
    page = client.get("/annotate/")
    config = client.get("/annotate/config")
    assert page.status_code == config.status_code == 200
    for text in (page.text, config.text):
        for word in ("pair0", *map(str, SECRETS.values()), TITLE, SONG, RUN):
            assert word not in text, word
    seen, kinds = [], set()
    while "assignment_id" in shown:
        text = json.dumps(shown)
        for word in words():
            assert word not in text, word
        sounds = {side: client.get(shown[side]["media"]) for side in ("left", "right", "original")}
        seen.append((shown, sounds))
        vote(client, shown)
        shown = client.get("/api/next").json()
    rows = services.store.database.rows(
        "SELECT assignment_id, reason, pool FROM assignments JOIN pairs USING (pair_id)"
    )
    kinds = {row["reason"] for row in rows}
    assert {"random", "cross", "gold", "repeat"} <= kinds, "all of these were among them"
    check_sounds([sounds for _, sounds in seen])
    assert len({str(shape(shown)) for shown, _ in seen}) == 1, "every pair looks alike"


def check_sounds(seen: list[dict[str, Any]]) -> None:
    """Headers and metadata blocks of every sound that was fetched."""
    told, names = set(), set()
    for sounds in seen:
        for answer in sounds.values():
            assert answer.status_code == 200
            own = {
                name: value
                for name, value in answer.headers.items()
                if name not in ("content-length", "etag", "date", "x-request-id")
            }
            assert "content-disposition" not in own
            told.add(json.dumps(own, sort_keys=True))
            media = str(answer.url).rsplit("/", 1)[1]
            assert answer.headers["etag"] == f'"{media}"' and len(media) == 32
            assert media not in names, "every sound of every assignment has its own name"
            names.add(media)
            for kind, content in blocks(answer.content):
                assert kind in (0, 1, 3, 4), "STREAMINFO, padding, seek points, an empty comment"
                if kind == 4:
                    size = int.from_bytes(content[:4], "little")
                    assert content[4 : 4 + size].startswith(b"reference libFLAC")
                    assert content[4 + size :] == bytes(4), "no comment at all"
    assert len(told) == 1, told


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return type(value).__name__


def test_a_part_of_a_sound_can_be_asked_for(services: Services) -> None:
    client = TestClient(build_app(services, pages=False), base_url="http://127.0.0.1")
    client.post("/login", data={"name": "ann", "password": PASSWORD})
    media = client.get("/api/next").json()["left"]["media"]
    whole = client.get(media)
    part = client.get(media, headers={"range": "bytes=10-19", "if-range": whole.headers["etag"]})
    assert part.status_code == 206 and part.content == whole.content[10:20]
    other = client.get(media, headers={"range": "bytes=10-19", "if-range": '"x"'})
    assert other.status_code == 200 and other.content == whole.content
