"""The sides of a pair differ, come from where the pool says, and are the same for a seed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_core.editing.edl import build_edl
from rlhf_core.errors import EditError
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.candidates import (
    MIN_DIFFERENT_BEATS,
    Asked,
    Maker,
    different_beats,
    information_gain,
    plan_pools,
)
from rlhf_core.policy.rewards import Item
from rlhf_core.reward.learned_reward_integration import LearnedRewardIntegration


@pytest.mark.parametrize("pool", ["random", "broad", "cross", "gold"])
def test_sides_differ_and_repeat(small_agent: Agent, items: list[Item], pool: str) -> None:
    maker = Maker(small_agent, "policy_v2", versus=small_agent, versus_name="policy_v1")
    for number, item in enumerate(items):
        a, b = maker.pair(pool, item, np.random.default_rng(number))
        assert different_beats(a.edl, b.edl) >= MIN_DIFFERENT_BEATS
        again = maker.pair(pool, item, np.random.default_rng(number))
        assert all(np.array_equal(x.actions, y.actions) for x, y in zip((a, b), again, strict=True))
        names = {a.policy, b.policy}
        assert (
            names
            <= {
                "random": {"policy_v2"},
                "broad": {"policy_v2", "heuristic"},
                "cross": {"policy_v2", "policy_v1"},
                "gold": {"policy_v2", "gold"},
            }[pool]
        )
        assert pool == "random" or len(names) == 2


def test_a_policy_without_variety_gets_help_from_the_presets(
    small_agent: Agent, items: list[Item]
) -> None:
    """KEEP with certainty: no two of its edits differ at any temperature."""
    torch.nn.init.zeros_(small_agent.action_head.weight)
    small_agent.action_head.bias.data[0] = 1e6
    pairs = [
        Maker(small_agent, "p").pair("random", item, np.random.default_rng(0)) for item in items
    ]
    assert all(different_beats(a.edl, b.edl) >= MIN_DIFFERENT_BEATS for a, b in pairs)
    assert all({a.policy, b.policy} == {"p", "heuristic"} for a, b in pairs)


def test_different_beats_by_hand(items: list[Item]) -> None:
    state, passage = items[0]
    n = passage.n_beats
    keep = np.zeros(n, dtype=np.int64)
    cut_two, gain_three = keep.copy(), keep.copy()
    cut_two[4:6], gain_three[8:11] = 1, 7
    edls = [build_edl(actions, state.grid, passage) for actions in (keep, cut_two, gain_three)]
    assert different_beats(edls[0], edls[0]) == 0
    assert different_beats(edls[0], edls[1]) == 2
    assert different_beats(edls[0], edls[2]) == 3
    assert different_beats(edls[1], edls[2]) == 5


def test_information_gain_against_sampling() -> None:
    """What is certain teaches nothing; otherwise as a plain Monte Carlo estimate says."""
    mean, std = torch.tensor([0.0, 0.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 1.0, 3.0])
    gain = information_gain(mean, std)
    rng = np.random.default_rng(0)

    def coin(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p) + (1 - p) * np.log(1 - p))

    for i in range(4):
        p = 1 / (1 + np.exp(-rng.normal(float(mean[i]), float(std[i]), 200_000)))
        assert gain[i].item() == pytest.approx(float(coin(p.mean()) - coin(p).mean()), abs=3e-3)
    assert gain.min() >= 0 and gain.max() < math.log(2)
    assert gain[0] < gain[2] < gain[1] < gain[3]


def test_pools_keep_their_shares() -> None:
    rng = np.random.default_rng(0)
    pools = plan_pools(20, {"broad": 0.25, "cross": 0.1}, rng)
    assert {pool: pools.count(pool) for pool in set(pools)} == {
        "broad": 5, "cross": 2, "random": 13,
    }  # fmt: skip
    assert len(plan_pools(7, {"broad": 0.25, "chosen": 0.35}, rng)) == 7
    assert plan_pools(3, {"broad": 1.0}, rng) == ["broad"] * 3
    with pytest.raises(EditError, match="add up"):
        plan_pools(3, {"broad": 0.8, "cross": 0.3}, rng)


def test_what_was_asked_shrinks_the_covariance_as_bayes_says() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    covariance, mean = root @ root.T + torch.eye(4), torch.tensor([0.5, 0.0, -1.0, 0.2])
    reward: Any = SimpleNamespace(checkpoint=SimpleNamespace(covariance=covariance, mean=mean))
    x = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    asked = Asked()
    asked.add(reward, x)
    p = torch.sigmoid(x @ mean.double() / (1 + math.pi * (x @ covariance @ x) / 8).sqrt())
    wanted = torch.linalg.inv(torch.linalg.inv(covariance) + p * (1 - p) * torch.outer(x, x))
    torch.testing.assert_close(asked.now(reward), wanted)


def test_chosen_pairs_differ_and_a_batch_repeats(small_agent: Agent, items: list[Item]) -> None:
    """With the shipped bootstrap, which is synthetic."""
    reward = LearnedRewardIntegration()
    reward.load_model()

    def batch() -> list[list[int]]:
        maker = Maker(small_agent, "p", reward=reward)
        pairs = [maker.pair("chosen", item, np.random.default_rng(1)) for item in items]
        assert all(different_beats(a.edl, b.edl) >= MIN_DIFFERENT_BEATS for a, b in pairs)
        return [edit.actions.tolist() for pair in pairs for edit in pair]

    assert batch() == batch()
