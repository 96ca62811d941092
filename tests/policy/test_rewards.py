"""What training is paid: the bound is relative to the reference policy, passage by passage."""

from __future__ import annotations

import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf_core.editing.actions import N_ACTIONS
from rlhf_core.editing.dense_reward import dense_reward
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.rewards import EditRewards, Item, LearnedRewards, dense_only
from rlhf_core.policy.rollout import collect
from rlhf_core.reward.learned_reward_integration import LearnedRewardIntegration


class CountingReward:
    """Stands for the reward model: an edit's embedding is how often it uses each action."""

    def embed(self, batch: PassageBatch, actions: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(actions, N_ACTIONS) * batch.valid[..., None]
        return one_hot.sum(1).float()

    def score_embeddings(self, phi: Tensor, reference: Tensor) -> types.SimpleNamespace:
        away = (phi - reference)[:, 1]  # likes cuts
        return types.SimpleNamespace(lower=away, raw=away + 100)

    def combine(self, lower: Tensor, raw: Tensor, dense: Tensor) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            total=lower, learned=lower, dense=dense, learned_raw=raw, dense_raw=dense,
            clamped=torch.zeros_like(raw),
        )  # fmt: skip


@pytest.fixture
def rewards(small_agent: Agent) -> Callable[[int], LearnedRewards]:
    return lambda seed: LearnedRewards(CountingReward(), small_agent, seed)  # type: ignore[arg-type]


def test_the_reference_of_a_passage_does_not_depend_on_when_it_is_met(
    rewards: Callable[[int], LearnedRewards], items: list[Item]
) -> None:
    """A resumed training meets passages in another order and must pay the same."""
    forwards = rewards(0).references(items)
    backwards = rewards(0).references(items[::-1]).flip(0)
    assert torch.equal(forwards, backwards)
    assert not torch.equal(forwards, rewards(1).references(items))


def test_the_reference_policy_itself_earns_about_nothing(
    rewards: Callable[[int], LearnedRewards], small_agent: Agent, items: list[Item]
) -> None:
    """Cuts above what the reference makes of the same passage: 0 on average over many edits."""
    many = items * 40
    batch = PassageBatch.from_passages(many)
    actions = collect(small_agent, batch, torch.Generator().manual_seed(1)).actions
    paid = rewards(0)(batch, actions, many)
    assert paid.learned is not None and paid.learned.std() > 0.5
    assert abs(float(paid.learned.mean())) < 0.6
    keep = torch.zeros_like(actions)
    assert float(rewards(0)(batch, keep, many).total.mean()) < -1


def test_sampling_pays_by_tastes_of_the_posterior(
    small_agent: Agent, make_batch: Callable[[], tuple[PassageBatch, Tensor]], items: list[Item]
) -> None:
    """One taste a roll-out, the same for the same edits; mean and spread are the posterior's."""
    integration = LearnedRewardIntegration()
    integration.load_model()
    batch, actions = make_batch()
    pays = LearnedRewards(integration, small_agent, 0, "sampling")
    pair = [items[0]] * 2
    once = pays(batch, actions, pair).learned
    assert torch.equal(once, pays(batch, actions, pair).learned)
    drawn = []
    for seed in range(150):
        pays.seed = seed  # the reference edits stay those of the first
        learned = pays(batch, actions, pair).learned
        drawn.append(float(learned[0] - learned[1]))
    phi = integration.embed(batch, actions)
    scores = integration.score_embeddings(phi[:1], phi[1:])
    mean, spread = float(scores.mean), float(scores.std)
    assert np.mean(drawn) == pytest.approx(mean, abs=4 * spread / 150**0.5)
    assert np.std(drawn) == pytest.approx(spread, rel=0.25)
    lower = integration.score(batch, actions, pays.references(pair)).lower
    assert torch.equal(pays.steady()(batch, actions, pair).learned, lower)


def test_means_for_the_history(items: list[Item]) -> None:
    batch = PassageBatch.from_passages(items)
    actions = torch.zeros(batch.valid.shape, dtype=torch.long)
    paid = dense_only(batch, actions, items)
    assert torch.equal(paid.total, dense_reward(batch, actions))
    means = paid.means()
    assert means["learned_reward"] is None and means["dense_raw"] == means["total_reward"]
    two = EditRewards(*(torch.tensor([1.0, 3.0]) for _ in range(6)))
    assert set(two.means().values()) == {2.0}
