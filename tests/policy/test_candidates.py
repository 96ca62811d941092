"""The sides of a pair differ, come from where the pool says, and are the same for a seed."""

from __future__ import annotations

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


def test_what_was_asked_on_one_passage_is_not_asked_on_the_next() -> None:
    """With the shipped bootstrap, which is synthetic."""
    reward = LearnedRewardIntegration()
    reward.load_model()
    covariance = reward.checkpoint.covariance.double().numpy()
    apart = 50 * np.linalg.eigh(covariance)[1].T[-3:]  # questions that have nothing in common
    asked = Asked()
    first = asked.best(reward, apart)
    assert asked.covariance is not None
    assert apart[first] @ asked.covariance @ apart[first] < apart[first] @ covariance @ apart[first]
    assert asked.best(reward, apart) != first


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
