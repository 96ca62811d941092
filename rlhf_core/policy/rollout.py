"""Roll-outs: whole episodes, many passages side by side, the encoder run once a passage.

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
from rlhf_core.policy.agent import Agent, Heard, follow_index
from rlhf_core.policy.losses import NEVER, masked_log_probs


@dataclass(frozen=True)
class Rollout:
    """B edits of P passages, and all that an update needs to see them again.

    batch: a row per edit. passages: the P distinct ones; passage: (B,) long, which of them each
    edit is of.
    actions, last_kept: (B, T) long; log_probs, values: (B, T) float, as acting saw them, at
    temperature 1; masks: (B, T, 10) bool; history: (B, T, HISTORY); free: (B, T) bool, True
    where the beat was a decision.
    """

    batch: PassageBatch
    passages: PassageBatch
    passage: Tensor
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
        kept, passage = torch.unique(self.passage[rows], return_inverse=True)
        return Rollout(
            self.batch.select(rows),
            self.passages.select(kept),
            passage,
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
    passages: PassageBatch,
    generator: torch.Generator,
    temperature: float = 1.0,
    edits: int = 1,
) -> Rollout:
    """Edit every passage `edits` times: rows are all passages once, then all again, and so on.

    temperature 0 takes the likeliest action.
    """
    passage = torch.arange(passages.size, device=agent.device).repeat(edits)
    batch = passages if edits == 1 else passages.select(passage)
    size, length = batch.valid.shape
    noise = gumbel((size, length, N_ACTIONS), generator, agent.device) * temperature
    heard = agent.hear(agent.encode(passages))
    action, taken, value, mask, history, last_kept, free = _acted(
        agent, batch, heard, passage * length, noise
    )
    zero = torch.zeros_like(taken)
    return Rollout(
        batch,
        passages,
        passage,
        torch.where(batch.valid, action, torch.zeros_like(action)),
        torch.where(free, taken, zero),
        torch.where(batch.valid, value, zero),
        mask,
        history,
        last_kept,
        free,
    )


def _acted(
    agent: Agent, batch: PassageBatch, heard: Heard, first: Tensor, noise: Tensor
) -> list[Tensor]:
    """Decide beat by beat: (B, T, …) actions, their log-probabilities, values, masks, history,
    last_kept and free. first: (B,) row of `heard` where each edit's passage begins.
    """
    state = dynamics.initial(batch)
    steps: list[tuple[Tensor, ...]] = []
    for beat in range(batch.width):
        mask = dynamics.mask(batch, state)
        history = dynamics.history(batch, state, mask)
        free = dynamics.free(batch, state)
        follow = first + follow_index(state.last_kept, batch.width)
        logits, value = agent.decide(heard, first + beat, follow, history)
        log_probs = masked_log_probs(logits, mask)
        action = (log_probs + noise[:, beat]).argmax(-1)
        taken = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        steps.append((action, taken, value, mask, history, state.last_kept, free))
        state = dynamics.transition(batch, state, action, mask)
    return [torch.stack(column, dim=1) for column in zip(*steps, strict=True)]


def evaluate(agent: Agent, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """What an agent thinks now of the decisions of a roll-out.

    Returns: log-probabilities of all actions (B, T, 10), values (B, T). Gradients flow. Beyond an
    episode's end KEEP is certain and the value 0: no time is spent there.
    """
    size, length = rollout.actions.shape
    at = rollout.batch.valid.flatten().nonzero().squeeze(1)
    first = rollout.passage[at // length] * length
    follow = first + follow_index(rollout.last_kept.flatten()[at], length)
    heard = agent.hear(agent.encode(rollout.passages))
    history = rollout.history.flatten(0, 1)[at]
    logits, value = agent.decide(heard, first + at % length, follow, history)
    log_probs = masked_log_probs(logits, rollout.masks.flatten(0, 1)[at])
    everywhere = torch.full((size * length, N_ACTIONS), NEVER, device=agent.device)
    everywhere[:, 0] = 0.0
    values = torch.zeros(size * length, device=agent.device)
    return (
        everywhere.index_copy(0, at, log_probs).view(size, length, -1),
        values.index_copy(0, at, value).view(size, length),
    )


def from_actions(passages: PassageBatch, actions: Tensor, passage: Tensor | None = None) -> Rollout:
    """Given edits as a roll-out: what acting would have seen. log_probs and values are 0.

    passage: (B,) long, which of the passages each row of actions (B, T) is of (default: its own).
    """
    if passage is None:
        passage, batch = torch.arange(passages.size, device=passages.device), passages
    else:
        batch = passages.select(passage)
    replay = dynamics.replay(batch, actions)
    zero = torch.zeros(replay.actions.shape, device=replay.actions.device)
    return Rollout(
        batch,
        passages,
        passage,
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
