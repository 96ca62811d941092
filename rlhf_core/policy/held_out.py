"""Which of a training's checkpoints is the best one: what passages never trained on say.

Every few updates the policy edits the same held-out passages with the same random numbers, and the
reward pays those edits. Taking the highest of many noisy figures would choose luck, so the best is
the latest checkpoint that cannot be told apart from the highest: it is paid less by no more than
one standard error of the difference, passage by passage. (The earliest such one, which the
one-standard-error rule of Breiman et al. 1984 would take, did worse by the judges' own order:
docs/policy-learning.md.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy.agent import Agent, agent_content
from rlhf_core.policy.rewards import Item, RewardSource
from rlhf_core.policy.rollout import collect
from rlhf_core.reward.dataset import Vote

PASSAGES, EDITS = 48, 96  # at most so many passages, about so many edits of them in all
ONE_IN = 8  # of the passages to train on, where there are no songs to test on
logger = logging.getLogger(__name__)


def shuffled(items: Sequence[Item]) -> list[Item]:
    """The passages in an order that favours no song, the same every time."""
    return [items[int(i)] for i in np.random.default_rng(0).permutation(len(items))]


def hold_out(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Passages to train on, and one in `ONE_IN` that is held out; of fewer none can be spared."""
    order = shuffled(items)
    count = len(items) // ONE_IN
    return order[count:], order[:count]


def touches(vote: Vote, items: Sequence[Item]) -> bool:
    """Whether a vote is on beats of one of the passages."""
    mine = vote.passage
    return any(
        state.song_id == vote.song_id
        and mine.start_beat < passage.end_beat
        and passage.start_beat < mine.end_beat
        for state, passage in items
    )


@dataclass(frozen=True)
class Standing:
    """A checkpoint and what it earned: paid (P,), the mean reward of its edits of each passage."""

    content: dict[str, Any]
    paid: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.paid))


class HeldOut:
    """Measures an agent on held-out passages, and remembers the best checkpoint so far.

    best: the checkpoint chosen. highest: what the one with the highest mean earned (P,).
    """

    def __init__(self, items: Sequence[Item], reward: RewardSource, seed: int) -> None:
        self.items, self.reward, self.seed = list(items)[:PASSAGES], reward, seed
        self.edits = max(2, EDITS // max(1, len(self.items)))
        self.best: Standing | None = None
        self.highest: tuple[float, ...] | None = None

    def __bool__(self) -> bool:
        return bool(self.items)

    @torch.no_grad()
    def measure(self, agent: Agent, **more: Any) -> Standing:
        """What the agent earns now. more: goes into its checkpoint (step, lineage, …)."""
        passages = PassageBatch.from_passages(self.items, agent.device)
        noise = torch.Generator().manual_seed(self.seed)
        rollout = collect(agent, passages, noise, edits=self.edits)
        paid = self.reward(rollout.batch, rollout.actions, self.items * self.edits).total
        mean = paid.double().view(self.edits, -1).mean(0)
        return Standing({**agent_content(agent), **more}, tuple(mean.tolist()))

    def is_best(self, new: Standing) -> bool:
        """Whether a checkpoint later than all before is the best one now."""
        return self.highest is None or not surely_less(np.array(new.paid), np.array(self.highest))

    def take(self, new: Standing) -> None:
        """Remember it as the best one."""
        self.best = new
        if self.highest is None or new.mean > float(np.mean(self.highest)):
            self.highest = new.paid

    def state(self) -> dict[str, Any] | None:
        """What resuming needs."""
        if self.best is None:
            return None
        return {
            "content": self.best.content, "paid": self.best.paid, "highest": self.highest,
            "passages": self._names(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any] | None) -> None:
        """Take over a `state`. One of other passages is left: what was earned there says nothing
        about these.
        """
        if state is None:
            return
        mine = self._names()
        # checkpoints of before passages were named have their number alone
        if len(state["highest"]) != len(mine) or state.get("passages", mine) != mine:
            logger.warning(
                "the held-out passages are not those that the checkpoint was measured on: the best "
                "one is chosen anew from here on"
            )
            return
        self.best = Standing(state["content"], tuple(state["paid"]))
        self.highest = tuple(state["highest"])

    def _names(self) -> list[list[str | int]]:
        return [[state.song_id, p.start_beat, p.end_beat] for state, p in self.items]


def surely_less(new: NDArray[np.float64], highest: NDArray[np.float64]) -> bool:
    """Less on average, by more than a standard error of the paired difference: (P,), (P,)."""
    loss = highest - new
    error = loss.std(ddof=1) / len(loss) ** 0.5 if len(loss) > 1 else 0.0
    return bool(loss.mean() > error)
