"""Votes in and out: imports with bad rows, exports read back by other libraries, figures."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import add_pairs, add_song, client_of

from feedback_app.errors import AppError, InvalidError
from feedback_app.services import Services
from feedback_app.snapshots import write_snapshot

CHOICES = ("left", "right", "tie", "both_bad", "skip")


def cast(services: Services, count: int) -> list[dict]:
    """Votes by HTTP, one undone; what was cast, by pair."""
    add_song(services), add_pairs(services, count)
    client, out = client_of(services, "ann"), []
    for index in range(count):
        shown = client.get("/api/next").json()
        choice = CHOICES[index % 5]
        vote = {
            "vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": choice,
            "strength": 1 + index % 3 if choice in ("left", "right") else None,
            "tags": ["good flow"], "comment": 'ein "Ko,mma"\nund <b>', "response_ms": 5,
            "listened": {"first_side": shown["first_side"]},
        }  # fmt: skip
        assert client.post("/api/vote", json=vote).status_code == 200
        out.append(vote)
    undone = out.pop()
    client.post("/api/undo", json={"vote_id": str(uuid4()), "undoes": undone["vote_id"]})
    return out


def frame(path: str, form: str) -> pd.DataFrame:
    if form == "parquet":
        return pd.read_parquet(path)
    if form == "csv":
        return pd.read_csv(path)
    return pd.read_json(path, lines=True)


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_an_export_holds_exactly_the_votes(services: Services, form: str, tmp_path: Path) -> None:
    cast_votes = cast(services, 7)
    made = services.operations.export(form, str(tmp_path))
    table = frame(made["path"], form)
    assert made["rows"] == len(table) == len(cast_votes)
    assert list(table["vote_id"]) == [vote["vote_id"] for vote in cast_votes]
    for row, vote in zip(table.to_dict("records"), cast_votes, strict=True):
        sides = ("b", "a") if row["b_first"] else ("a", "b")
        shown = dict(zip(("left", "right"), sides, strict=True))
        assert row["choice"] == shown.get(vote["choice"], vote["choice"])
        assert (None if pd.isna(row["strength"]) else row["strength"]) == vote["strength"]
        assert row["first_played"] == shown[vote["listened"]["first_side"]]
        assert row["comment"] == vote["comment"] and not row["simulated"]
    again = services.operations.export(form, str(tmp_path / "again"))
    assert again["sha256"] == made["sha256"]
    card = (Path(made["folder"]) / "README.md").read_text(encoding="utf-8")
    assert made["sha256"] in card and f"{len(cast_votes)} rows" in card
    assert not list(tmp_path.glob(".*"))


def test_trl_and_arena_forms(services: Services, tmp_path: Path) -> None:
    votes = cast(services, 7)
    trl = frame(services.operations.export("trl", str(tmp_path))["path"], "jsonl")
    assert list(trl.columns[:4]) == ["prompt", "chosen", "rejected", "margin"]
    decisive = [vote for vote in votes if vote["strength"]]
    assert list(trl["margin"]) == [vote["strength"] for vote in decisive]
    assert all(len(json.loads(row)["actions"]) == 32 for row in trl["chosen"])
    assert (trl["chosen"] != trl["rejected"]).all()
    arena = frame(services.operations.export("arena", str(tmp_path))["path"], "jsonl")
    assert len(arena) == 0  # both edits of every pair are by one version: no battles
    with pytest.raises(InvalidError):
        services.operations.export("xml", str(tmp_path))


def test_a_snapshot_has_the_agreed_columns_and_never_changes(services: Services) -> None:
    cast(services, 6)
    first = write_snapshot(services.store, services.workspace, include_simulated=False)
    second = write_snapshot(services.store, services.workspace, include_simulated=False)
    assert first == second and first.rows == 5
    table = pd.read_parquet(first.path)
    assert list(table.columns) == [
        "vote_id", "pair_id", "song_id", "annotator", "simulated", "choice", "strength", "pool",
        "start_beat", "end_beat", "actions_a", "actions_b", "policy_a", "policy_b", "b_first",
        "first_played", "created_at", "split", "annotator_weight",
    ]  # fmt: skip
    assert table["actions_a"][0].dtype == np.int8 and len(table["actions_a"][0]) == 32
    assert table["start_beat"].dtype == np.int32
    services.store.beats_changed("0123456789abcdef")
    assert write_snapshot(services.store, services.workspace, False).rows == 0


def test_simulated_votes_are_left_out_by_default(services: Services, tmp_path: Path) -> None:
    add_song(services), add_pairs(services, 2)
    vote = {
        "vote_id": str(uuid4()), "pair_id": "pair0000", "annotator": "judge:tight", "kind": "vote",
        "choice": "a", "simulated": True, "source": "simulate", "created_at": "2026-01-01",
    }  # fmt: skip
    services.store.database.write(lambda cursor: services.store.add_vote(cursor, vote))
    services.store.database.execute(
        "INSERT INTO annotators VALUES ('judge:tight', 'annotator', NULL, now(), false, 1)"
    )
    assert services.operations.export("csv", str(tmp_path / "1"))["rows"] == 0
    assert services.operations.export("csv", str(tmp_path / "2"), True)["rows"] == 1
    assert write_snapshot(services.store, services.workspace, False).rows == 0
    assert services.operations.results()["votes_simulated"] == 1
    assert services.operations.pairs_overview()["open"] == 2


def test_an_import_reports_bad_rows_and_takes_the_good_ones(
    services: Services, tmp_path: Path
) -> None:
    add_song(services), add_pairs(services, 3)
    path = tmp_path / "votes.csv"
    path.write_text(
        "pair_id,annotator,choice,strength\n"
        "pair0000,zoë <b>,a,3\n"
        "pair0001,zoë <b>,c,1\n"
        "nowhere,zoë <b>,a,1\n"
        "pair0001,zoë <b>,b,4\n"
        "pair0001,zoë <b>,tie,2\n"
        "pair0001,,a,2\n"
        "pair0000,zoë <b>,b,1\n"
        "pair0001,zoë <b>,a\n"
        "pair0002,zoë <b>,tie,\n",
        encoding="utf-8",
    )
    answer = services.operations.import_votes(str(path))
    assert answer["accepted"] == 2
    assert [row["line"] for row in answer["rejected"]] == [3, 4, 5, 6, 7, 8, 9]
    reasons = " | ".join(row["reason"] for row in answer["rejected"])
    for part in ("choice 'c'", "no pair 'nowhere'", "strength '4'", "no strength", "already"):
        assert part in reasons
    again = services.operations.import_votes(str(path))
    assert again["accepted"] == 0
    assert services.operations.pairs_overview() == {"open": 1, "done": 2, "total": 3}


def test_json_lines_import_and_files_that_are_no_votes(services: Services, tmp_path: Path) -> None:
    add_song(services), add_pairs(services, 2)
    path = tmp_path / "votes.jsonl"
    good = {"pair_id": "pair0001", "annotator": "zoe", "choice": "b", "strength": 2}
    path.write_text(f"{{\n[1]\n\n{json.dumps(good)}\n")
    answer = services.operations.import_votes(str(path))
    assert answer["accepted"] == 1 and [row["line"] for row in answer["rejected"]] == [1, 2]
    for name, data in (("x.csv", b"\xff\xfe\x00"), ("y.csv", b"a,b\n1,2\n"), ("z.pdf", b"x")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AppError):
            services.operations.import_votes(str(tmp_path / name))
    with pytest.raises(AppError):
        services.operations.import_votes(str(tmp_path / "missing.csv"))


def test_pairs_are_handed_out_with_their_audio(services: Services, tmp_path: Path) -> None:
    add_song(services), add_pairs(services, 2)
    made = services.operations.export_pairs(str(tmp_path / "out"))
    rows = [json.loads(line) for line in Path(made["path"]).read_text().splitlines()]
    assert len(rows) == made["pairs"] == 2
    for row in rows:
        assert row["passage"] == {"start_beat": 0, "end_beat": 32, "start_s": 0.0, "end_s": 16.0}
        for side in ("edit_a", "edit_b", "original"):
            assert (tmp_path / "out" / row[side]["audio_path"]).is_file()
    with pytest.raises(AppError):
        services.operations.export_pairs(str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["votes.zip", "votes.npz"])
def test_an_archive_that_cannot_be_unpacked_is_refused_in_words(
    services: Services, tmp_path: Path, name: str
) -> None:
    """Its deflated data begin with a block of the reserved type (RFC 1951, 3.2.3)."""
    path, member = tmp_path / name, "preferences.csv" if name == "votes.zip" else "votes.npy"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, "pair_id,annotator,choice\n" * 100)
    data = bytearray(path.read_bytes())
    data[30 + len(member)] = 0xFF
    path.write_bytes(data)
    with pytest.raises(InvalidError, match=name):
        services.operations.import_votes(str(path))
