"""What an edit sounds like in general: many plain statistics that any taste may be made of.

Beside the attributes of `editing.attributes`, which say what was done, these say what is heard:
for each *axis* of sound (level, attack, brightness, stems, timbre, how often a moment comes back)
its mean over the output, its spread, its course from beginning to end, and how loud the edit begins
and ends; and how harsh and how frequent the joins are. Trunk targets only: none says what is good.

Shapes: B edits, T beats, A = len(AXES); values are in deviations within the passage.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlhf_core.audio.feature_table import FEATURE_SLICES, STEMS
from rlhf_core.editing.attributes import ATTRIBUTE_NAMES
from rlhf_core.editing.dense_reward import join_distances
from rlhf_core.editing.output_order import OutputOrder, output_order
from rlhf_core.editing.passage_batch import PassageBatch

_COLUMNS: Final[dict[str, tuple[str, int]]] = {
    "level": ("rms", 0),
    "attack": ("onset_strength", 0),
    "brightness": ("spectral_centroid", 0),
    "noise": ("zero_crossing_rate", 0),
    "flatness": ("flatness", 0),
    **{f"{stem}_level": ("stem_energy", i) for i, stem in enumerate(STEMS)},
    **{f"{stem}_share": ("stem_ratio", i) for i, stem in enumerate(STEMS)},
    **{f"timbre_{i}": ("mfcc", i) for i in (1, 2, 3)},
}
AXES: Final = (*_COLUMNS, "recurrence", "novelty")
_LOUD: Final = ("level", *(f"{stem}_level" for stem in STEMS))  # which gains are heard on
_VIEWS: Final = ("mean", "spread", "course")
_EDGES: Final = ("start", "end")
_WHOLE: Final = (
    "harshness",
    "breaks_of_metre",
    "breaks_of_phrase",
    "reversed",
    "bar_likeness",
    "change_of_length",
)
DESCRIPTOR_NAMES: Final = (
    *(f"{view}_{axis}" for view in _VIEWS for axis in AXES),
    *(f"{edge}_{axis}" for edge in _EDGES for axis in _LOUD),
    *_WHOLE,
)
TARGET_NAMES: Final = (*ATTRIBUTE_NAMES, *DESCRIPTOR_NAMES)
_EDGE_BEATS: Final = 8
_NEIGHBOURS: Final = 3  # beats so near do not count as coming back


def describe(batch: PassageBatch, actions: Tensor) -> Tensor:
    """(B, len(DESCRIPTOR_NAMES)) float32, finite. Illegal actions count as KEEP."""
    order = output_order(batch, actions)
    heard = _heard(batch, order)
    count = order.lengths[:, None].clamp(min=1)
    index = torch.arange(order.valid.shape[1], device=batch.device)[None]
    place = (2 * (index + 0.5) / count - 1) * order.valid
    mean = heard.sum(1) / count
    apart = (heard - mean[:, None]) * order.valid[..., None]
    loud = heard[..., [AXES.index(axis) for axis in _LOUD]]
    views = [
        mean,
        (apart.square().sum(1) / count + 1e-6).sqrt(),
        2 * (apart * place[..., None]).sum(1) / count,
        _mean(loud, order.valid & (index < _EDGE_BEATS)),
        _mean(loud, order.valid & (index >= order.lengths[:, None] - _EDGE_BEATS)),
    ]
    return torch.cat([*views, _whole(batch, order)], 1).float()


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """(B, A) mean of (B, N, A) over the beats selected."""
    chosen = where[..., None]
    return (values * chosen).sum(1) / chosen.sum(1).clamp(min=1)


def _heard(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """The axes in output order with gains in (B, 2T, A), 0 where nothing plays."""
    sound = batch.standardised
    columns = [sound[..., FEATURE_SLICES[name].start + i] for name, i in _COLUMNS.values()]
    axes = torch.stack([*columns, *_returns(batch)], -1)
    index = order.source[..., None].expand(-1, -1, axes.shape[-1])
    louder = torch.tensor([float(axis in _LOUD) for axis in AXES], device=batch.device)
    gain = order.gain.clamp(min=0.05).log2()
    return (axes.gather(1, index) + gain[..., None] * louder) * order.valid[..., None]


def _returns(batch: PassageBatch) -> tuple[Tensor, Tensor]:
    """(B, T) each: how alike the likest moments elsewhere in the passage are, and how new each
    beat is against the one before; both centred on the passage.
    """
    apart = batch.context_distance.double()
    index = batch.beats
    near = (index[0][:, None] - index[0][None]).abs() <= _NEIGHBOURS
    both = batch.valid[:, :, None] & batch.valid[:, None, :] & ~near
    likest = apart.masked_fill(~both, 4.0).topk(2, largest=False).values.mean(-1)
    step = pad(batch.sound_distance.diagonal(1, 1, 2).clamp(min=0).sqrt(), (1, 0))
    return _centred(-likest, batch), _centred(step, batch)


def _centred(values: Tensor, batch: PassageBatch) -> Tensor:
    count = batch.lengths[:, None]
    values = values * batch.valid
    centred = (values - values.sum(1, keepdim=True) / count) * batch.valid
    spread = (centred.square().sum(1, keepdim=True) / count).sqrt()
    return (centred / spread.clamp(min=1e-3)).float()


def _whole(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """(B, 6) as `_WHOLE` names them: per output beat, and how far from the passage's own length."""
    joins, bar = order.joins, batch.beats_per_bar[:, None]
    _, distance = join_distances(batch, order)
    skipped = order.source - pad(order.source[:, :-1], (1, 0)) - 1
    values = (
        distance * joins,
        joins & (skipped % bar != 0),
        joins & (skipped % 8 != 0),
        order.reverse,
        _bar_likeness(batch, order),
    )
    change = (order.lengths / batch.lengths - 1).abs()
    return torch.stack([*(value.sum(1) / order.lengths for value in values), change], 1)


def _bar_likeness(batch: PassageBatch, order: OutputOrder) -> Tensor:
    """(B, 2T) how alike each output beat and the one a bar before it are, 0 for unrelated ones."""
    place = torch.arange(order.valid.shape[1], device=batch.device)[None]
    back = place - batch.beats_per_bar[:, None]
    before = order.source.gather(1, back.clamp(min=0))
    rows = torch.arange(batch.size, device=batch.device)[:, None]
    alike = 1 - batch.sound_distance[rows, order.source, before].clamp(max=2)
    return alike * ((back >= 0) & order.valid)
