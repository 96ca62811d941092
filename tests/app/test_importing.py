"""Imports into another workspace: what keeps apart, what is refused, what meets again."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent))

from conftest import fresh
from votes_of_all_kinds import PAIRS, VOTES, exported, fill

from feedback_app.errors import InvalidError
from feedback_app.services import Services


@pytest.fixture
def filled(services: Services) -> Services:
    fill(services, PAIRS, VOTES)
    return services


def test_versions_of_another_workspace_keep_apart(filled: Services, tmp_path: Path) -> None:
    path = exported(filled, "parquet", tmp_path)
    with closing(fresh(tmp_path / "there")) as there:
        there.store.database.execute(
            "INSERT INTO policies (version, path, status, created_at)"
            " VALUES ('policy_v1', 'x', 'active', now())"
        )
        answer = there.operations.import_votes(str(path))
        assert answer["rejected"] and "'policy_v1' is the name" in answer["rejected"][0]["reason"]
        rest = there.operations.import_votes(str(path), versions_as="lab/")
        assert rest["accepted"] == len(answer["rejected"])
        versions = there.operations.export_choices()["versions"]
        assert "lab/policy_v1" in versions and "policy_v1" not in versions


def test_files_that_are_no_exports_are_refused(services: Services, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "bad.npz").write_bytes(b"PK")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    buffer = io.BytesIO()
    np.savez(buffer, votes=np.array([{}], dtype=object), lengths=np.array([1]))
    (tmp_path / "pickle.npz").write_bytes(buffer.getvalue())
    for name in ("empty", "bad.zip", "bad.parquet", "bad.npz", "other.parquet", "pickle.npz"):
        with pytest.raises(InvalidError):
            services.operations.import_votes(str(tmp_path / name))


def test_a_song_known_from_votes_is_added_with_its_file(filled: Services, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 8000)
    soundfile.write(tmp_path / "take.wav", noise, 8000)
    digest = hashlib.sha256((tmp_path / "take.wav").read_bytes()).hexdigest()[:16]
    row = json.loads(exported(filled, "jsonl", tmp_path).read_text(encoding="utf-8").split("\n")[0])
    (tmp_path / "one.jsonl").write_text(json.dumps(row | {"song_id": digest}) + "\n")
    with closing(fresh(tmp_path / "there")) as there:
        there.operations.import_votes(str(tmp_path / "one.jsonl"))
        assert there.store.song(digest)["status"] == "failed"
        there.jobs._build = lambda *_: (["true"], {"songs": [digest]})
        assert there.operations.add_songs([str(tmp_path / "take.wav")])["added"] == 1
        song = there.store.song(digest)
        assert there.workspace.resolve(song["path"]).is_file() and song["title"] == "take.wav"
