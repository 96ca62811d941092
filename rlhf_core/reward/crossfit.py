"""The report of a version: cross-fitted figures of the head and of all that it has to beat.

Every song is judged by a head that was fitted on the other folds' songs, to votes on pairs of all
kinds; what counts are the votes on randomly chosen pairs (see `metrics.evaluation_votes`). Whatever
the head is compared with is refitted on the same folds and judged on the same votes:

    length_only, keep_ratio_only     one number of the edit instead of its embedding
    attributes_only                  logistic regression on the hand-made attributes
    actions_shuffled, audio_zeroed   the embedding without where things are done, or to what
    bootstrap                        no fit at all: the taste that the bootstrap states
    parent                           the version before: its trunk, its prior, and its votes
    frozen_trunk                     where votes moved the trunk: the head without that
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

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
    right_answers,
    song_interval,
    summary,
)
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.posterior import HeadPrior, Votes, fit_head
from rlhf_core.types import BoolArray, DoubleArray, IntArray

Report = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Parent:
    """The version before this one, as it enters the report.

    vote_ids: the votes that it was fitted to; None where that is not known: then all count.
    name: what to call it.
    """

    checkpoint: RewardCheckpoint
    vote_ids: frozenset[str] | None = None
    name: str = "parent"


@dataclass(frozen=True)
class Course:
    """What everything in a report is measured on.

    data: the votes as numbers (n); folds (n,) of their songs; counted (n,) those that judge.
    """

    votes: Sequence[Vote]
    data: Votes
    folds: IntArray
    counted: BoolArray
    seed: int

    def on(self, chosen: BoolArray, p_a: DoubleArray) -> dict[str, Any]:
        """Figures of p(a) (n,) on some of the votes (n,)."""
        songs = [vote.song_id for vote, use in zip(self.votes, chosen, strict=True) if use]
        return summary(p_a[chosen], self.data.outcome[chosen], songs, self.seed)

    def figures(self, p_a: DoubleArray) -> dict[str, Any]:
        """Figures of p(a) (n,) on the votes that count."""
        return self.on(self.counted, p_a)

    def gain(self, p_a: DoubleArray, other: DoubleArray) -> dict[str, float]:
        """How much more often p_a is right than `other`, vote by vote, with its interval."""
        outcome = self.data.outcome[self.counted]
        more = right_answers(p_a[self.counted], outcome)
        more = more - right_answers(other[self.counted], outcome)
        songs = [vote.song_id for vote, use in zip(self.votes, self.counted, strict=True) if use]
        low, high = song_interval(more, songs, self.seed)
        return {"accuracy": float(more.mean()), "low": low, "high": high}


def evaluate(
    votes: Sequence[Vote],
    measured: Measured,
    bootstrap: RewardCheckpoint,
    seed: int,
    report: Report,
    parent: Parent | None = None,
    parent_phi: Mapping[EditKey, DoubleArray] | None = None,
    tuned: DoubleArray | None = None,
) -> dict[str, Any]:
    """Cross-fitted figures of the head and of what it has to beat.

    parent_phi: the edits as the parent's trunk embeds them, where it is another trunk.
    tuned: p(a) (n,) of the votes by trunks tuned on the same folds (`finetuning`): then they are
    this version's. People left out are always foreseen on the bootstrap's trunk.
    """
    songs = [vote.song_id for vote in votes]
    counted, words = evaluation_votes(votes)
    result = {**what_votes_say(votes), "evaluated_on": words, "baselines": {}}
    if len(set(songs)) < 2 or not counted.any():
        result["evaluated_on"] = "nothing: it takes decisive votes on at least two songs"
        return {**result, **summary(np.zeros(0), np.zeros(0, dtype=np.int64), [], seed)}
    folds = folds_by_song(songs, seed)
    course = Course(votes, as_numbers(votes, measured.phi), folds, counted, seed)
    fit = partial(fit_head, prior=bootstrap.prior)
    frozen = cross_fit(course.data, folds, fit, _after_fold(course, report))
    p_a = frozen if tuned is None else tuned
    result |= course.figures(p_a)
    result["reliability"] = reliability(p_a[counted], course.data.outcome[counted])
    result["baselines"] = _baselines(course, measured, bootstrap)
    if tuned is not None:
        result["baselines"]["frozen_trunk"] = course.figures(frozen)
    if parent is not None:
        theirs = _parent(course, parent, measured.phi if parent_phi is None else parent_phi)
        result["baselines"]["parent"] = {
            **course.figures(theirs),
            "version": parent.name,
            "n_votes": int(_known(votes, parent).sum()),
            "votes_known": parent.vote_ids is not None,
            "own_trunk": parent_phi is not None,
            # It has seen the songs left out: that flatters the parent.
            "trunk_saw_votes": bool(parent.checkpoint.lineage.get("fine_tuned", False)),
        }
        result["gain_over_parent"] = course.gain(p_a, theirs)
    result["left_out_annotators"] = _by_annotator(course, bootstrap.prior)
    return result


def what_votes_say(votes: Sequence[Vote]) -> dict[str, Any]:
    """Counts, and how well the annotators agree with themselves and with each other.

    ceiling: by repeats where people were asked twice, else by agreement on the same pairs.
    """
    repeats, between = consistency(votes), agreement(votes)
    best = repeats or between
    return {
        "n_votes": len(votes),
        "n_decisive": sum(vote.decisive for vote in votes),
        "n_songs": len({vote.song_id for vote in votes}),
        "n_annotators": len({vote.annotator for vote in votes}),
        "n_simulated": sum(vote.simulated for vote in votes),
        "log_loss_of_knowing_nothing": LN2,
        "ceiling": None if best is None else best["ceiling"],
        "ceiling_from": None if best is None else "repeats" if repeats else "agreement",
        "consistency": repeats,
        "agreement": between,
    }


def same_trunk(one: LearnedRewardModel, other: LearnedRewardModel) -> bool:
    """Whether two models embed edits alike: all weights but the head's are the same."""
    ours, theirs = one.state_dict(), other.state_dict()
    return one.config == other.config and all(
        torch.equal(value.cpu(), theirs[name].cpu())
        for name, value in ours.items()
        if not name.startswith("head.")
    )


