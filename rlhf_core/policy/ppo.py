"""Proximal policy optimisation on whole episodes, held near a reference policy.

A passage's reward comes at its end, gamma is 1, and advantages are estimated per episode.
Minibatches are whole episodes, because the encoder reads whole passages. Their loss is

    clipped objective + value_weight * value loss - entropy_weight * entropy
    + kl_weight * KL(policy || reference), exact over the ten actions of each free decision,

and both weights follow what they are to hold: kl_weight goes up when the KL passes `kl_target`, and
down when it is well below; entropy_weight goes up when the entropy falls below `entropy_target`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_core.errors import ConfigError
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.losses import (
    clipped_objective,
    entropy,
    explained_variance,
    gae,
    kl_categorical,
    less_group_mean,
    masked_mean,
    normalise,
    value_loss,
)
from rlhf_core.policy.rollout import Rollout, evaluate, taken
from rlhf_core.policy.shares import averaged, descend, my_rows, weight

KL_WEIGHT_RANGE = (1e-3, 20.0)
MOST_ENTROPY_WEIGHT = 1.0
STEP, DEADBAND = 1.5, 1.2


@dataclass(frozen=True)
class PPOConfig:
    """Hyper-parameters. KLs are in nats per free decision.

    update_kl: an update's epochs end once the policy is this far from where they began.
    gae_lambda: near 1, because the first decisions set an edit's style and the reward comes ~64
        beats later (win rate against the start after 40,000 steps: .95 77 %, .99 96 %, 1 74 %).
    group_baseline: an edit is paid by how much better it is than the roll-out's other edits of its
        passage. Climbing a judge's true score for 61,440 steps, 94 % and 87 % against the start
        with it, 90 % and 80 % without (and hardly any variety left).
    kl_target: how far from the reference the policy may settle; kl_weight is where the penalty
        begins (0 switches it off). Climbing a judge's true score for 40,000 steps, .05 and .15 win
        80-85 % and 83-88 % against the start; for 120,000 steps .15 wins 91-94 %.
    entropy_target: nats per free decision below which entropy_weight, at least its first value,
        grows (0 or a weight of 0: it stays). A policy that has lost its variety has nothing to
        compare: its next training goes nowhere (docs/policy-learning.md).
    """

    lr: float = 5e-4
    epochs: int = 5
    minibatch_episodes: int = 16
    clip: float = 0.2
    gamma: float = 1.0
    gae_lambda: float = 0.99
    group_baseline: bool = True
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    entropy_target: float = 0.2
    max_grad_norm: float = 0.5
    update_kl: float = 0.03
    kl_target: float = 0.15
    kl_weight: float = 0.3

    def __post_init__(self) -> None:
        positive = (self.lr, self.epochs, self.minibatch_episodes, self.clip, self.max_grad_norm)
        if min(positive) <= 0 or min(self.update_kl, self.kl_target) <= 0:
            raise ConfigError(f"PPO settings must be positive: {self}")
        if not (0 < self.gamma <= 1 and 0 <= self.gae_lambda <= 1):
            raise ConfigError(f"gamma {self.gamma} and gae_lambda {self.gae_lambda} lie in 0..1")


def minibatches(rollout: Rollout, episodes: int, generator: torch.Generator) -> list[Tensor]:
    """Rows of all episodes in random parts of about `episodes`; edits of a passage stay together.

    Passages are shuffled, and each part is encoded once for all of its edits.
    """
    device = rollout.passage.device
    order = torch.randperm(rollout.passages.size, generator=generator).to(device)
    rows = order[rollout.passage].argsort(stable=True)
    return list(torch.split(rows, episodes))


def adapted(weight: float, excess: float, least: float, most: float) -> float:
    """A penalty's weight after an update. excess: how often its target what was measured is."""
    if excess > DEADBAND:
        return min(most, weight * STEP)
    return max(least, weight / STEP) if excess < 1 / DEADBAND else weight


