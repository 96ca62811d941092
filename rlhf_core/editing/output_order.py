"""What edits sound like, as tensors: which beat plays when, how loud, in which direction.

`output_order` is `edl.build_edl` for whole batches and agrees with it exactly (a property test
holds them together); `reward_inputs` is what the reward model reads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_core.editing.actions import GAIN_DOWN_DB, GAIN_UP_DB, Action
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.editing.progress import settle

_DENSITY_REACH = 4  # beats on either side that count as local


class OutputOrder(NamedTuple):
    """The output beat by beat, padded to 2 T (no beat plays more than twice).

    source: (B, 2T) long, beat of the passage; copy: (B, 2T) long, 1 on a second playing;
    valid: (B, 2T) bool; gain: (B, 2T) mean linear gain over the beat; reverse: (B, 2T) bool.
    Values where not valid are 0. lengths: (B,) long, beats of output.
    """

    source: Tensor
    copy: Tensor
    valid: Tensor
    gain: Tensor
    reverse: Tensor
    lengths: Tensor

    @property
    def joins(self) -> Tensor:
        """(B, 2T) bool: True on an output beat that does not play straight on from the last."""
        straight = self.source[:, 1:] == self.source[:, :-1] + 1
        straight &= ~self.reverse[:, 1:] & ~self.reverse[:, :-1]
        joins = torch.zeros_like(self.valid)
        joins[:, 1:] = ~straight & self.valid[:, 1:]
        return joins

    def take(self, values: Tensor) -> Tensor:
        """Values per beat (B, T) in output order (B, 2T), 0 where not valid."""
        return values.gather(1, self.source) * self.valid


def output_order(batch: PassageBatch, actions: Tensor) -> OutputOrder:
    """The output of edits. Args: actions (B, T) long, illegal ones count as KEEP."""
    legal = settle(batch, actions).actions
    beats, bar = batch.beats, batch.beats_per_bar[:, None]
    repeat, swap = legal == Action.REPEAT_BAR, legal == Action.SWAP_BAR
    owner = torch.where(repeat | swap, beats, -1).cummax(1).values  # latest bar action so far
    since = beats - owner
    owned = torch.where(owner >= 0, legal.gather(1, owner.clamp(min=0)), int(Action.KEEP))
    repeated = (owned == Action.REPEAT_BAR) & (since < bar)
    swapped_on = (owned == Action.SWAP_BAR) & (since < bar)  # the first bar, which plays second
    swapped_back = (owned == Action.SWAP_BAR) & (since >= bar) & (since < 2 * bar)
    twice = repeated | (legal == Action.LOOP)
    plays = ((legal != Action.CUT) & batch.valid).long() * (1 + twice.long())
    start = plays.cumsum(1) - plays
    first = start - since * repeated + bar * (swapped_on.long() - swapped_back.long())
    second = first + torch.where(repeated, bar, 1)
    return _lay_out(batch, legal, first, second, plays)


def _lay_out(
    batch: PassageBatch, legal: Tensor, first: Tensor, second: Tensor, plays: Tensor
) -> OutputOrder:
    """Scatter the beats to their places; what does not play goes to a slot that is dropped."""
    width = 2 * batch.width
    source = torch.zeros(batch.size, width + 1, dtype=torch.long, device=batch.device)
    copy = torch.zeros_like(source)
    beats = batch.beats.expand(batch.size, -1)
    source.scatter_(1, torch.where(plays > 0, first, width), beats)
    again = torch.where(plays > 1, second, width)
    source.scatter_(1, again, beats)
    copy.scatter_(1, again, torch.ones_like(again))
    lengths = plays.sum(1)
    valid = torch.arange(width, device=batch.device)[None] < lengths[:, None]
    source, copy = source[:, :width] * valid, copy[:, :width] * valid
    gain = beat_gains(batch, legal).gather(1, source) * valid
    reverse = (legal == Action.REVERSE).gather(1, source) & valid
    return OutputOrder(source, copy, valid, gain, reverse, lengths)


def beat_gains(batch: PassageBatch, legal: Tensor) -> Tensor:
    """(B, T) mean linear gain of each beat under legal actions; neighbouring fades are one ramp."""
    beats = batch.beats
    changes = torch.ones_like(batch.valid)
    changes[:, 1:] = legal[:, 1:] != legal[:, :-1]
    begin = torch.where(changes, beats, 0).cummax(1).values
    last = torch.ones_like(batch.valid)
    last[:, :-1] = changes[:, 1:]
    end = torch.where(last, beats + 1, batch.width).flip(1).cummin(1).values.flip(1)
    end = torch.minimum(end, batch.lengths[:, None])
    rise = (beats - begin + 0.5) / (end - begin).clamp(min=1)
    gain = torch.ones_like(batch.durations)
    gain = torch.where(legal == Action.FADE_IN, rise, gain)
    gain = torch.where(legal == Action.FADE_OUT, 1.0 - rise, gain)
    gain = torch.where(legal == Action.GAIN_DOWN, 10 ** (GAIN_DOWN_DB / 20), gain)
    return torch.where(legal == Action.GAIN_UP, 10 ** (GAIN_UP_DB / 20), gain)


def _edit_features(batch: PassageBatch, legal: Tensor, output_beats: Tensor) -> Tensor:
    valid = batch.valid
    kept = ((legal != Action.CUT) & valid).float()
    cut = ((legal == Action.CUT) & valid).float()
    total = output_beats[:, -1:].clamp(min=1)
    place = output_beats[:, :-1] / total * valid
    density = _window_sum(kept) / _window_sum(valid.float()).clamp(min=1) * valid
    return torch.stack((kept, cut, place, density), -1)


def _window_sum(values: Tensor) -> Tensor:
    """(B, T) sums over `_DENSITY_REACH` beats on either side."""
    sums = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    width = values.shape[1]
    index = torch.arange(width, device=values.device)
    upper = (index + _DENSITY_REACH + 1).clamp(max=width)
    return sums[:, upper] - sums[:, (index - _DENSITY_REACH).clamp(min=0)]


def _with_total(batch: PassageBatch, legal: Tensor, before: Tensor) -> Tensor:
    """(B, T + 1) output beats before each beat, then the total."""
    bar = batch.beats_per_bar
    tail = torch.ones_like(bar)
    last = legal[:, -1]
    tail = torch.where(last == Action.CUT, 0, tail)
    tail = torch.where(last == Action.LOOP, 2, tail)
    tail = torch.where(last == Action.REPEAT_BAR, 1 + bar, tail)
    total = before[:, -1] + tail * batch.valid[:, -1]
    return torch.cat((before, total[:, None]), 1)


def edit_features(batch: PassageBatch, actions: Tensor) -> Tensor:
    """(B, T, 4) float32, columns as in `feature_table.EDIT_FEATURES`, 0 as padding.

    kept, cut: 0 or 1. output_position: share of the output that is over before this beat.
    local_keep_density: share of kept beats among those at most 4 beats away.
    """
    settled = settle(batch, actions)
    output = _with_total(batch, settled.actions, settled.counters.output_beats)
    return _edit_features(batch, settled.actions, output)


def reward_inputs(batch: PassageBatch, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the reward model reads: features (B, T, 125), action ids (B, T) long, valid (B, T).

    Features are the raw beat features, then the edit features. Illegal actions count as KEEP.
    """
    settled = settle(batch, actions)
    output = _with_total(batch, settled.actions, settled.counters.output_beats)
    edit = _edit_features(batch, settled.actions, output)
    return torch.cat((batch.features, edit), -1), settled.actions, batch.valid
