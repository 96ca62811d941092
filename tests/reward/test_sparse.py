"""The sparse prior against closed forms, numerical integration and tastes that are sparse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special

from rlhf_core.editing.attributes import ATTRIBUTE_NAMES
from rlhf_core.reward.directions import ridge, weights
from rlhf_core.reward.posterior import HeadPrior, Votes, fit_head
from rlhf_core.reward.sparse import TAU, sparse_posterior

WIDTH = 60


def taste(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences (n, WIDTH), weights of which two are not zero, and votes of that taste."""
    x, w = rng.normal(size=(n, WIDTH)), np.zeros(WIDTH)
    w[[7, 31]] = 1.5, -1.0
    return x, w, np.where(rng.random(n) < special.expit(x @ w), 1, -1)


def votes_of(x: np.ndarray, outcome: np.ndarray) -> Votes:
    n = len(x)
    return Votes(x, outcome.astype(np.int64), np.ones(n), np.zeros(n, dtype=np.int64), np.ones(n))


def test_much_data_leaves_the_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4000, 5)), np.array([1.0, -2.0, 0.5, 3.0, -1.0])
    response = x @ w + 0.3 * rng.normal(size=4000)
    mean, covariance = sparse_posterior(x, response, np.full(4000, 1 / 0.09))
    plain = np.linalg.lstsq(x, response, rcond=None)[0]
    np.testing.assert_allclose(mean, plain, atol=0.01)
    np.testing.assert_allclose(covariance, 0.09 * np.linalg.inv(x.T @ x), atol=2e-5)


def test_one_weight_agrees_with_the_integral_over_the_scales() -> None:
    """c ~ N(0, tau² lambda²), both half-Cauchy, and one observation z = c + noise of variance v."""
    z, v = 0.4, 0.04

    def moment(power: int) -> float:
        def inside(log_local: float, log_tau: float) -> float:
            local, tau = np.exp(log_local), np.exp(log_tau)
            spread = (tau * local) ** 2
            shrunk = spread / (spread + v)
            evidence = np.exp(-(z**2) / (2 * (spread + v))) / np.sqrt(spread + v)
            value = 1.0 if power == 0 else shrunk * z if power == 1 else shrunk * v
            value += (shrunk * z) ** 2 if power == 2 else 0.0
            return float(
                value * evidence * local / (1 + local**2) * tau / TAU / (1 + (tau / TAU) ** 2)
            )

        total, _ = integrate.dblquad(inside, -14, 6, -14, 14, epsabs=1e-9, epsrel=1e-5)
        return float(total)

    flat = moment(0)
    want = moment(1) / flat
    runs = [
        sparse_posterior(np.ones((1, 1)) * s, np.array([z * s]), np.array([1 / v]))
        for s in (1.0, -1.0)
    ]
    for mean, covariance in runs:
        assert mean[0] == pytest.approx(want, abs=0.04)
        assert covariance[0, 0] == pytest.approx(moment(2) / flat - want**2, rel=0.35)


def test_a_sparse_taste_costs_fewer_votes_than_with_the_gaussian_prior() -> None:
    eye = np.eye(WIDTH) / (2 * WIDTH)
    right: dict[str, list[float]] = {"gaussian": [], "sparse": []}
    for seed in range(6):
        x, w, outcome = taste(np.random.default_rng(seed), 200)
        unseen = np.random.default_rng(99).normal(size=(2000, WIDTH))
        for name, directions in (("gaussian", None), ("sparse", np.eye(WIDTH))):
            fitted = fit_head(votes_of(x, outcome), HeadPrior(eye, eye, directions))
            same = np.sign(unseen @ fitted.mean) == np.sign(unseen @ w)
            right[name].append(float(same.mean()))
    assert np.mean(right["sparse"]) > np.mean(right["gaussian"]) + 0.05
    assert min(right["sparse"]) > 0.85


def test_votes_at_random_leave_weights_near_nothing_and_in_doubt() -> None:
    rng = np.random.default_rng(3)
    x, _, outcome = taste(rng, 150)
    noise = rng.choice([-1, 1], 150)
    eye = np.eye(WIDTH) / (2 * WIDTH)
    learned, blank = (
        fit_head(votes_of(x, y), HeadPrior(eye, eye, np.eye(WIDTH))) for y in (outcome, noise)
    )
    assert np.linalg.norm(blank.mean) < 0.4 * np.linalg.norm(learned.mean)
    p = blank.probability(rng.normal(size=(500, WIDTH)))
    assert np.abs(p - 0.5).mean() < 0.12


def test_the_posterior_covers_the_truth() -> None:
    """Over tastes drawn from the prior's kind, nine of ten true logits lie within 1.645 sd."""
    inside = []
    eye = np.eye(WIDTH) / (2 * WIDTH)
    for seed in range(10):
        x, w, outcome = taste(np.random.default_rng(100 + seed), 150)
        fitted = fit_head(votes_of(x, outcome), HeadPrior(eye, eye, np.eye(WIDTH)))
        unseen = np.random.default_rng(1).normal(size=(300, WIDTH))
        mean, variance = fitted.logits(unseen)
        inside.append(np.abs(mean - unseen @ w) < 1.645 * np.sqrt(variance))
    assert 0.75 < float(np.mean(inside)) <= 1.0


def test_same_votes_same_bits() -> None:
    x, _, outcome = taste(np.random.default_rng(5), 80)
    prior = HeadPrior(np.eye(WIDTH), np.eye(WIDTH), np.eye(WIDTH))
    first, again = (fit_head(votes_of(x, outcome), prior) for _ in range(2))
    assert np.array_equal(first.mean, again.mean)
    assert np.array_equal(first.covariance, again.covariance)


def test_the_head_stays_in_the_span_of_the_directions() -> None:
    x, _, outcome = taste(np.random.default_rng(6), 80)
    directions = np.random.default_rng(7).normal(size=(4, WIDTH)) / 8
    fitted = fit_head(votes_of(x, outcome), HeadPrior(np.eye(WIDTH), np.eye(WIDTH), directions))
    inside = directions.T @ np.linalg.lstsq(directions.T, fitted.mean, rcond=None)[0]
    np.testing.assert_allclose(inside, fitted.mean, atol=1e-9)
    assert np.linalg.matrix_rank(fitted.covariance, tol=1e-9) <= 4


def test_ridge_finds_a_linear_statistic_and_deeds_get_half() -> None:
    rng = np.random.default_rng(8)
    x, u = rng.normal(size=(500, 6)), rng.normal(size=(3, 6))
    np.testing.assert_allclose(ridge(x, x @ u.T), u, atol=0.02)
    shares = weights(101)
    assert shares.mean() == pytest.approx(1)
    deeds = len(ATTRIBUTE_NAMES)
    assert shares[:deeds].sum() == pytest.approx(shares[deeds:].sum())
