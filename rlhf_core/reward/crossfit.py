"""The report of a version: cross-fitted figures of the head and of all that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from rlhf_core.reward.checkpoint import RewardCheckpoint
from rlhf_core.reward.dataset import EditKey, Vote
from rlhf_core.reward.measured import Measured, as_numbers
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
from rlhf_core.reward.posterior import HeadPrior, Votes, fit_head
from rlhf_core.types import BoolArray, DoubleArray, IntArray

Report = Callable[[str, dict[str, Any]], None]


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
