"""Fitting a reward to votes: embeddings from the bootstrap's trunk, then the head's posterior.

The trunk stays as it is; a fit is embedding the edits once and a few Newton iterations, seconds for
hundreds of votes. The prior is always the bootstrap's: a snapshot holds all votes so far, so
starting from an earlier posterior would count them twice. The same snapshot, bootstrap and seed
give the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.editing.actions import Action
from rlhf_core.editing.attributes import edit_attributes
from rlhf_core.editing.dynamics import output_order, reward_inputs
from rlhf_core.reward.checkpoint import RewardCheckpoint
from rlhf_core.reward.dataset import EditKey, Vote, check_songs, collate
from rlhf_core.reward.metrics import (
    LN2,
    agreement,
    consistency,
    cross_fit,
    evaluation_votes,
    folds_by_song,
    reliability,
    summary,
)
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.posterior import (
    STRENGTH_WEIGHT,
    HeadPosterior,
    HeadPrior,
    Votes,
    fit_head,
)
from rlhf_core.types import AudioState, BoolArray, DoubleArray, IntArray

CHUNK: Final = 64

States = Mapping[str, AudioState]
Report = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Measured:
    """What is known of each edit before any fit: embeddings and the baselines' single numbers."""

    phi: dict[EditKey, DoubleArray]
    shuffled: dict[EditKey, DoubleArray]  # the same actions on other beats
    silent: dict[EditKey, DoubleArray]  # beat features replaced by their mean
    length: dict[EditKey, DoubleArray]  # (1,) output beats per beat
    keep: dict[EditKey, DoubleArray]  # (1,) share of beats kept
    attributes: dict[EditKey, DoubleArray]  # (K,) hand-made ones, `edit_attributes`


@dataclass(frozen=True)
class FittedReward:
    """A new reward version and what the fit says of it."""

    checkpoint: RewardCheckpoint
    posterior: HeadPosterior
    metrics: dict[str, Any]


def embed_in_chunks(
    model: LearnedRewardModel, edits: Sequence[EditKey], states: States, seed: int
) -> Measured:
    """Embed every edit, plainly, with its actions shuffled, and with the audio taken away."""
    rng = np.random.default_rng(seed)
    result = Measured({}, {}, {}, {}, {}, {})
    ordered = sorted(set(edits), key=lambda e: (e.passage.n_beats, e.song_id, e.actions))
    for start in range(0, len(ordered), CHUNK):
        part = ordered[start : start + CHUNK]
        mixed = [replace(e, actions=tuple(rng.permutation(e.actions).tolist())) for e in part]
        batch, actions = collate(part, states)
        _store(result.phi, part, _embed(model, *reward_inputs(batch, actions)))
        _store(result.shuffled, part, _embed(model, *reward_inputs(*collate(mixed, states))))
        features, ids, valid = reward_inputs(batch, actions)
        features = features.clone()
        features[..., :BEAT_FEATURES] = model.normaliser.mean
        _store(result.silent, part, _embed(model, features, ids, valid))
        length = output_order(batch, ids).lengths / batch.lengths
        keep = ((ids != Action.CUT) & valid).sum(1) / batch.lengths
        _store(result.length, part, length[:, None])
        _store(result.keep, part, keep[:, None])
        _store(result.attributes, part, edit_attributes(batch, ids))
    return result


