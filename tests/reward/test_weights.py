"""What a vote counts: from the snapshot's columns into the likelihood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from rlhf_core.errors import DataError
from rlhf_core.reward.dataset import read_snapshot
from rlhf_core.reward.measured import as_numbers
from rlhf_core.reward.posterior import HeadPrior, Votes, fit_head
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


def test_choice_side_strength_and_annotator_as_the_likelihood_reads_them(tmp_path: Path) -> None:
    """By hand, as `posterior` states it: both bad is a tie, can't judge is not there."""
    given = (  # choice, strength, b first, annotator, weight -> outcome, side, weight in all
        (("a", 1, False, "zoe", 1.0), (1, 1.0, 0.75)),
        (("b", 2, True, "ann", 1.0), (-1, -1.0, 1.0)),
        (("a", 3, True, "ann", 0.5), (1, -1.0, 0.625)),
        (("b", None, False, "ann", 1.0), (-1, 1.0, 1.0)),
        (("tie", None, False, "zoe", 0.5), (0, 1.0, 0.5)),
        (("both_bad", None, True, "zoe", 1.0), (0, -1.0, 1.0)),
        (("skip", None, False, "zoe", 1.0), None),
    )
    rows = [
        row(i, choice=choice, strength=strength, b_first=b_first, annotator=name)
        for i, ((choice, strength, b_first, name, _), _) in enumerate(given)
    ]
    path = weighted(tmp_path / "v.parquet", rows, [one[0][4] for one in given])
    votes = read_snapshot(path).usable(include_simulated=False)
    phi = {votes[0].edit_a: np.array([2.0, 1.0]), votes[0].edit_b: np.array([0.5, 3.0])}
    data = as_numbers(votes, phi)
    wanted = [want for _, want in given if want is not None]
    assert (
        list(zip(data.outcome.tolist(), data.side.tolist(), data.weight.tolist(), strict=True))
        == wanted
    )
    assert data.annotator.tolist() == [1, 0, 0, 0, 1, 1]
    np.testing.assert_array_equal(data.differences, [[1.5, -2.0]] * 6)


def test_a_stronger_vote_says_more() -> None:
    """Its log-likelihood counts 5/3 times as much: the slope at the mode, by scipy's own search."""
    x, outcome, weight = np.array([[1.0], [1.0]]), np.array([1, -1]), np.array([1.25, 0.75])
    zeros = np.zeros(2, dtype=np.int64)
    prior = HeadPrior(np.eye(1), np.eye(1))
    votes = Votes(x, outcome, weight, zeros, zeros.astype(float))
    fitted = fit_head(votes, prior, scale=1.0, share=0.5, side_bias=False)

    def loss(w: float) -> float:
        return float(weight @ np.logaddexp(0, -outcome * w) + w**2 / 2)

    assert fitted.mean[0] == pytest.approx(minimize_scalar(loss).x, abs=1e-6)
    assert fitted.mean[0] > 0


def test_a_snapshot_without_weights_counts_every_vote_whole(tmp_path: Path) -> None:
    assert [
        vote.weight for vote in read_snapshot(write(tmp_path / "v.parquet", [row()])).votes
    ] == [1]


@pytest.mark.parametrize("weight", [0.0, 1.5, float("nan"), -1.0])
def test_a_weight_that_is_none_is_refused(tmp_path: Path, weight: float) -> None:
    path = weighted(tmp_path / "v.parquet", [row()], [weight])
    with pytest.raises(DataError, match="row 0, column annotator_weight"):
        read_snapshot(path)
