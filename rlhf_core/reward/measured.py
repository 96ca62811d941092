"""What is known of edits before any fit: their embeddings, and the numbers that baselines use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.editing.actions import Action
from rlhf_core.editing.attributes import edit_attributes
from rlhf_core.editing.dynamics import output_order, reward_inputs
from rlhf_core.reward.dataset import EditKey, Vote, collate
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.parallel import everyones, is_mine
from rlhf_core.reward.posterior import STRENGTH_WEIGHT, Votes
from rlhf_core.types import AudioState, DoubleArray

CHUNK: Final = 64

States = Mapping[str, AudioState]


@dataclass(frozen=True)
class Measured:
    """What is known of each edit before any fit: embeddings and the baselines' single numbers."""

    phi: dict[EditKey, DoubleArray]
    shuffled: dict[EditKey, DoubleArray]  # the same actions on other beats
    silent: dict[EditKey, DoubleArray]  # beat features replaced by their mean
    length: dict[EditKey, DoubleArray]  # (1,) output beats per beat
    keep: dict[EditKey, DoubleArray]  # (1,) share of beats kept
    attributes: dict[EditKey, DoubleArray]  # (K,) hand-made ones, `edit_attributes`


def edits_of(votes: Sequence[Vote]) -> list[EditKey]:
    """Both edits of every vote."""
    return [edit for vote in votes for edit in (vote.edit_a, vote.edit_b)]


def embed_in_chunks(
    model: LearnedRewardModel, edits: Sequence[EditKey], states: States, seed: int
) -> Measured:
    """Embed every edit, plainly, with its actions shuffled, and with the audio taken away.

    On the model's device. In a process group (see `parallel`) each process takes its share of the
    chunks and all get the whole; chunks are the same ones, so are the bits.
    """
    rng = np.random.default_rng(seed)
    result = Measured({}, {}, {}, {}, {}, {})
    for number, part in enumerate(_chunks(edits)):
        mixed = [replace(e, actions=tuple(rng.permutation(e.actions).tolist())) for e in part]
        if is_mine(number):
            _measure(result, model, part, mixed, states)
    merged = [dict[EditKey, DoubleArray]() for _ in fields(Measured)]
    for theirs in everyones([getattr(result, field.name) for field in fields(Measured)]):
        for into, values in zip(merged, theirs, strict=True):
            into.update(values)
    return Measured(*merged)


def embed_plainly(
    model: LearnedRewardModel, edits: Sequence[EditKey], states: States
) -> dict[EditKey, DoubleArray]:
    """Embeddings of every edit alone, as in `Measured.phi`."""
    result: dict[EditKey, DoubleArray] = {}
    for part in _chunks(edits):
        _store(result, part, _embed(model, *reward_inputs(*collate(part, states, where(model)))))
    return result


def pool_plainly(
    model: LearnedRewardModel, edits: Sequence[EditKey], states: States
) -> dict[EditKey, Tensor]:
    """Every edit before the trunk's last layers (`LearnedRewardModel.pool`), float32."""
    result: dict[EditKey, Tensor] = {}
    for part in _chunks(edits):
        with torch.no_grad():
            pools = model.pool(*reward_inputs(*collate(part, states, where(model))))
        result.update(zip(part, pools, strict=True))
    return result


def _chunks(edits: Sequence[EditKey]) -> list[list[EditKey]]:
    """Each edit once, in batches of like lengths."""
    ordered = sorted(set(edits), key=lambda e: (e.passage.n_beats, e.song_id, e.actions))
    return [ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK)]


def _measure(
    result: Measured,
    model: LearnedRewardModel,
    part: list[EditKey],
    mixed: list[EditKey],
    states: States,
) -> None:
    device = where(model)
    batch, actions = collate(part, states, device)
    features, ids, valid = reward_inputs(batch, actions)
    _store(result.phi, part, _embed(model, features, ids, valid))
    _store(result.shuffled, part, _embed(model, *reward_inputs(*collate(mixed, states, device))))
    features = features.clone()
    features[..., :BEAT_FEATURES] = model.normaliser.mean
    _store(result.silent, part, _embed(model, features, ids, valid))
    length = output_order(batch, ids).lengths / batch.lengths
    keep = ((ids != Action.CUT) & valid).sum(1) / batch.lengths
    _store(result.length, part, length[:, None])
    _store(result.keep, part, keep[:, None])
    _store(result.attributes, part, edit_attributes(batch, ids))


def where(model: LearnedRewardModel) -> str:
    """The device that a model is on."""
    return str(model.normaliser.mean.device)


def _embed(model: LearnedRewardModel, features: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
    with torch.no_grad():
        phi: Tensor = model.embed(features, ids, valid)
    return phi


def _store(into: dict[EditKey, DoubleArray], edits: Sequence[EditKey], values: Tensor) -> None:
    into.update(zip(edits, values.double().cpu().numpy(), strict=True))


def as_numbers(votes: Sequence[Vote], phi: Mapping[EditKey, DoubleArray]) -> Votes:
    """Votes as the head's likelihood reads them. phi: embedding of every edit."""
    names = sorted({vote.annotator for vote in votes})
    outcome = {"a": 1, "b": -1, "tie": 0, "both_bad": 0}
    return Votes(
        differences=np.stack([phi[vote.edit_a] - phi[vote.edit_b] for vote in votes]),
        outcome=np.array([outcome[vote.choice] for vote in votes], dtype=np.int64),
        weight=np.array(
            [
                vote.weight * (1.0 if vote.strength is None else STRENGTH_WEIGHT[vote.strength])
                for vote in votes
            ]
        ),
        annotator=np.array([names.index(vote.annotator) for vote in votes], dtype=np.int64),
        side=np.array([-1.0 if vote.b_first else 1.0 for vote in votes]),
    )
