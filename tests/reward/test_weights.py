"""Annotators' weights: from the snapshot's column into the likelihood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlhf_core.errors import DataError
from rlhf_core.reward.dataset import read_snapshot
from rlhf_core.reward.measured import as_numbers
from rlhf_core.reward.posterior import HeadPrior, fit_head
from tests.reward.test_dataset import row, write


def weighted(path: Path, rows: list[dict], weights: list[float]) -> Path:
    frame = pd.read_parquet(write(path, rows))
    frame["annotator_weight"] = weights
    frame.to_parquet(path)
    return path


def edits(number: int) -> dict:
    actions = np.zeros(32, dtype=np.int8)
    actions[number] = 1
    return {"actions_a": actions, "choice": "ab"[number % 3 == 0], "annotator": "ann"}


def test_two_votes_of_half_weight_are_one_vote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    once = [row(i, **edits(i)) for i in range(12)]
    twice = [row(i + 100 * again, **edits(i)) for i in range(12) for again in range(2)]
    whole = read_snapshot(weighted(tmp_path / "once.parquet", once, [1.0] * 12)).votes
    halves = read_snapshot(weighted(tmp_path / "twice.parquet", twice, [0.5] * 24)).votes
    phi = {key: rng.normal(size=3) for vote in whole for key in (vote.edit_a, vote.edit_b)}
    prior = HeadPrior(np.eye(3), np.eye(3))
    one, two = (fit_head(as_numbers(votes, phi), prior) for votes in (whole, halves))
    assert two.mean == pytest.approx(one.mean, abs=1e-6)
    assert two.covariance == pytest.approx(one.covariance, abs=1e-6)
    plain = read_snapshot(write(tmp_path / "plain.parquet", twice)).votes
    unweighted = fit_head(as_numbers(plain, phi), prior)
    assert np.abs(unweighted.mean - one.mean).max() > 0.01


def test_a_snapshot_without_weights_counts_every_vote_whole(tmp_path: Path) -> None:
    assert [
        vote.weight for vote in read_snapshot(write(tmp_path / "v.parquet", [row()])).votes
    ] == [1]


@pytest.mark.parametrize("weight", [0.0, 1.5, float("nan"), -1.0])
def test_a_weight_that_is_none_is_refused(tmp_path: Path, weight: float) -> None:
    path = weighted(tmp_path / "v.parquet", [row()], [weight])
    with pytest.raises(DataError, match="row 0, column annotator_weight"):
        read_snapshot(path)
