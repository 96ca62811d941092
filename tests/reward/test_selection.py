"""What a vote tells against closed forms and sampling, and batches that do not ask twice."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_core.errors import DataError
from rlhf_core.reward.selection import Asking, choose_batch, curvature, information_gain


def test_a_vote_tells_nothing_about_what_is_known() -> None:
    gain = information_gain(np.array([0.0, 3.0, -1.0]), np.zeros(3))
    np.testing.assert_allclose(gain, 0.0, atol=1e-9)


def test_information_and_curvature_agree_with_plain_sampling() -> None:
    x = 0.4 + 1.5 * np.random.default_rng(0).standard_normal(400_000)
    p = 1 / (1 + np.exp(-x))

    def entropy(q: np.ndarray) -> np.ndarray:
        return -q * np.log(q) - (1 - q) * np.log(1 - q)

    wanted = float(entropy(np.array(p.mean())) - entropy(p).mean())
    mean, variance = np.array([0.4]), np.array([1.5**2])
    assert information_gain(mean, variance)[0] == pytest.approx(wanted, abs=2e-3)
    assert curvature(mean, variance)[0] == pytest.approx(float((p * (1 - p)).mean()), abs=1e-3)


def test_worth_is_the_variance_that_usual_pairs_lose() -> None:
    """Against the posterior computed outright, also for what was asked before."""
    rng = np.random.default_rng(4)
    root, usual_root = rng.normal(size=(2, 5, 5))
    covariance, usual = root @ root.T + np.eye(5), usual_root @ usual_root.T
    pairs, mean = rng.normal(size=(6, 5)), rng.normal(size=5)

    def after(covariance: np.ndarray, x: np.ndarray) -> np.ndarray:
        known = curvature(np.array([x @ mean]), np.array([x @ covariance @ x]))[0]
        return np.asarray(np.linalg.inv(np.linalg.inv(covariance) + known * np.outer(x, x)))

    asking = Asking(pairs, mean, covariance, usual)
    for index in (2, 5):
        wanted = [np.trace((covariance - after(covariance, x)) @ usual) for x in pairs]
        np.testing.assert_allclose(asking.worth(), wanted, rtol=1e-8)
        asking.ask(index)
        covariance = after(covariance, pairs[index])
        np.testing.assert_allclose(asking.covariance, covariance, atol=1e-9)


def test_the_open_question_is_asked_not_the_settled_one() -> None:
    differences = np.eye(3)
    covariance = np.diag([0.01, 4.0, 0.5])
    order = choose_batch(differences, np.arange(3), np.zeros(3), covariance, np.eye(3), 3)
    assert order.tolist() == [1, 2, 0]


def test_what_no_usual_pair_needs_is_not_asked() -> None:
    """The far-fetched pair tells more nats, about a direction in which usual pairs never differ."""
    far, near = [3.0, 0.0], [0.0, 1.0]
    usual = np.diag([0.0, 1.0])
    picked = choose_batch(np.array([far, near]), np.arange(2), np.zeros(2), np.eye(2), usual, 1)
    assert picked.tolist() == [1]
    assert np.argmax(information_gain(np.zeros(2), np.array([9.0, 1.0]))) == 0


def test_a_batch_does_not_ask_the_same_question_twice() -> None:
    twins = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.9]])
    picked = choose_batch(twins, np.arange(3), np.zeros(2), 4 * np.eye(2), np.eye(2), 2)
    assert sorted(picked.tolist()) == [0, 2]


def test_one_pair_of_a_group() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(5), 6)
    differences = rng.normal(size=(30, 4))
    picked = choose_batch(differences, group, np.zeros(4), np.eye(4), np.eye(4), 5)
    assert sorted(group[picked].tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="groups"):
        choose_batch(differences, group, np.zeros(4), np.eye(4), np.eye(4), 6)
