"""The dense reward: four plain qualities of an edit, from beat-level data alone.

Each lies in 0..1, depends on the edit, and is 1 for an edit that keeps everything. The reward is
their mean. The correlations below were measured on 350 random edits against the same quality
computed on the rendered, re-analysed audio.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from rlhf_core.audio.feature_table import FEATURE_SLICES
from rlhf_core.editing.output_order import OutputOrder, output_order
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.types import PHRASE_BEATS

DENSE_COMPONENTS: Final = (
    "tempo_consistency",
    "energy_flow",
    "phrase_completeness",
    "transition_quality",
)
WINDOW_BEATS: Final = 8
FREE_BPM: Final = 5.0  # a change of tempo that costs nothing
BPM_SCALE: Final = 10.0
MISMATCH_SCALE: Final = 0.05  # of a beat
CONTINUITY_SCALE: Final = 0.5  # half the distance of two unrelated contexts
_RMS: Final = FEATURE_SLICES["rms"].start


def dense_components(batch: PassageBatch, actions: Tensor) -> Tensor:
    """(B, 4) float32 in 0..1, columns as in `DENSE_COMPONENTS`. Illegal actions count as KEEP."""
    order = output_order(batch, actions)
    return torch.stack(
        (
            tempo_consistency(batch, order),
            energy_flow(batch, order),
            phrase_completeness(batch, order),
            transition_quality(batch, order),
        ),
        1,
    )


def dense_reward(batch: PassageBatch, actions: Tensor) -> Tensor:
    """(B,) float32 in 0..1: the mean of the four components."""
    return dense_components(batch, actions).mean(1)


def _window_bpm(durations: Tensor) -> Tensor:
    """(B, N - 7) tempo of every 8 beats in a row; meaningless where they are not all there."""
    return 60 * WINDOW_BEATS / durations.unfold(1, WINDOW_BEATS, 1).sum(-1).clamp(min=1e-3)


def tempo_consistency(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """(B,) mean over 8-beat output windows of exp(-max(0, |change in BPM| - 5) / 10).

    The change is against the source played on from the window's first beat (from 8 beats before
    the passage's end at the latest), so a song's own drift costs nothing. r = .89.
    """
    durations = order.take(batch.durations)
    output = _window_bpm(durations)
    source = _window_bpm(batch.durations)
    start = torch.minimum(order.source, batch.lengths[:, None] - WINDOW_BEATS)
    wanted = source.gather(1, start[:, : output.shape[1]].clamp(min=0))
    score = torch.exp(-((output - wanted).abs() - FREE_BPM).clamp(min=0) / BPM_SCALE)
    whole = order.valid[:, WINDOW_BEATS - 1 :]
    return (score * whole).sum(1) / whole.sum(1).clamp(min=1)


def energy_flow(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """(B,) min(v, 1/v), v = variance of the output's RMS over beats / variance of the source's.

    RMS is linear and includes the edit's gains. r = .96. A floor of 1 % of the mean level keeps
    a passage of constant level from turning rounding into a verdict.
    """
    rms = batch.features[..., _RMS]
    mean, variance = _moments(rms, batch.valid)
    _, edited = _moments(order.take(rms) * order.gain, order.valid)
    floor = (0.01 * mean).square() + 1e-12
    ratio = (edited + floor) / (variance + floor)
    return torch.minimum(ratio, 1 / ratio)


def _moments(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    count = valid.sum(1).clamp(min=1)
    mean = (values * valid).sum(1) / count
    centred = (values - mean[:, None]) * valid
    return mean, centred.square().sum(1) / count


def runs(order: OutputOrder) -> tuple[Tensor, Tensor, Tensor]:
    """Straight runs of output: (first, last) source beat of each output beat's run, and its place.

    All (B, 2T) long. A run ends where the next beat does not play straight on. place is the index
    in the output of the run's first beat.
    """
    index = torch.arange(order.valid.shape[1], device=order.valid.device)[None]
    begins = order.joins | ((index == 0) & order.valid)
    place = torch.where(begins, index, 0).cummax(1).values
    ends = torch.ones_like(begins)
    ends[:, :-1] = begins[:, 1:] | ~order.valid[:, 1:]
    stop = torch.where(ends, index, index.shape[1]).flip(1).cummin(1).values.flip(1)
    return order.source.gather(1, place), order.source.gather(1, stop), place


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


def phrase_completeness(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """(B,) share of output beats in runs of whole 8-beat phrases, aligned with the passage's.

    The end of the passage counts as the end of a phrase. r = .70.
    """
    return share_in_whole(order, batch.lengths, PHRASE_BEATS)


def join_distances(batch: PassageBatch, order: OutputOrder) -> tuple[Tensor, Tensor]:
    """Per output beat (B, 2T), meaningful where `order.joins`: (duration mismatch, discontinuity).

    Mismatch: difference of the two beats' durations in median beats. Discontinuity: distance of
    the 4-beat context that would have followed from the one that follows, about 1 for unrelated
    ones; 1 where nothing would have followed, or a beat is reversed.
    """
    before = torch.zeros_like(order.source)
    before[:, 1:] = order.source[:, :-1]
    rows = torch.arange(batch.size, device=batch.device)[:, None]
    length = batch.durations.gather(1, order.source) - batch.durations.gather(1, before)
    would = (before + 1).clamp(max=batch.width - 1)
    distance = batch.context_distance[rows, would, order.source]
    backwards = order.reverse.clone()
    backwards[:, 1:] |= order.reverse[:, :-1]
    unknown = (before + 1 >= batch.lengths[:, None]) | backwards
    return length.abs() / batch.median_duration[:, None], distance.masked_fill(unknown, 1.0)


def transition_quality(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """(B,) mean over joins of the mean of timing and continuity; 1 without joins.

    Timing: exp(-mismatch / .05) of the two beats' durations in median beats, r = .78 (timing
    alone). Continuity: exp(-2 x discontinuity), see `join_distances`.
    """
    joins = order.joins
    mismatch, distance = join_distances(batch, order)
    timing = torch.exp(-mismatch / MISMATCH_SCALE)
    quality = (timing + torch.exp(-distance / CONTINUITY_SCALE)) / 2
    count = joins.sum(1)
    mean = (quality * joins).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, 1.0)
