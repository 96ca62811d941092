"""The dense reward: four plain qualities of an edit, from beat-level data alone.

Each lies in 0..1, depends on the edit, and is 1 for an edit that keeps everything. The reward is
their mean. Sources: a phrase is 8 beats (`PHRASE_BEATS`); join distances after
Schödl et al., "Video textures" (2000): a jump is smooth where what follows resembles what would
have followed.

Measured by `python benchmarks/dense_reward.py [SONGS_FOLDER]`: 350 edits (half heuristic, half
random), each quality measured again on the rendered audio by `rlhf_core.editing.rendered`.
Pearson's r (Spearman's) over 4 real recordings and over 6 demo songs (synthetic):

    energy flow          .95 (.90)   .94 (.91)
    phrase completeness  .84 (.85)   .86 (.87)
    transition quality   .86 (.77)   .85 (.78)   single joins .77 (.77)   .71 (.70)
    tempo consistency    next to constant on these songs: an edit on the beat grid cannot change
                         a steady tempo. On versions of them that swing by 35 %, beats marked by
                         clicks (175 edits): .99 (.98)   .99 (.98)
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from rlhf_core.audio.feature_table import FEATURE_SLICES
from rlhf_core.editing.output_order import OutputOrder, output_order
from rlhf_core.editing.passage_batch import CONTEXT_BEATS, PassageBatch
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
MISMATCH_SCALE: Final = 0.2  # of a beat; less is a tracker's own uncertainty
DISCONTINUITY_LIMIT: Final = 1.5  # contrary rather than merely unrelated contexts
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
    the passage's end at the latest), so a song's own drift costs nothing,
    and a steady song earns 1 whatever the edit. Clicks found in renders of swung songs: r = .99.
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

    RMS is linear and includes the edit's gains. A floor of 1 % of the mean level keeps a passage
    of constant level from turning rounding into a verdict. Variance of RMS over 0.4 s windows of
    the render: r = .95 (demo songs .94).
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


def phrase_completeness(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """(B,) share of output beats inside 8-beat phrases that are played whole.

    Phrases are counted from the passage's start, and the last one may be shorter. A phrase is
    whole where one straight run plays it from its first beat to its last; a run may hold several
    whole phrases and broken ones at its ends. Share of the render's time in which a source phrase
    is found from start to end by its log-mel frames: r = .84 (demo songs .86).
    """
    first, last, _ = runs(order)
    phrase = order.source - order.source % PHRASE_BEATS
    stop = torch.minimum(phrase + PHRASE_BEATS, batch.lengths[:, None])
    whole = (first <= phrase) & (last + 1 >= stop) & order.valid
    return whole.sum(1) / order.lengths.clamp(min=1)


def join_distances(batch: PassageBatch, order: OutputOrder) -> tuple[Tensor, Tensor]:
    """Per output beat (B, 2T), meaningful where `order.joins`: (duration mismatch, discontinuity).

    Mismatch: difference of the two beats' durations in median beats. Discontinuity: root mean
    square distance of the next 4 beats of output from the 4 beats that would have followed, about
    1 for unrelated ones. A beat played backwards counts as unrelated; beats beyond the end of the
    output or of the passage are left out, and where none is left the discontinuity is 1.
    """
    before = torch.zeros_like(order.source)
    before[:, 1:] = order.source[:, :-1]
    length = batch.durations.gather(1, order.source) - batch.durations.gather(1, before)
    rows = torch.arange(batch.size, device=batch.device)[:, None]
    places = torch.arange(order.valid.shape[1], device=batch.device)[None]
    total = torch.zeros_like(length, dtype=torch.float64)
    count = torch.zeros_like(total)
    for ahead in range(CONTEXT_BEATS):
        place = (places + ahead).clamp(max=order.valid.shape[1] - 1).expand_as(before)
        would = before + 1 + ahead
        known = (places + ahead < order.lengths[:, None]) & (would < batch.lengths[:, None])
        heard = order.source.gather(1, place)
        square = batch.sound_distance[rows, would.clamp(max=batch.width - 1), heard]
        square = square.masked_fill(order.reverse.gather(1, place), 1.0)
        total += square * known
        count += known
    distance = torch.where(count > 0, (total / count.clamp(min=1)).sqrt(), 1.0).to(length.dtype)
    return length.abs() / batch.median_duration[:, None], distance


def transition_quality(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """(B,) mean over joins of timing x continuity; 1 without joins.

    Timing: exp(-mismatch / .2) of the two beats' durations in median beats. Continuity:
    max(0, 1 - discontinuity / 1.5), see `join_distances`. Mean log-mel distance of the second
    after each rendered join from how the song would have gone on: r = .86 (demo songs .85).
    """
    joins = order.joins
    mismatch, distance = join_distances(batch, order)
    continuity = (1 - distance / DISCONTINUITY_LIMIT).clamp(min=0)
    quality = torch.exp(-mismatch / MISMATCH_SCALE) * continuity
    count = joins.sum(1)
    mean = (quality * joins).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, 1.0)
