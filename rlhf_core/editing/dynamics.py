"""Editing as a decision process: pure, batched functions over a `PassageBatch`.

One decision per beat, the same beat in every row; a row beyond its own length is terminal and
stays as it is. `mask`, `transition` and `history` are what a roll-out calls on every beat;
`replay` gives, for whole edits at once, exactly what acting them would have seen. Illegal actions
count as KEEP everywhere, by the rules of `rlhf_core.editing.actions`.

The idea of environments as pure functions is Gymnasium's (`gymnasium.experimental.functional`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.editing.actions import Action
from rlhf_core.editing.output_order import (
    OutputOrder,
    edit_features,
    output_order,
    reward_inputs,
)
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.editing.progress import (
    HISTORY,
    Counters,
    action_effect,
    history_vector,
    legal_mask,
    recent,
    recent_at_all,
    settle,
)

__all__ = [
    "HISTORY",
    "OBSERVATION",
    "EditState",
    "OutputOrder",
    "PassageBatch",
    "Replay",
    "edit_features",
    "free",
    "history",
    "initial",
    "mask",
    "observe",
    "output_order",
    "replay",
    "reward_inputs",
    "terminal",
    "transition",
]

# Features of the beat before, this one, the next, and the one that would have followed the output.
OBSERVED_BEATS: Final = 4
OBSERVATION: Final = OBSERVED_BEATS * BEAT_FEATURES + HISTORY


@dataclass(frozen=True)
class EditState:
    """Edits under way, before the decision on `beat` (the same beat in every row).

    actions: (B, T) long, legal, KEEP from `beat` on. counters: (B,) each, see `Counters`.
    """

    beat: int
    actions: Tensor
    counters: Counters

    @property
    def covered_until(self) -> Tensor:
        """(B,) long: the first beat that no bar action covers."""
        return self.counters.covered_until

    @property
    def output_beats(self) -> Tensor:
        """(B,) long: beats of output so far."""
        return self.counters.output_beats

    @property
    def last_kept(self) -> Tensor:
        """(B,) long: the beat that sounds last in the output so far, -1 when none does."""
        return self.counters.last_kept


class Replay(NamedTuple):
    """What acting an edit sees at every beat.

    Shapes: actions (B, T) long, legal; free (B, T) bool: a decision was taken; masks (B, T, 10);
    history (B, T, HISTORY); last_kept (B, T) long, -1 when nothing sounded before.
    """

    actions: Tensor
    free: Tensor
    masks: Tensor
    history: Tensor
    last_kept: Tensor


def initial(batch: PassageBatch) -> EditState:
    """Before the first decision."""
    zero = torch.zeros_like(batch.lengths)
    return EditState(
        0, torch.zeros_like(batch.bar_phase), Counters(zero, zero, zero - 1, zero, zero, zero)
    )


def terminal(batch: PassageBatch, state: EditState) -> Tensor:
    """(B,) bool: the passage is done."""
    return batch.lengths <= state.beat


def free(batch: PassageBatch, state: EditState) -> Tensor:
    """(B,) bool: this beat is a decision (in the passage, and not covered by a bar action)."""
    return (batch.lengths > state.beat) & (state.covered_until <= state.beat)


def _phase(batch: PassageBatch, state: EditState) -> Tensor:
    return batch.bar_phase[:, min(state.beat, batch.width - 1)]


def mask(batch: PassageBatch, state: EditState) -> Tensor:
    """(B, 10) bool: legal actions; covered and terminal rows allow KEEP alone."""
    phase = _phase(batch, state)
    return legal_mask(state.beat, state.counters, batch.lengths, phase, batch.beats_per_bar)


def transition(
    batch: PassageBatch, state: EditState, action: Tensor, legal: Tensor | None = None
) -> EditState:
    """The state after one decision per row.

    Args:
        action: (B,) long; an illegal one counts as KEEP, terminal rows ignore theirs.
        legal: (B, 10) the result of `mask` for this state, where the caller has it already.
    """
    beat, before = state.beat, state.counters
    if legal is None:
        legal = mask(batch, state)
    action = torch.where(legal.gather(1, action[:, None])[:, 0], action, int(Action.KEEP))
    live = batch.lengths > beat
    is_free = live & (before.covered_until <= beat)
    effect = action_effect(beat, action, is_free, live, before, batch.beats_per_bar)
    cut = action == Action.CUT
    actions = state.actions
    if beat < batch.width:
        actions = actions.clone()
        actions[:, beat] = action
    counters = Counters(
        torch.maximum(before.covered_until, effect.covered_until),
        before.output_beats + effect.output_beats,
        torch.maximum(before.last_kept, effect.last_kept),
        torch.maximum(before.last_join, effect.last_join),
        before.kept_beats + (live & ~cut),
        torch.where(live, (before.cut_run + 1) * cut, before.cut_run),
    )
    return EditState(beat + 1, actions, counters)


def history(batch: PassageBatch, state: EditState, legal: Tensor | None = None) -> Tensor:
    """(B, HISTORY) float32 in 0..1: the edit so far, without beat features; 0 in terminal rows.

    Position, beats left, length; keep density so far and over 8 beats; output per input beat;
    beats since the last join; length of the current run of cuts; whether a join is pending and
    whether it would keep the bar and the phrase going; what is legal; place in bar and phrase;
    the last four actions. `progress` lists them in order.
    """
    if legal is None:
        legal = mask(batch, state)
    last_actions, recent_kept = recent(state.actions, state.beat)
    phase = _phase(batch, state)
    return history_vector(
        state.beat,
        state.counters,
        legal,
        batch.lengths,
        phase,
        batch.beats_per_bar,
        last_actions,
        recent_kept,
    )


def observe(batch: PassageBatch, state: EditState) -> Tensor:
    """(B, OBSERVATION) float32: standardised beat features, then the history.

    The beats are the one before, this one, the next, and the one that would have followed the
    last beat of output; zeros where there is none, and in terminal rows.
    """
    beat = torch.full_like(batch.lengths, state.beat)
    index = torch.stack((beat - 1, beat, beat + 1, state.last_kept + 1), 1)
    inside = (index >= 0) & (index < batch.lengths[:, None])
    rows = torch.arange(batch.size, device=batch.device)[:, None]
    seen = batch.standardised[rows, index.clamp(0, batch.width - 1)] * inside[..., None]
    seen = seen * ~terminal(batch, state)[:, None, None]
    return torch.cat((seen.flatten(1), history(batch, state)), 1)


def replay(batch: PassageBatch, actions: Tensor) -> Replay:
    """Teacher forcing: what `mask`, `history` and the state show at every beat of whole edits.

    Args: actions (B, T) long; illegal ones count as KEEP, those beyond a passage are ignored.
    Raises EditError on wrong shape or ids.
    """
    settled = settle(batch, actions)
    last_actions, recent_kept = recent_at_all(settled.actions, batch.valid)
    vector = history_vector(
        batch.beats.expand(batch.size, -1),
        settled.counters,
        settled.masks,
        batch.lengths[:, None].expand(-1, batch.width),
        batch.bar_phase,
        batch.beats_per_bar[:, None],
        last_actions,
        recent_kept,
    )
    return Replay(settled.actions, settled.free, settled.masks, vector, settled.counters.last_kept)
