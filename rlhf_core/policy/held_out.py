"""Which of a training's checkpoints is the best one: what passages never trained on say.

Every few updates the policy edits the same held-out passages with the same random numbers, and the
reward pays those edits. A checkpoint takes the best one's place when it is paid more by at least
one standard error of the difference, passage by passage: between checkpoints that cannot be told
apart the earlier one stays, which has gone less far from its parent (the one-standard-error rule,
Breiman et al. 1984). Taking the highest of many noisy figures would choose luck.
"""

from __future__ import annotations

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

PASSAGES, EDITS = 48, 96  # at most so many passages, about so many edits of them in all


@dataclass(frozen=True)
class Standing:
    """A checkpoint and what it earned: paid (P,), the mean reward of its edits of each passage."""

    content: dict[str, Any]
    paid: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.paid))


class HeldOut:
    """Measures an agent on held-out passages, and remembers the best checkpoint so far."""

    def __init__(self, items: Sequence[Item], reward: RewardSource, seed: int) -> None:
        self.items, self.reward, self.seed = list(items)[:PASSAGES], reward, seed
        self.edits = max(2, EDITS // max(1, len(self.items)))
        self.best: Standing | None = None

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

    def better(self, new: Standing) -> bool:
        """Whether it takes the best one's place."""
        return self.best is None or surely_more(np.array(new.paid), np.array(self.best.paid))

    def state(self) -> dict[str, Any] | None:
        """What resuming needs."""
        return None if self.best is None else {"content": self.best.content, "paid": self.best.paid}

    def restore(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.best = Standing(state["content"], tuple(state["paid"]))


def surely_more(new: NDArray[np.float64], old: NDArray[np.float64]) -> bool:
    """More on average, by one standard error of the paired difference: (P,), (P,)."""
    gain = new - old
    error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
    return bool(gain.mean() > error)
