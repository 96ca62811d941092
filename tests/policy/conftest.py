"""Synthetic passages and toy rewards for policy learning (no real songs, no real votes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from rlhf_core.editing.actions import Action
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy.agent import Agent, AgentConfig
from rlhf_core.policy.rewards import EditRewards, Item, RewardSource
from rlhf_core.types import AudioState, Passage

SMALL = AgentConfig(width=16, layers=1, heads=2, feedforward=16, hidden=32)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A command under test sets the process's threads; the next test must not inherit them."""
    torch.set_num_threads(1)


@pytest.fixture
def items(make_state: Callable[..., AudioState]) -> list[Item]:
    """Ten passages of five synthetic songs, of unequal lengths and metres."""
    made: list[Item] = []
    for seed, (beats, bar) in enumerate(((24, 4), (32, 4), (27, 3), (40, 4), (30, 4))):
        state = make_state(seed, beats, bar)
        made += [(state, Passage(0, beats)), (state, Passage(bar, beats - 4))]
    return made


@pytest.fixture
def small_agent() -> Agent:
    torch.manual_seed(0)
    return Agent(SMALL).eval()


def keep_share(batch: PassageBatch, actions: Tensor) -> Tensor:
    """(B,) share of beats that are not cut."""
    kept = (actions != Action.CUT) & batch.valid
    return kept.sum(1) / batch.lengths


def _likes_cuts(batch: PassageBatch, actions: Tensor, items: Sequence[Item]) -> EditRewards:
    """A toy judge: the less is kept, the better."""
    cut = 1 - keep_share(batch, actions)
    return EditRewards(cut, cut, cut)


@pytest.fixture
def likes_cuts() -> RewardSource:
    """A toy judge that pays for cuts."""
    return _likes_cuts


@pytest.fixture
def make_batch(items: list[Item]) -> Callable[[], tuple[PassageBatch, Tensor]]:
    """Two unlike edits of one passage."""

    def make() -> tuple[PassageBatch, Tensor]:
        batch = PassageBatch.from_passages(items[:1]).select(torch.zeros(2, dtype=torch.long))
        actions = torch.zeros(batch.valid.shape, dtype=torch.long)
        actions[1, 8:16] = int(Action.CUT)
        return batch, actions

    return make