class PPOTrainer:
    """Updates one agent. State beside the weights: the optimiser and the two adaptive weights."""

    def __init__(self, agent: Agent, reference: Agent, config: PPOConfig | None = None) -> None:
        self.agent, self.reference = agent, reference
        self.config = config or PPOConfig()
        self.kl_weight = self.config.kl_weight
        self.entropy_weight = self.config.entropy_weight
        self.optimizer = torch.optim.Adam(
            agent.parameters(), lr=self.config.lr, eps=1e-5, fused=True
        )

    def update(
        self, rollout: Rollout, rewards: Tensor, generator: torch.Generator
    ) -> dict[str, float]:
        """Learn from one roll-out.

        rewards: (B,) one number per episode, paid at its end, or (B, T) one per step.
        """
        config = self.config
        advantages, returns = self._advantages(rollout, rewards)
        with torch.no_grad():
            reference, _ = evaluate(self.reference, rollout)
        logs, stopped = [], False
        for _ in range(config.epochs):
            epoch = [
                self._step(rollout, rows, advantages, returns, reference)
                for rows in minibatches(rollout, config.minibatch_episodes, generator)
            ]
            logs += epoch
            if sum(log["approx_kl"] for log in epoch) / len(epoch) > config.update_kl:
                stopped = True
                break
        result = {key: sum(log[key] for log in logs) / len(logs) for key in logs[0]}
        for key in ("kl_reference", "entropy"):
            result[key] = sum(log[key] for log in epoch) / len(epoch)  # where it ended
        self._adapt(result["kl_reference"], result["entropy"])
        result["explained_variance"] = explained_variance(
            rollout.values, returns, rollout.batch.valid
        )
        result |= {"kl_weight": self.kl_weight, "entropy_weight": self.entropy_weight}
        result["stopped_early"] = float(stopped)
        return result

    def _advantages(self, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        valid = rollout.batch.valid
        paid = rewards
        if rewards.ndim == 1:
            if self.config.group_baseline:
                rewards = less_group_mean(rewards, rollout.passage)
            last = (rollout.batch.lengths - 1).unsqueeze(-1)
            paid = torch.zeros_like(rollout.values)
            paid.scatter_(1, last, rewards.unsqueeze(-1).to(paid.dtype))
        advantages, returns = gae(
            paid, rollout.values, valid, self.config.gamma, self.config.gae_lambda
        )
        return normalise(advantages, rollout.free), returns

    def _step(
        self,
        rollout: Rollout,
        rows: Tensor,
        advantages: Tensor,
        returns: Tensor,
        reference: Tensor,
    ) -> dict[str, float]:
        """One optimiser step on some episodes (this process's share of them)."""
        config, mine = self.config, my_rows(rows)
        decisions = weight(rows, rollout.free.sum(1))
        beats = weight(rows, rollout.batch.lengths)
        part = rollout.select(mine)
        log_probs, values = evaluate(self.agent, part)
        now = taken(log_probs, part.actions)
        policy, approx_kl, clipped = clipped_objective(
            now, part.log_probs, advantages[mine], part.free, config.clip
        )
        value = value_loss(values, returns[mine], part.batch.valid)
        randomness = masked_mean(entropy(log_probs), part.free)
        drift = masked_mean(kl_categorical(log_probs, reference[mine]), part.free)
        loss = policy - self.entropy_weight * randomness
        if config.kl_weight > 0:
            loss = loss + self.kl_weight * drift
        loss = decisions * loss + beats * config.value_weight * value
        norm = descend(loss, self.agent.parameters(), self.optimizer, config.max_grad_norm)
        log = {
            "policy_loss": float(policy.detach()),
            "value_loss": float(value.detach()),
            "approx_kl": float(approx_kl),
            "clip_fraction": float(clipped),
            "entropy": float(randomness.detach()),
            "kl_reference": float(drift.detach()),
            "grad_norm": norm,
        }
        return averaged(
            log, dict.fromkeys(log, decisions) | {"value_loss": beats, "grad_norm": 1.0}
        )

    def _adapt(self, drift: float, randomness: float) -> None:
        config = self.config
        if config.kl_weight > 0:
            self.kl_weight = adapted(self.kl_weight, drift / config.kl_target, *KL_WEIGHT_RANGE)
        lack = config.entropy_target / max(randomness, 1e-9)
        self.entropy_weight = adapted(
            self.entropy_weight, lack, config.entropy_weight, MOST_ENTROPY_WEIGHT
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "kl_weight": self.kl_weight,
            "entropy_weight": self.entropy_weight,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.kl_weight = float(state["kl_weight"])
        # trainings of before this one adapted, too, had the weight of their settings throughout
        self.entropy_weight = float(state.get("entropy_weight", self.config.entropy_weight))
