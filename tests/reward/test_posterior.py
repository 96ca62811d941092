"""The head's posterior against scikit-learn, numerical integration and simulated annotators."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize
from sklearn.linear_model import LogisticRegression

from rlhf_core.errors import DataError
from rlhf_core.reward.posterior import HeadPrior, Votes, fit_head, log_likelihood


def votes_of(
    x: np.ndarray,
    outcome: np.ndarray,
    annotator: np.ndarray | None = None,
    side: np.ndarray | None = None,
) -> Votes:
    n = len(x)
    return Votes(
        x,
        outcome.astype(np.int64),
        np.ones(n),
        np.zeros(n, dtype=np.int64) if annotator is None else annotator,
        np.ones(n) if side is None else side,
    )


def flat_prior(width: int) -> HeadPrior:
    return HeadPrior(np.eye(width), np.eye(width))


def simulated(n: int, width: int, seed: int, size: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    w = rng.normal(size=width) * size / np.sqrt(width)
    return x, np.where(rng.random(n) < 1 / (1 + np.exp(-x @ w)), 1, -1)


def test_mode_equals_ridge_logistic_regression() -> None:
    x, outcome = simulated(150, 6, 0)
    ours = fit_head(votes_of(x, outcome), flat_prior(6), scale=1.3, share=0.5, side_bias=False)
    theirs = LogisticRegression(C=1.3**2, fit_intercept=False, tol=1e-10, max_iter=1000)
    theirs.fit(x, outcome)
    np.testing.assert_allclose(ours.mean, theirs.coef_[0], atol=1e-5)


def test_covariance_is_the_inverse_hessian() -> None:
    x, outcome = simulated(80, 3, 1)
    ours = fit_head(votes_of(x, outcome), flat_prior(3), scale=1.0, share=0.5, side_bias=False)
    p = 1 / (1 + np.exp(-x @ ours.mean))
    hessian = (x.T * (p * (1 - p))) @ x + np.eye(3)
    np.testing.assert_allclose(ours.covariance, np.linalg.inv(hessian), atol=1e-6)


def test_evidence_is_close_to_the_integral_in_one_dimension() -> None:
    x, outcome = simulated(30, 1, 2)
    ours = fit_head(votes_of(x, outcome), flat_prior(1), scale=1.0, share=0.5, side_bias=False)

    def joint(w: float) -> float:
        likelihood = np.prod(1 / (1 + np.exp(-outcome * x[:, 0] * w)))
        return float(likelihood * np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi))

    exact, _ = integrate.quad(joint, -8, 8)
    assert ours.log_evidence == pytest.approx(np.log(exact), abs=0.05)


def test_probabilities_of_the_three_outcomes_sum_to_one() -> None:
    m = np.linspace(-6, 6, 25)
    ones = np.ones(25, dtype=np.int64)
    total = sum(np.exp(log_likelihood(m, -0.3, k * ones)[0]) for k in (-1, 0, 1))
    np.testing.assert_allclose(total, 1.0)


def test_ties_pull_the_difference_towards_nothing() -> None:
    x, outcome = simulated(60, 2, 3)
    same = np.tile([[2.0, 0.0]], (40, 1))
    without = fit_head(votes_of(x, outcome), flat_prior(2), scale=1.0, share=0.5)
    tied = votes_of(np.vstack([x, same]), np.concatenate([outcome, np.zeros(40)]))
    with_ties = fit_head(tied, flat_prior(2), scale=1.0, share=0.5)
    assert abs(with_ties.mean[0]) < abs(without.mean[0])
    assert without.tie is None
    assert with_ties.tie is not None and with_ties.tie > 0


def test_how_often_ties_are_to_be_expected_by_scipys_own_search() -> None:
    """Pairs of equal edits: p(tie) = nu / (2 + nu), and log nu ~ N(log 1/2, 1)."""
    outcome = np.array([0] * 9 + [1] * 6 + [-1] * 5)
    equal = votes_of(np.zeros((20, 1)), outcome)
    fitted = fit_head(equal, flat_prior(1), scale=1.0, share=0.5, side_bias=False)

    def loss(log_nu: float) -> float:
        log_z = np.log(2 + np.exp(log_nu))
        return float(20 * log_z - 9 * log_nu + (log_nu - np.log(0.5)) ** 2 / 2)

    assert fitted.tie == pytest.approx(np.exp(optimize.minimize_scalar(loss).x), rel=1e-5)
    assert fitted.mean == pytest.approx([0.0], abs=1e-9)


def test_side_bias_is_found_and_kept_out_of_the_head() -> None:
    rng = np.random.default_rng(4)
    x, side = rng.normal(size=(600, 2)), rng.choice([-1.0, 1.0], 600)
    m = 1.5 * x[:, 0] + 0.8 * side
    outcome = np.where(rng.random(600) < 1 / (1 + np.exp(-m)), 1, -1)
    fitted = fit_head(votes_of(x, outcome, side=side), flat_prior(2), scale=2.0, share=0.5)
    assert 0.5 < fitted.side_bias[0] < 1.1
    assert fitted.mean == pytest.approx([1.5, 0.0], abs=0.4)


def test_a_random_voter_is_found_unreliable_and_does_not_spoil_the_head() -> None:
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(300, 5)), np.array([2.0, -1.0, 0.5, 0.0, 0.0])
    annotator = np.arange(300) % 3
    honest = np.where(rng.random(300) < 1 / (1 + np.exp(-x @ w)), 1, -1)
    outcome = np.where(annotator == 2, rng.choice([-1, 1], 300), honest)
    votes = votes_of(x, outcome, annotator=annotator)
    plain = fit_head(votes, flat_prior(5), reliability=False)
    weighed = fit_head(votes, flat_prior(5))
    assert weighed.reliability[2] < 0.6 * weighed.reliability[:2].min()

    def likeness(mean: np.ndarray) -> float:
        return float(mean @ w / np.linalg.norm(mean) / np.linalg.norm(w))

    assert likeness(weighed.mean) >= likeness(plain.mean) - 0.01


def test_same_votes_same_bits_and_more_votes_less_doubt() -> None:
    x, outcome = simulated(200, 8, 6)
    few = fit_head(votes_of(x[:40], outcome[:40]), flat_prior(8), scale=1.0, share=0.5)
    first, again = (fit_head(votes_of(x, outcome), flat_prior(8)) for _ in range(2))
    many = fit_head(votes_of(x, outcome), flat_prior(8), scale=1.0, share=0.5)
    assert np.array_equal(first.mean, again.mean)
    assert np.array_equal(first.covariance, again.covariance)
    assert np.trace(many.covariance) < np.trace(few.covariance)


def test_no_vote_is_an_error() -> None:
    with pytest.raises(DataError, match="no vote"):
        fit_head(votes_of(np.zeros((0, 2)), np.zeros(0)), flat_prior(2))
