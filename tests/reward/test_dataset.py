"""Snapshots: what is right is read, what is wrong is named by row and column."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rlhf_core.errors import DataError
from rlhf_core.reward.dataset import SNAPSHOT_COLUMNS, check_songs, read_snapshot
from rlhf_core.types import AudioState


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    values = {
        "vote_id": f"vote{number}",
        "pair_id": f"pair{number}",
        "song_id": "synthetic0000000",
        "annotator": "ann",
        "simulated": False,
        "choice": "a",
        "strength": 2,
        "pool": "random",
        "start_beat": 16,
        "end_beat": 48,
        "actions_a": np.zeros(32, dtype=np.int8),
        "actions_b": np.ones(32, dtype=np.int8),
        "policy_a": "policy_v1",
        "policy_b": "policy_v1",
        "b_first": True,
        "first_played": None,
        "created_at": pd.Timestamp("2026-01-01"),
        "split": "train",
    }
    return {**values, **changes}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows, columns=list(SNAPSHOT_COLUMNS))
    frame["strength"] = frame["strength"].astype("Int8")
    frame.to_parquet(path)
    return path


def test_a_good_snapshot_is_read_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.parquet", [row(), row(1, choice="tie", strength=None)])
    dataset = read_snapshot(path)
    first, second = dataset.votes
    assert (first.passage.start_beat, first.passage.n_beats, first.strength) == (16, 32, 2)
    assert first.b_first and first.actions_b.tolist() == [1] * 32
    assert second.strength is None and not second.decisive
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"choice": "left"}, "choice"),
        ({"strength": 4}, "strength"),
        ({"pool": "lucky"}, "pool"),
        ({"annotator": ""}, "annotator"),
        ({"end_beat": 18}, "end_beat"),
        ({"actions_a": np.zeros(31, dtype=np.int8)}, "actions_a"),
        ({"actions_b": np.full(32, 10, dtype=np.int8)}, "actions_b"),
        ({"split": "validation"}, "split"),
    ],
)
def test_a_wrong_value_is_named_with_row_and_column(
    tmp_path: Path, changes: dict[str, Any], column: str
) -> None:
    path = write(tmp_path / "votes.parquet", [row(), row(1, **changes)])
    with pytest.raises(DataError, match=f"row 1, column {column}"):
        read_snapshot(path)


def test_missing_columns_doubled_votes_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "votes.parquet"
    pd.DataFrame([row()]).drop(columns=["pool", "split"]).to_parquet(path)
    with pytest.raises(DataError, match="column pool, split missing"):
        read_snapshot(path)
    with pytest.raises(DataError, match="'vote0' stands on more than one row"):
        read_snapshot(write(path, [row(), row()]))
    path.write_text("not parquet")
    with pytest.raises(DataError, match="not a readable Parquet"):
        read_snapshot(path)
    with pytest.raises(DataError, match="no such snapshot"):
        read_snapshot(tmp_path / "missing.parquet")


def test_usable_leaves_out_what_may_not_be_learned_from(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, choice="skip"),
        row(2, simulated=True),
        row(3, split="test"),
        row(4, choice="both_bad", strength=None),
    ]
    dataset = read_snapshot(write(tmp_path / "votes.parquet", rows))
    kept = [vote.vote_id for vote in dataset.usable(include_simulated=False)]
    assert kept == ["vote0", "vote4"]
    assert len(dataset.usable(include_simulated=True)) == 3
    assert len(dataset.usable(include_simulated=False, split=None)) == 3


def test_no_usable_vote_is_an_error_that_counts(tmp_path: Path) -> None:
    rows = [row(0, simulated=True), row(1, choice="skip", simulated=True)]
    dataset = read_snapshot(write(tmp_path / "votes.parquet", rows))
    with pytest.raises(DataError, match=r"among 2: 2 simulated, 1 can't judge.*include_simulated"):
        dataset.usable(include_simulated=False)


def test_unknown_songs_and_passages_past_the_end_are_named(
    tmp_path: Path, songs: list[AudioState]
) -> None:
    votes = read_snapshot(write(tmp_path / "votes.parquet", [row(), row(1)])).votes
    with pytest.raises(DataError, match=r"synthetic0000000 \(2 votes\)"):
        check_songs(votes, {})
    check_songs(votes, {songs[0].song_id: songs[0]})
    late = read_snapshot(
        write(tmp_path / "late.parquet", [row(start_beat=168, end_beat=200)])
    ).votes
    with pytest.raises(DataError, match="ends at beat 200"):
        check_songs(late, {songs[0].song_id: songs[0]})
