"""Objective attributes of an edit: what a reward model's trunk learns to see before any vote.

None of them says whether an edit is good. Shapes: B edits, T beats, K = len(ATTRIBUTE_NAMES).
Feature values are deviations from the passage's own mean (`PassageBatch.standardised`), so songs
compare; a value that is a mean over nothing (joins of an edit without joins) is 0.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlhf_core.audio.feature_table import FEATURE_SLICES
from rlhf_core.editing.actions import Action
from rlhf_core.editing.dense_reward import energy_flow, join_distances, runs
from rlhf_core.editing.output_order import OutputOrder, output_order
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.editing.progress import settle
from rlhf_core.types import PHRASE_BEATS

ATTRIBUTE_NAMES: Final = (
    # how much
    "keep_ratio",  # share of the passage's beats that are not cut
    "log_length",  # natural log of output beats per source beat
    "loops",  # the next six: share of the passage's beats with this action
    "reverses",
    "fades",
    "gains_down",
    "gains_up",
    "cut_runs",  # separate stretches that are cut
    "repeated_bars",  # the next two: share of the passage's beats inside such bars
    "swapped_bars",
    "repetition",  # share of output beats that sound for the second time
    # how it is joined
    "joins",  # joins per output beat
    "joins_on_downbeat",  # share of joins that enter on a downbeat
    "joins_in_metre",  # share of joins that carry the position in the bar on
    "joins_in_phrase",  # … that carry the position in the 8-beat phrase on
    "join_mismatch",  # mean difference of the durations either side, in median beats
    "join_discontinuity",  # mean distance from what would have followed (join_distances)
    "worst_join",  # the largest such distance
    "whole_phrases",  # share of output beats in runs of whole 8-beat phrases
    "whole_bars",  # share of output beats in runs of whole bars
    "log_run",  # natural log of the mean run length in beats
    # how its level goes
    "energy_slope",  # slope of RMS with gains over the output, deviations per output
    "energy_flow",  # min(v, 1/v) of the variance of RMS (see dense_reward)
    "mean_gain",  # mean linear gain, less 1
    # what was chosen: mean of the output less the shrunk mean of what was cut
    "energy_chosen",
    "onset_chosen",
    "brightness_chosen",
    "chroma_change_chosen",
    "novelty_chosen",
    "vocals_chosen",
    "drums_chosen",
)
_SHRINK_BEATS = 4.0  # as many beats of an average kind are added to those cut


def edit_attributes(batch: PassageBatch, actions: Tensor) -> Tensor:
    """(B, K) float32, finite, columns as in `ATTRIBUTE_NAMES`. Illegal actions count as KEEP."""
    legal = settle(batch, actions).actions
    order = output_order(batch, legal)
    values = {
        **_amounts(batch, legal, order),
        **_joins(batch, order),
        **_levels(batch, order),
        **_choices(batch, legal, order),
    }
    return torch.stack([values[name].float() for name in ATTRIBUTE_NAMES], 1)


def share_in_whole(
    order: OutputOrder, lengths: Tensor, unit: int | Tensor, origin: int | Tensor = 0
) -> Tensor:
    """(B,) share of output beats in runs that begin and end on multiples of `unit` beats.

    unit, origin: beats, one number or (B, 1). The passage's own start and end count as such.
    """
    first, last, _ = runs(order)
    stop = last + 1
    begins = (first == 0) | ((first - origin) % unit == 0)
    ends = (stop == lengths[:, None]) | ((stop - origin) % unit == 0)
    whole = begins & ends & order.valid
    return whole.sum(1) / order.lengths.clamp(min=1)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """(B,) mean over the beats selected, 0 where none is."""
    return (values * where).sum(1) / where.sum(1).clamp(min=1)


def _amounts(batch: PassageBatch, legal: Tensor, order: OutputOrder) -> dict[str, Tensor]:
    n, bar = batch.lengths, batch.beats_per_bar

    def share(*chosen: Action) -> Tensor:
        return torch.stack([legal == action for action in chosen]).any(0).sum(1) / n

    cut = legal == Action.CUT
    starts = cut & ~pad(cut[:, :-1], (1, 0), value=False)
    return {
        "keep_ratio": 1 - share(Action.CUT),
        "log_length": (order.lengths / n).log(),
        "loops": share(Action.LOOP),
        "reverses": share(Action.REVERSE),
        "fades": share(Action.FADE_IN, Action.FADE_OUT),
        "gains_down": share(Action.GAIN_DOWN),
        "gains_up": share(Action.GAIN_UP),
        "cut_runs": starts.sum(1) / n,
        "repeated_bars": share(Action.REPEAT_BAR) * bar,
        "swapped_bars": share(Action.SWAP_BAR) * 2 * bar,
        "repetition": order.copy.sum(1) / order.lengths,
    }


def _joins(batch: PassageBatch, order: OutputOrder) -> dict[str, Tensor]:
    joins, bar = order.joins, batch.beats_per_bar[:, None]
    skipped = order.source - pad(order.source[:, :-1], (1, 0)) - 1
    mismatch, distance = join_distances(batch, order)
    first, last, place = runs(order)
    phase = batch.bar_phase.gather(1, order.source)
    index = torch.arange(place.shape[1], device=place.device)[None]
    run_starts = (place == index) & order.valid
    # Bars are counted from the passage's first downbeat.
    origin = (bar - batch.bar_phase[:, :1]) % bar
    return {
        "joins": joins.sum(1) / order.lengths,
        "joins_on_downbeat": _mean(phase == 0, joins),
        "joins_in_metre": _mean(skipped % bar == 0, joins),
        "joins_in_phrase": _mean(skipped % PHRASE_BEATS == 0, joins),
        "join_mismatch": _mean(mismatch, joins),
        "join_discontinuity": _mean(distance, joins),
        "worst_join": (distance * joins).amax(1),
        "whole_phrases": share_in_whole(order, batch.lengths, PHRASE_BEATS),
        "whole_bars": share_in_whole(order, batch.lengths, bar, origin),
        "log_run": _mean(last - first + 1, run_starts).clamp(min=1).log(),
    }


def _levels(batch: PassageBatch, order: OutputOrder) -> dict[str, Tensor]:
    column = FEATURE_SLICES["rms"].start
    rms = order.take(batch.features[..., column]) * order.gain
    own = batch.features[..., column]
    mean = _mean(own, batch.valid)
    spread = _mean((own - mean[:, None]).square(), batch.valid).sqrt()
    unit = torch.maximum(spread, 0.01 * mean.abs() + 1e-6)
    index = torch.arange(rms.shape[1], device=rms.device)[None]
    position = (index + 0.5) / order.lengths[:, None] - 0.5
    position = position * order.valid
    slope = (position * rms).sum(1) / position.square().sum(1).clamp(min=1e-6)
    return {
        "energy_slope": (slope / unit).clamp(-10, 10),
        "energy_flow": energy_flow(batch, order),
        "mean_gain": _mean(order.gain, order.valid) - 1,
    }


def _choices(batch: PassageBatch, legal: Tensor, order: OutputOrder) -> dict[str, Tensor]:
    features = batch.standardised
    cut = legal == Action.CUT

    def column(name: str, offset: int = 0) -> Tensor:
        return features[..., FEATURE_SLICES[name].start + offset]

    chroma = features[..., FEATURE_SLICES["chroma"]]
    novelty = pad((features[:, 1:] - features[:, :-1]).square().mean(-1).sqrt(), (1, 0))
    change = pad((chroma[:, 1:] - chroma[:, :-1]).square().mean(-1).sqrt(), (1, 0))
    qualities = {
        "energy_chosen": column("rms"),
        "onset_chosen": column("onset_strength"),
        "brightness_chosen": column("spectral_centroid"),
        "chroma_change_chosen": change - _mean(change, batch.valid)[:, None],
        "novelty_chosen": novelty - _mean(novelty, batch.valid)[:, None],
        "vocals_chosen": column("stem_energy", 2),
        "drums_chosen": column("stem_energy", 0),
    }
    return {
        name: _mean(order.take(values), order.valid)
        - (values * cut).sum(1) / (cut.sum(1) + _SHRINK_BEATS)
        for name, values in qualities.items()
    }