def _embed(model: LearnedRewardModel, features: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
    with torch.no_grad():
        phi: Tensor = model.embed(features, ids, valid)
    return phi


def _store(into: dict[EditKey, DoubleArray], edits: Sequence[EditKey], values: Tensor) -> None:
    into.update(zip(edits, values.double().numpy(), strict=True))


def as_numbers(votes: Sequence[Vote], phi: Mapping[EditKey, DoubleArray]) -> Votes:
    """Votes as the head's likelihood reads them. phi: embedding of every edit."""
    names = sorted({vote.annotator for vote in votes})
    outcome = {"a": 1, "b": -1, "tie": 0, "both_bad": 0}
    return Votes(
        differences=np.stack([phi[vote.edit_a] - phi[vote.edit_b] for vote in votes]),
        outcome=np.array([outcome[vote.choice] for vote in votes], dtype=np.int64),
        weight=np.array(
            [1.0 if vote.strength is None else STRENGTH_WEIGHT[vote.strength] for vote in votes]
        ),
        annotator=np.array([names.index(vote.annotator) for vote in votes], dtype=np.int64),
        side=np.array([-1.0 if vote.b_first else 1.0 for vote in votes]),
    )


def fit_reward(
    votes: Sequence[Vote],
    states: States,
    bootstrap: RewardCheckpoint,
    lineage: dict[str, Any],
    *,
    seed: int = 0,
    report: Report = lambda stage, values: None,
) -> FittedReward:
    """Fit the head to votes and measure it on songs left out.

    Args:
        votes: usable ones (`PreferenceDataset.usable`); states: songs by id.
        report: called as report("embed" | "fold" | "fit", figures so far).
    Raises DataError when a vote's song is missing.
    """
    check_songs(votes, states)
    edits = [edit for vote in votes for edit in (vote.edit_a, vote.edit_b)]
    report("embed", {"n_edits": len(set(edits))})
    measured = embed_in_chunks(bootstrap.model, edits, states, seed)
    metrics = evaluate(votes, measured, bootstrap, seed, report)
    posterior = fit_head(as_numbers(votes, measured.phi), bootstrap.prior)
    metrics["head"] = describe(posterior, votes)
    report("fit", metrics["head"])
    return FittedReward(_with_head(bootstrap, posterior, metrics, lineage), posterior, metrics)


def describe(posterior: HeadPosterior, votes: Sequence[Vote]) -> dict[str, Any]:
    """The head's hyper-parameters and nuisances, by annotator."""
    names = sorted({vote.annotator for vote in votes})
    return {
        "prior_scale": posterior.scale,
        "isotropic_share": posterior.share,
        "tie": posterior.tie,
        "log_evidence": posterior.log_evidence,
        "reliability": dict(zip(names, posterior.reliability.tolist(), strict=True)),
        "side_bias": dict(zip(names, posterior.side_bias.tolist(), strict=True)),
    }


def _with_head(
    bootstrap: RewardCheckpoint,
    posterior: HeadPosterior,
    metrics: dict[str, Any],
    lineage: dict[str, Any],
) -> RewardCheckpoint:
    mean = torch.from_numpy(posterior.mean)
    model = copy.deepcopy(bootstrap.model)
    model.head.weight.data.copy_(mean[None])
    mu, sigma = bootstrap.reference.scale_of(mean)
    return replace(
        bootstrap,
        model=model,
        mean=mean,
        covariance=torch.from_numpy(posterior.covariance),
        mu=mu,
        sigma=sigma,
        metrics=metrics,
        lineage=lineage,
    )


def evaluate(
    votes: Sequence[Vote],
    measured: Measured,
    bootstrap: RewardCheckpoint,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Cross-fitted figures of the head and of what it has to beat."""
    songs = [vote.song_id for vote in votes]
    counted, words = evaluation_votes(votes)
    repeats = consistency(votes)
    result: dict[str, Any] = {
        "n_votes": len(votes),
        "n_decisive": sum(vote.decisive for vote in votes),
        "n_songs": len(set(songs)),
        "n_annotators": len({vote.annotator for vote in votes}),
        "n_simulated": sum(vote.simulated for vote in votes),
        "log_loss_of_knowing_nothing": LN2,
        "ceiling": None if repeats is None else repeats["ceiling"],
        "consistency": repeats,
        "agreement": agreement(votes),
        "evaluated_on": words,
        "baselines": {},
    }
    if len(set(songs)) < 2 or not counted.any():
        result["evaluated_on"] = "nothing: it takes decisive votes on at least two songs"
        return {**result, **summary(np.zeros(0), np.zeros(0, dtype=np.int64), [], seed)}
    kept_songs = [song for song, use in zip(songs, counted, strict=True) if use]
    folds = folds_by_song(songs, seed)
    data = as_numbers(votes, measured.phi)

    def figures(p_a: DoubleArray) -> dict[str, Any]:
        return summary(p_a[counted], data.outcome[counted], kept_songs, seed)

    done = 0

    def after_fold(fold: int, p_a: DoubleArray) -> None:
        nonlocal done
        done += 1
        test: BoolArray = (folds == fold) & counted
        names = [song for song, use in zip(songs, test, strict=True) if use]
        values = summary(p_a[counted[folds == fold]], data.outcome[test], names, seed)
        report("fold", {"step": done, "folds": int(folds.max()) + 1, **values})

    p_a = cross_fit(data, folds, lambda part: fit_head(part, bootstrap.prior), after_fold)
    result |= figures(p_a)
    result["reliability"] = reliability(p_a[counted], data.outcome[counted])
    result["baselines"] = _baselines(votes, measured, bootstrap, data, folds, figures)
    result["left_out_annotators"] = _by_annotator(
        votes, data, bootstrap.prior, folds, counted, seed
    )
    return result


def _baselines(
    votes: Sequence[Vote],
    measured: Measured,
    bootstrap: RewardCheckpoint,
    data: Votes,
    folds: IntArray,
    figures: Callable[[DoubleArray], dict[str, Any]],
) -> dict[str, Any]:
    """The same votes and folds through less: one number, hand-made attributes, shuffled actions, no
    audio, no fit.
    """
    result = {}
    for name, values in (
        ("length_only", measured.length),
        ("keep_ratio_only", measured.keep),
        ("attributes_only", measured.attributes),
    ):
        single = as_numbers(votes, values)
        # Every column counts as much as any other: a prior on standardised differences.
        each = np.diag(1 / np.maximum((single.differences**2).mean(0), 1e-9)) / values_of(values)
        p_a = cross_fit(single, folds, partial(fit_head, prior=HeadPrior(each, each)))
        result[name] = figures(p_a)
    for name, values in (
        ("actions_shuffled", measured.shuffled),
        ("audio_zeroed", measured.silent),
    ):
        p_a = cross_fit(
            as_numbers(votes, values), folds, lambda part: fit_head(part, bootstrap.prior)
        )
        result[name] = figures(p_a)
    logits = data.differences @ bootstrap.mean.double().numpy()
    result["bootstrap"] = figures(1 / (1 + np.exp(-logits)))
    return result


def values_of(values: Mapping[EditKey, DoubleArray]) -> int:
    """How many numbers there are for each edit."""
    return len(next(iter(values.values())))


def _by_annotator(
    votes: Sequence[Vote],
    data: Votes,
    prior: HeadPrior,
    folds: IntArray,
    counted: BoolArray,
    seed: int,
) -> dict[str, Any] | None:
    """Accuracy on each annotator by heads that saw neither the person nor the song.

    None with one annotator. A fold in which nobody else voted is left out, and counts as missing.
    """
    names = sorted({vote.annotator for vote in votes})
    if len(names) < 2:
        return None
    result: dict[str, Any] = {}
    for number, name in enumerate(names):
        mine = data.annotator == number
        p_a = np.full(len(data), np.nan)
        for fold in range(int(folds.max()) + 1):
            test, others = mine & counted & (folds == fold), ~mine & (folds != fold)
            if test.any() and others.any():
                posterior = fit_head(data.select(np.flatnonzero(others)), prior)
                p_a[test] = posterior.probability(data.differences[test])
        known = ~np.isnan(p_a)
        songs = [vote.song_id for vote, use in zip(votes, known, strict=True) if use]
        result[name] = {
            "n_votes": int(known.sum()),
            **summary(p_a[known], data.outcome[known], songs, seed),
        }
    return result