def _after_fold(course: Course, report: Report) -> Callable[[int, DoubleArray], None]:
    """Says after each fold how it went."""
    n_folds = int(course.folds.max()) + 1

    def after(fold: int, p_a: DoubleArray) -> None:
        full = np.full(len(course.votes), np.nan)
        full[course.folds == fold] = p_a
        values = course.on((course.folds == fold) & course.counted, full)
        report("fold", {"step": fold + 1, "folds": n_folds, **values})

    return after


def _known(votes: Sequence[Vote], parent: Parent) -> BoolArray:
    ids = parent.vote_ids
    return np.array([ids is None or vote.vote_id in ids for vote in votes], dtype=bool)


def _parent(course: Course, parent: Parent, phi: Mapping[EditKey, DoubleArray]) -> DoubleArray:
    """p(a) (n,) by the parent's trunk and prior, refitted to its votes on the same folds."""
    fit = partial(fit_head, prior=parent.checkpoint.prior)
    known = _known(course.votes, parent)
    return cross_fit(as_numbers(course.votes, phi), course.folds, fit, train=known)


def _baselines(course: Course, measured: Measured, bootstrap: RewardCheckpoint) -> dict[str, Any]:
    """The same votes and folds through less: one number, hand-made attributes, shuffled actions, no
    audio, no fit.
    """
    result = {}
    for name, values in (
        ("length_only", measured.length),
        ("keep_ratio_only", measured.keep),
        ("attributes_only", measured.attributes),
    ):
        single = as_numbers(course.votes, values)
        # Every column counts as much as any other: a prior on standardised differences.
        square = np.maximum((single.differences**2).mean(0), 1e-9)
        each = np.diag(1 / square) / len(square)
        # Many columns get the sparse prior, as the embedding does: that is what there is to beat.
        directions = np.diag(np.sqrt(2 / square)) if len(square) > 1 else None
        fit = partial(fit_head, prior=HeadPrior(each, each, directions))
        result[name] = course.figures(cross_fit(single, course.folds, fit))
    for name, values in (
        ("actions_shuffled", measured.shuffled),
        ("audio_zeroed", measured.silent),
    ):
        fit = partial(fit_head, prior=bootstrap.prior)
        result[name] = course.figures(
            cross_fit(as_numbers(course.votes, values), course.folds, fit)
        )
    logits = course.data.differences @ bootstrap.mean.double().cpu().numpy()
    result["bootstrap"] = course.figures(1 / (1 + np.exp(-logits)))
    return result


def _by_annotator(course: Course, prior: HeadPrior) -> dict[str, Any] | None:
    """Accuracy on each annotator by heads that saw neither the person nor the song.

    None with one annotator. A fold in which nobody else voted is left out, and counts as missing.
    """
    names = sorted({vote.annotator for vote in course.votes})
    if len(names) < 2:
        return None
    data, folds = course.data, course.folds
    result: dict[str, Any] = {}
    for number, name in enumerate(names):
        mine = data.annotator == number
        p_a = np.full(len(data), np.nan)
        for fold in range(int(folds.max()) + 1):
            test, others = mine & course.counted & (folds == fold), ~mine & (folds != fold)
            if test.any() and others.any():
                posterior = fit_head(data.select(np.flatnonzero(others)), prior)
                p_a[test] = posterior.probability(data.differences[test])
        known = ~np.isnan(p_a)
        result[name] = {"n_votes": int(known.sum()), **course.on(known, p_a)}
    return result
