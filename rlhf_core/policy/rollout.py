"""Roll-outs: whole episodes, many passages side by side, the encoder run once.

Randomness comes from one CPU generator as Gumbel noise drawn up front, so that a seed means the
same actions on every device, and a roll-out can be repeated exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_core.editing import dynamics
from rlhf_core.editing.actions import N_ACTIONS
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy.agent import Agent, follow_index
from rlhf_core.policy.losses import masked_log_probs


@dataclass(frozen=True)
class Rollout:
    """B edits of one passage each, and all that an update needs to see them again.

    actions, last_kept: (B, T) long; log_probs, values: (B, T) float, as acting saw them, at
    temperature 1; masks: (B, T, 10) bool; history: (B, T, HISTORY); free: (B, T) bool, True
    where the beat was a decision.
    """

    batch: PassageBatch
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    masks: Tensor
    history: Tensor
    last_kept: Tensor
    free: Tensor

    @property
    def steps(self) -> int:
        """Beats decided or forced, over all episodes."""
        return int(self.batch.lengths.sum())

    def select(self, rows: Tensor) -> Rollout:
        """Some of the episodes."""
        return Rollout(
            self.batch.select(rows),
            *(
                value[rows]
                for value in (
                    self.actions,
                    self.log_probs,
                    self.values,
                    self.masks,
                    self.history,
                    self.last_kept,
                    self.free,
                )
            ),
        )


def gumbel(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise: argmax(log p + noise) is a draw from p."""
    uniform = torch.rand(shape, generator=generator).clamp(1e-10, 1 - 1e-7)
    return -torch.log(-torch.log(uniform)).to(device)


@torch.no_grad()
def collect(
    agent: Agent,
    batch: PassageBatch,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Rollout:
    """Edit every passage of the batch once. temperature 0 takes the likeliest action."""
    size, length = batch.valid.shape
    encoded = agent.encode(batch)
    noise = gumbel((size, length, N_ACTIONS), generator, agent.device) * temperature
    rows = torch.arange(size, device=agent.device)
    state = dynamics.initial(batch)
    steps: list[tuple[Tensor, ...]] = []
    for beat in range(length):
        mask = dynamics.mask(batch, state)
        history = dynamics.history(batch, state, mask)
        free = dynamics.free(batch, state)
        follow = encoded[rows, follow_index(state.last_kept, length)]
        logits, value = agent.decide(encoded[:, beat], follow, history)
        log_probs = masked_log_probs(logits, mask)
        action = (log_probs + noise[:, beat]).argmax(-1)
        taken = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        steps.append((action, taken, value, mask, history, state.last_kept, free))
        state = dynamics.transition(batch, state, action, mask)
    action, taken, value, mask, history, last_kept, free = (
        torch.stack(column, dim=1) for column in zip(*steps, strict=True)
    )
    zero = torch.zeros_like(taken)
    return Rollout(
        batch,
        torch.where(batch.valid, action, torch.zeros_like(action)),
        torch.where(free, taken, zero),
        torch.where(batch.valid, value, zero),
        mask,
        history,
        last_kept,
        free,
    )


def evaluate(agent: Agent, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """What an agent thinks now of the decisions of a roll-out.

    Returns: log-probabilities of all actions (B, T, 10), values (B, T). Gradients flow.
    """
    encoded = agent.encode(rollout.batch)
    logits, values = agent.decide_all(encoded, rollout.last_kept, rollout.history)
    return masked_log_probs(logits, rollout.masks), values


def from_actions(batch: PassageBatch, actions: Tensor) -> Rollout:
    """Given edits as a roll-out: what acting would have seen. log_probs and values are 0."""
    replay = dynamics.replay(batch, actions)
    zero = torch.zeros(replay.actions.shape, device=replay.actions.device)
    return Rollout(
        batch,
        replay.actions,
        zero,
        zero,
        replay.masks,
        replay.history,
        replay.last_kept,
        replay.free,
    )


def taken(log_probs: Tensor, actions: Tensor) -> Tensor:
    """Log-probability of the action taken: (B, T, 10), (B, T) -> (B, T)."""
    return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
