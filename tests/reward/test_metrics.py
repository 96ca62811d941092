"""Figures against hand-made answers and scikit-learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import log_loss

from rlhf_core.reward.dataset import Vote
from rlhf_core.reward.metrics import (
    agreement,
    calibration_error,
    consistency,
    cross_fit,
    evaluation_votes,
    folds_by_song,
    reliability,
    summary,
    wilson_interval,
)
from rlhf_core.reward.posterior import HeadPosterior, Votes
from rlhf_core.types import Passage


def vote(number: int, choice: str = "a", **changes: object) -> Vote:
    base = Vote(
        f"v{number}",
        f"p{number}",
        "song",
        "ann",
        False,
        choice,
        None,
        "random",
        Passage(0, 8),
        np.zeros(8, dtype=np.int64),
        np.ones(8, dtype=np.int64),
        "x",
        "y",
        False,
        "train",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_no_song_is_split_over_folds_and_folds_are_alike() -> None:
    rng = np.random.default_rng(0)
    songs = [f"s{i}" for i in rng.integers(0, 12, 300)]
    folds = folds_by_song(songs, 0)
    for song in set(songs):
        assert len({int(f) for f, s in zip(folds, songs, strict=True) if s == song}) == 1
    counts = np.bincount(folds)
    assert len(counts) == 5 and counts.min() > 30
    assert np.array_equal(folds, folds_by_song(songs, 0))


def test_summary_by_hand_and_against_sklearn() -> None:
    p = np.array([0.9, 0.8, 0.3, 0.5])
    outcome = np.array([1, -1, -1, 1])
    values = summary(p, outcome, ["x", "x", "y", "y"], 0)
    assert values["accuracy"] == pytest.approx(2.5 / 4)
    assert values["log_loss"] == pytest.approx(log_loss(outcome > 0, p))
    assert values["accuracy_low"] == pytest.approx(0.5)  # song x alone
    assert values["accuracy_high"] == pytest.approx(0.75)  # song y alone
    assert summary(p[:0], outcome[:0], [], 0)["accuracy"] is None


def test_calibration_error_by_hand() -> None:
    p = np.array([0.95, 0.95, 0.05, 0.05])
    assert calibration_error(p, np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(0.05)
    assert calibration_error(p, np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(0.95)


def test_the_reliability_plot_by_hand() -> None:
    p = np.array([0.02, 0.08, 0.55, 0.55, 1.0])
    outcome = np.array([-1, 1, 1, -1, 1])
    bins = reliability(p, outcome)
    assert [row["votes"] for row in bins] == [2, 2, 1]  # empty bins are not there
    assert [row["stated"] for row in bins] == pytest.approx([0.05, 0.55, 1.0])
    assert [row["observed"] for row in bins] == [0.5, 0.5, 1.0]
    off = sum(row["votes"] * abs(row["stated"] - row["observed"]) for row in bins) / 5
    assert calibration_error(p, (outcome > 0).astype(float)) == pytest.approx(off)


def test_nobody_is_judged_by_a_head_that_has_seen_the_song() -> None:
    """The fit's stand-in notes the votes that it is given; a vote's difference is its number."""
    n, folds = 12, np.arange(12) % 3
    zeros = np.zeros(n, dtype=np.int64)
    data = Votes(np.arange(n, dtype=float)[:, None], zeros, np.ones(n), zeros, np.ones(n))
    given: list[list[int]] = []

    def fit(votes: Votes) -> HeadPosterior:
        given.append(votes.differences[:, 0].astype(int).tolist())
        none = np.zeros(1)
        return HeadPosterior(np.ones(1), np.zeros((1, 1)), 1.0, 0.2, None, none, none, 0.0, n)

    known = np.arange(n) > 5
    p = cross_fit(data, folds, fit, train=known)
    assert given == [[i for i in range(6, n) if i % 3 != fold] for fold in range(3)]
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-np.arange(n))))
    np.testing.assert_array_equal(cross_fit(data, folds, fit, train=zeros.astype(bool)), 0.5)


def test_repeats_count_with_sides_and_order_put_right() -> None:
    turned = {"actions_a": np.ones(8, dtype=np.int64), "actions_b": np.zeros(8, dtype=np.int64)}
    agreeing = [vote(0, "a"), vote(1, "b", **turned)]
    found = consistency(agreeing)
    assert found is not None
    assert (found["agreement"], found["repeats"], found["ceiling"]) == (1.0, 1, 1.0)
    half = [*agreeing, vote(2, "a", annotator="b"), vote(3, "b", annotator="b")]
    found = consistency(half)
    assert found is not None
    assert (found["agreement"], found["ceiling"]) == (0.5, 0.5)
    assert consistency([vote(0), vote(1, "tie"), vote(2, annotator="b")]) is None


def test_agreement_is_between_people_on_one_pair() -> None:
    votes = [vote(0), vote(0, annotator="b"), vote(1), vote(1, "b", annotator="b"), vote(2)]
    found = agreement(votes)
    assert found is not None
    assert (found["agreement"], found["comparisons"]) == (0.5, 2)
    assert agreement([vote(0), vote(0, "b")]) is None  # the same person twice is no agreement


@pytest.mark.parametrize(("hits", "total"), [(0, 4), (3, 10), (70, 71)])
def test_shares_have_wilson_intervals(hits: int, total: int) -> None:
    want = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson_interval(hits, total) == pytest.approx((want.low, want.high), abs=1e-6)


def test_figures_stand_on_random_pairs_or_say_that_they_do_not() -> None:
    random = [vote(i) for i in range(25)] + [vote(30, pool="chosen"), vote(31, "tie")]
    counted, words = evaluation_votes(random)
    assert counted.sum() == 25 and "randomly chosen" in words
    counted, words = evaluation_votes([vote(i, pool="chosen") for i in range(30)] + [vote(40)])
    assert counted.sum() == 31 and words.startswith("all 31") and "only 1" in words
