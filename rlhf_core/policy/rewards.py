"""What a training pays for an edit: learned and dense reward in one number, raw values beside.

The learned term is a lower confidence bound relative to what the reference policy does with the
same passage: votes only ever compare edits of one passage, so only that difference is known, and
where the reward model is unsure of it the policy is not paid for it: without the bound, the first
round on few votes is exploited (docs/policy-learning.md).

The other way to respect what votes leave open is to sample: each roll-out is paid by another taste
drawn from the reward's posterior, so that only what most tastes agree on adds up over updates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rlhf_core.editing.dense_reward import dense_reward
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.rollout import collect
from rlhf_core.reward.checkpoint import RewardCheckpoint
from rlhf_core.reward.learned_reward_integration import LEARNED, LearnedRewardIntegration
from rlhf_core.types import AudioState, Passage

Item = tuple[AudioState, Passage]
REFERENCE_EDITS = 8
JITTER = 1e-9


@dataclass(frozen=True)
class EditRewards:
    """Rewards of B edits, (B,) each. total is what is learned from; raw values are unscaled.

    learned and learned_raw are None where there is no reward model; clamped says whose learned
    reward lay outside the limits.
    """

    total: Tensor
    dense: Tensor
    dense_raw: Tensor
    learned: Tensor | None = None
    learned_raw: Tensor | None = None
    clamped: Tensor | None = None

    def means(self) -> dict[str, float | None]:
        """The history's columns."""
        mean = {"total_reward": float(self.total.mean()), "dense_reward": float(self.dense.mean())}
        parts = {
            "learned_reward": self.learned,
            "learned_raw": self.learned_raw,
            "dense_raw": self.dense_raw,
            "clamped_share": None if self.clamped is None else self.clamped,
        }
        return mean | {
            name: None if value is None else float(value.mean()) for name, value in parts.items()
        }


class RewardSource(Protocol):
    """Pays edits. items: the B passages of the batch."""

    def __call__(
        self, batch: PassageBatch, actions: Tensor, items: Sequence[Item]
    ) -> EditRewards: ...


def dense_only(batch: PassageBatch, actions: Tensor, items: Sequence[Item]) -> EditRewards:
    """The rules alone, where there is no reward model."""
    dense = dense_reward(batch, actions)
    return EditRewards(dense, dense, dense)


class LearnedRewards:
    """Pays weighted learned and dense reward as a `LearnedRewardIntegration` is configured.

    The mean embedding of the reference policy's edits of a passage is computed when the passage
    is first met, from the passage and the seed alone, so that it does not depend on when that is.
    """

    def __init__(
        self,
        integration: LearnedRewardIntegration,
        reference: Agent,
        seed: int = 0,
        learned: str = LEARNED[0],
    ) -> None:
        self.integration, self.reference, self.seed = integration, reference, seed
        self.learned = learned
        self._known: dict[tuple[str, int, int], Tensor] = {}

    def __call__(self, batch: PassageBatch, actions: Tensor, items: Sequence[Item]) -> EditRewards:
        phi, reference = self.integration.embed(batch, actions), self.references(items)
        scores = self.integration.score_embeddings(phi, reference)
        learned = scores.lower
        if self.learned == "sampling":
            learned = self._sampled(phi - reference, actions)
        paid = self.integration.combine(learned, scores.raw, dense_reward(batch, actions))
        return EditRewards(
            paid.total, paid.dense, paid.dense_raw, paid.learned, paid.learned_raw, paid.clamped
        )

    def steady(self) -> LearnedRewards:
        """The same by the lower bound: to compare policies by, which luck of the draw must not."""
        twin = LearnedRewards(self.integration, self.reference, self.seed)
        twin._known = self._known
        return twin

    def _sampled(self, away: Tensor, actions: Tensor) -> Tensor:
        """Scores (B,) in sigmas by one taste, which the edits themselves decide by their hash.

        So a resumed training draws what an unbroken one would have.
        """
        digest = hashlib.sha256(actions.cpu().numpy().tobytes()).digest()
        draw = np.random.default_rng([self.seed, *digest[:8]])
        made = self.integration.checkpoint
        weights = taste_weights(made, 1, draw)[:, 0].to(away.device)
        return (away.double() @ weights / made.sigma).float()

    def references(self, items: Sequence[Item]) -> Tensor:
        """(B, D) mean embedding of the reference policy's edits of each passage."""
        return torch.stack([self._reference_of(item) for item in items])

    @torch.no_grad()
    def _reference_of(self, item: Item) -> Tensor:
        state, passage = item
        key = (state.song_id, passage.start_beat, passage.end_beat)
        if key not in self._known:
            digest = hashlib.sha256(repr((self.seed, *key)).encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
            device = self.reference.device
            batch = PassageBatch.from_passages([item] * REFERENCE_EDITS, device)
            actions = collect(self.reference, batch, generator).actions
            self._known[key] = self.integration.embed(batch, actions).mean(0)
        return self._known[key]


def taste_weights(made: RewardCheckpoint, count: int, rng: np.random.Generator) -> Tensor:
    """(D, count) float64 on the CPU: tastes drawn from a reward's posterior."""
    covariance = made.covariance.double().cpu().numpy()
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root = vectors * np.sqrt(np.clip(values, JITTER, None))
    noise = rng.standard_normal((len(values), count))
    return made.mean.double().cpu()[:, None] + torch.from_numpy(root @ noise)
