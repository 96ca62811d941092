"""Songs: sent in pieces, split once and for all, removed with what that means said before."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_pairs, add_song, client_of, write_audio

from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.receiving import Receiving
from feedback_app.services import Services, open_services
from feedback_app.snapshots import write_snapshot

SONG = "0123456789abcdef"


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Services]:
    """A workspace whose runs end at once, having done nothing: songs stay as they came."""
    opened = open_services(
        tmp_path / "workspace",
        commands=lambda _, told, __: (["true"], told),
        max_upload_mb=1,
        **PLAIN,
    )
    opened.operations.add_user("res", "researcher", PASSWORD)
    yield opened
    opened.close()


def send(client: TestClient, data: bytes, offset: int, size: int, name: str = "a.wav") -> Any:
    told = {"name": name, "size": size, "modified": 7, "offset": offset}
    return client.post("/research/uploads", params=told, content=data)


def test_a_song_in_pieces_goes_on_where_it_broke(idle: Services, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 8.0, seed=1)
    data = (tmp_path / "a.wav").read_bytes()
    client = client_of(idle, "res")
    first = send(client, data[:50_000], 0, len(data))
    assert first.json() | {"key": ""} == {"received": 50_000, "done": False, "key": ""}
    with pytest.raises(NotFoundError, match="not complete"):
        idle.operations.add_uploads([first.json()["key"]])
    again = send(client, data[:50_000], 0, len(data))  # the page did not hear of the first
    assert again.status_code == 409 and again.json()["received"] == 50_000
    later = client_of(idle, "res")  # after a reload: asks, then goes on
    assert send(later, b"", 0, len(data)).json()["received"] == 50_000
    last = send(later, data[50_000:], 50_000, len(data)).json()
    assert last["done"] and last["received"] == len(data)
    answer = idle.operations.add_uploads([last["key"]])
    assert answer["added"] == 1 and answer["skipped"] == []
    (song,) = idle.operations.list_songs()
    assert idle.operations.song_audio(song["song_id"]).read_bytes() == data
    assert not list(Receiving(idle.workspace.root, idle.settings).folder.glob("*"))
    send(later, data, 0, len(data), "copy.wav")  # the same sound by another name
    key = send(later, b"", 0, len(data), "copy.wav").json()["key"]
    assert "in the library already" in idle.operations.add_uploads([key])["skipped"][0]["reason"]


def test_a_name_that_is_not_utf8_keeps_no_song_out(idle: Services, tmp_path: Path) -> None:
    folder = tmp_path / "old disk"
    write_audio(folder / "plain.wav", 4.0, seed=1)
    write_audio(tmp_path / "x.wav", 4.0, seed=2)
    (tmp_path / "x.wav").rename(os.fsdecode(os.fsencode(folder) + b"/Gr\xfc\xdfe.wav"))  # Latin-1
    answer = idle.operations.add_songs([str(folder)])
    assert answer["added"] == 2 and answer["skipped"] == []
    songs = {song["title"]: song["song_id"] for song in idle.operations.list_songs()}
    assert set(songs) == {"plain.wav", "Gr??e.wav"}
    assert idle.operations.song_audio(songs["Gr??e.wav"]).is_file()
    again = idle.operations.add_songs([str(folder)])["skipped"]
    json.dumps(again, ensure_ascii=False).encode()  # and what is told can be printed
    assert {Path(one["path"]).name for one in again} == set(songs)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("../a.wav", 10, "no name of a file"), (".a.wav", 10, "no name"), ("", 10, "no name"),
        ("a\x00.wav", 10, "control characters"), ("a.exe", 10, "not .wav"),
        ("a.wav", 0, "between 0 and 1 MB"), ("a.wav", 2 * 1024 * 1024, "max_upload_mb"),
    ],
)  # fmt: skip
def test_what_is_no_song_is_refused_in_words(
    idle: Services, name: str, size: int, words: str
) -> None:
    answer = send(client_of(idle, "res"), b"x" * 10, 0, size, name)
    assert answer.status_code == 422 and words in answer.json()["error"]
    assert not (idle.workspace.root / "uploads" / "parts").exists()


def test_more_than_was_announced_is_not_taken(idle: Services) -> None:
    client = client_of(idle, "res")
    assert send(client, b"x" * 11, 0, 10).status_code == 409
    assert send(client, b"x" * 4, 0, 10).json()["received"] == 4
    assert send(client, b"x" * 7, 4, 10).json()["received"] == 4
    for key in ("../../songs", "", "x" * 32, "0" * 32):
        with pytest.raises(NotFoundError):
            idle.operations.add_uploads([key])


def test_all_uploads_together_are_bounded(tmp_path: Path) -> None:
    limits = {"max_upload_mb": 1, "max_upload_total_mb": 1}
    services = open_services(tmp_path / "small", **PLAIN, **limits)
    try:
        services.operations.add_user("res", "researcher", PASSWORD)
        client = client_of(services, "res")
        assert send(client, b"x" * 700_000, 0, 900_000).status_code == 200
        full = send(client, b"x" * 700_000, 0, 900_000, "b.wav")
        assert full.status_code == 503 and "max_upload_total_mb" in full.json()["error"]
    finally:
        services.close()


def test_the_split_is_fixed_by_the_first_pair(services: Services) -> None:
    add_song(services)
    services.operations.set_split(SONG, "test")
    services.operations.set_split(SONG, "train")
    add_pairs(services, 1)
    services.operations.set_split(SONG, "train")  # no change
    with pytest.raises(ConflictError, match="stays a train song: there are 1 pairs"):
        services.operations.set_split(SONG, "test")
    with pytest.raises(InvalidError):
        services.operations.set_split(SONG, "both")
    assert services.operations.list_songs()[0]["split"] == "train"
    assert services.operations.list_songs()[0]["pairs"] == 1


def vote_on(services: Services, pairs: list[str], tmp_path: Path) -> None:
    rows = [f"{pair},{who},a,2" for pair in pairs for who in ("zoe", "yan")]
    votes = tmp_path / "votes.csv"
    votes.write_text("pair_id,annotator,choice,strength\n" + "\n".join(rows) + "\n", "utf-8")
    services.operations.import_votes(str(votes))


def test_a_removed_song_leaves_its_votes_and_nothing_to_hear(
    services: Services, tmp_path: Path
) -> None:
    add_song(services)
    audio = services.workspace.songs / SONG / "song.wav"
    write_audio(audio, 1.0, 0)
    (services.workspace.cache / f"{SONG}.npz").write_bytes(b"x")
    pairs = add_pairs(services, 3)
    vote_on(services, pairs[:2], tmp_path)
    told = services.operations.remove_song(SONG)
    assert not told["removed"] and audio.exists()
    assert (told["pairs"], told["votes"], told["people"], told["files"]) == (3, 4, 2, 2 + 3 * 3)
    client = client_of(services, "ann")
    shown = client.get("/api/next").json()
    assert services.operations.remove_song(SONG, confirmed=True)["removed"]
    assert not audio.parent.exists() and not list(services.workspace.cache.glob("*"))
    assert not list((services.workspace.runs / "made").rglob("*.flac"))
    assert client.get(shown["left"]["media"]).status_code == 404
    assert client_of(services, "bob").get("/api/next").json()["empty"]
    assert services.operations.list_songs() == []
    assert write_snapshot(services.store, services.workspace, False).rows == 0
    kept = services.operations.sql("SELECT count(*) AS n FROM votes")
    assert kept["rows"][0][0] in (4, "4")
    for act in (services.operations.song_view, services.operations.song_audio):
        with pytest.raises(NotFoundError, match="was removed"):
            act(SONG)


def test_a_removed_song_comes_back_without_its_old_votes(idle: Services, tmp_path: Path) -> None:
    source = tmp_path / "a.wav"
    write_audio(source, 8.0, seed=3)
    idle.operations.add_songs([str(source)])
    (song,) = idle.operations.list_songs()
    idle.jobs.poll()
    while idle.store.open_runs():
        idle.jobs.poll()
    pairs = add_pairs(idle, 1, song["song_id"])
    vote_on(idle, pairs, tmp_path)
    idle.operations.remove_song(song["song_id"], confirmed=True)
    assert idle.operations.add_songs([str(source)])["added"] == 1
    assert [row["song_id"] for row in idle.operations.list_songs()] == [song["song_id"]]
    assert write_snapshot(idle.store, idle.workspace, False).rows == 0


def test_a_song_is_not_removed_from_under_a_run(tmp_path: Path) -> None:
    slow = open_services(
        tmp_path / "slow", commands=lambda _, told, __: (["sleep", "60"], told), **PLAIN
    )
    try:
        add_song(slow), add_pairs(slow, 1)
        run_id = slow.jobs.submit("generate", {"count": 1})
        assert not slow.operations.remove_song(SONG)["removed"]
        with pytest.raises(ConflictError, match=run_id):
            slow.operations.remove_song(SONG, confirmed=True)
        assert len(slow.operations.list_songs()) == 1
        slow.operations.cancel_run(run_id)
    finally:
        slow.close()
