"""Information of a vote against its closed forms, and batches that do not ask the same twice."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_core.errors import DataError
from rlhf_core.reward.selection import choose_batch, information_gain


def test_a_vote_tells_nothing_about_what_is_known() -> None:
    gain = information_gain(np.array([0.0, 3.0, -1.0]), np.zeros(3))
    np.testing.assert_allclose(gain, 0.0, atol=1e-9)


def test_information_agrees_with_plain_sampling() -> None:
    x = 0.4 + 1.5 * np.random.default_rng(0).standard_normal(400_000)
    p = 1 / (1 + np.exp(-x))

    def entropy(q: np.ndarray) -> np.ndarray:
        return -q * np.log(q) - (1 - q) * np.log(1 - q)

    wanted = float(entropy(np.array(p.mean())) - entropy(p).mean())
    gain = information_gain(np.array([0.4]), np.array([1.5**2]))
    assert gain[0] == pytest.approx(wanted, abs=2e-3)


def test_the_open_question_is_asked_not_the_settled_one() -> None:
    differences = np.eye(3)
    covariance = np.diag([0.01, 4.0, 0.5])
    order = choose_batch(differences, np.arange(3), np.zeros(3), covariance, 3)
    assert order.tolist() == [1, 2, 0]


def test_a_batch_does_not_ask_the_same_question_twice() -> None:
    twins = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.9]])
    picked = choose_batch(twins, np.arange(3), np.zeros(2), 4 * np.eye(2), 2)
    assert sorted(picked.tolist()) == [0, 2]


def test_one_pair_of_a_group() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(5), 6)
    differences = rng.normal(size=(30, 4))
    picked = choose_batch(differences, group, np.zeros(4), np.eye(4), 5)
    assert sorted(group[picked].tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="groups"):
        choose_batch(differences, group, np.zeros(4), np.eye(4), 6)
