"""Honest figures about a reward fitted to votes.

Everything is measured on songs that the fit has not seen (cross-fitting: each song is predicted by
a head fitted on the others), on decisive votes (a or b) and, where there are enough, on randomly
chosen pairs only: pairs chosen for their information, or with a side from elsewhere, are not what
an annotator sees on average. `evaluated_on` says which votes a figure stands for.

Intervals are 95 % percentile bootstraps over songs, because votes on one song are alike. ECE is the
expected calibration error over ten equal bins of p (Naeini et al. 2015). Log-loss is in nats: ln 2
is what knowing nothing costs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from rlhf_core.reward.dataset import Vote
from rlhf_core.reward.posterior import HeadPosterior, Votes
from rlhf_core.types import BoolArray, DoubleArray, IntArray

MAX_FOLDS: Final = 5
MIN_RANDOM_VOTES: Final = 20
BOOTSTRAPS: Final = 1000
BINS: Final = 10
Z95: Final = 1.959964
LN2: Final = float(np.log(2))

Fit = Callable[[Votes], HeadPosterior]


def folds_by_song(songs: Sequence[str], seed: int) -> IntArray:
    """Fold number (n,) of each vote, no song in two folds; at most `MAX_FOLDS`, like in size."""
    names, counts = np.unique(np.asarray(songs), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    load = np.zeros(min(MAX_FOLDS, len(names)))
    fold_of: dict[str, int] = {}
    for index in order:
        fold = int(np.argmin(load))
        fold_of[str(names[index])] = fold
        load[fold] += counts[index]
    return np.array([fold_of[song] for song in songs], dtype=np.int64)


def cross_fit(
    data: Votes,
    folds: IntArray,
    fit: Fit,
    report: Callable[[int, DoubleArray], None] | None = None,
    train: BoolArray | None = None,
) -> DoubleArray:
    """p(a) (n,) of each vote by a head fitted on the other folds.

    Args:
        report: called after each fold with its number and its votes' probabilities.
        train: (n,) the votes that may be fitted to (all). Without any in the other folds, p is 1/2.
    """
    result = np.full(len(data), np.nan)
    usable = np.ones(len(data), dtype=bool) if train is None else train
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        others = np.flatnonzero(~test & usable)
        result[test] = 0.5
        if len(others):
            posterior = fit(data.select(others))
            result[test] = posterior.probability(data.differences[test])
        if report is not None:
            report(fold, result[test])
    return result


def evaluation_votes(votes: Sequence[Vote]) -> tuple[BoolArray, str]:
    """Which votes figures are computed on, and in words."""
    decisive = np.array([vote.decisive for vote in votes], dtype=bool)
    random = decisive & np.array([vote.pool == "random" for vote in votes], dtype=bool)
    if random.sum() >= MIN_RANDOM_VOTES:
        return random, f"{random.sum()} decisive votes on randomly chosen pairs, songs left out"
    return decisive, (
        f"all {decisive.sum()} decisive votes, songs left out (only {random.sum()} are on randomly "
        f"chosen pairs, {MIN_RANDOM_VOTES} are needed)"
    )


def reliability(p_a: DoubleArray, outcome: IntArray) -> list[dict[str, float]]:
    """The reliability plot as numbers: for each bin of p that has votes, how many, the mean p(a)
    that was stated and the share that preferred a.
    """
    won, place = outcome > 0, np.minimum((p_a * BINS).astype(int), BINS - 1)
    return [
        {
            "votes": int(inside.sum()),
            "stated": float(p_a[inside].mean()),
            "observed": float(won[inside].mean()),
        }
        for k in range(BINS)
        for inside in (place == k,)
        if inside.any()
    ]


def agreement(votes: Sequence[Vote]) -> dict[str, Any] | None:
    """How often two annotators agree on the same pair (decisive votes), or None without such pairs.

    ceiling: how often a single vote can be right at most, (1 + sqrt(2a − 1)) / 2.
    """
    answers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for vote in votes:
        if vote.decisive:
            answers[vote.pair_id].append((vote.annotator, vote.choice))
    agree, total = 0, 0
    for given in answers.values():
        for i, (who, choice) in enumerate(given):
            for other, other_choice in given[:i]:
                if who != other:
                    agree += choice == other_choice
                    total += 1
    return _ceiling(agree, total, "comparisons")


def _ceiling(agree: int, total: int, name: str) -> dict[str, Any] | None:
    if not total:
        return None
    low, high = wilson_interval(agree, total)
    return {
        "agreement": agree / total,
        name: total,
        "ceiling": best_possible(agree / total),
        "ceiling_low": best_possible(low),
        "ceiling_high": best_possible(high),
    }


def best_possible(agreement: float) -> float:
    """How often one answer is right at most when two agree this often: (1 + sqrt(2a − 1)) / 2.

    >>> round(best_possible(0.68), 3)
    0.8
    """
    return (1 + math.sqrt(max(0.0, 2 * agreement - 1))) / 2


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927).

    >>> [round(x, 3) for x in wilson_interval(8, 10)]
    [0.49, 0.943]
    """
    share, z2 = hits / total, Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = share * (1 - share) / total + z2 / (4 * total**2)
    half = Z95 * math.sqrt(spread) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def summary(p_a: DoubleArray, outcome: IntArray, songs: Sequence[str], seed: int) -> dict[str, Any]:
    """Accuracy with interval, log-loss and calibration error of p(a) (n,) against outcomes ±1.

    p = 1/2 counts as half right. Every value is None when there is no vote.
    """
    if not len(p_a):
        names = ("accuracy", "accuracy_low", "accuracy_high", "log_loss", "ece")
        return dict.fromkeys(names)
    won = (outcome > 0).astype(float)
    right = right_answers(p_a, outcome)
    low, high = song_interval(right, songs, seed)
    p = np.clip(p_a, 1e-12, 1 - 1e-12)
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": float(-(won * np.log(p) + (1 - won) * np.log(1 - p)).mean()),
        "ece": calibration_error(p_a, won),
    }


def right_answers(p_a: DoubleArray, outcome: IntArray) -> DoubleArray:
    """1 where p(a) (n,) foresaw the outcome ±1, 0 where not, 1/2 where it was undecided."""
    return np.where(p_a == 0.5, 0.5, (p_a > 0.5) == (outcome > 0)).astype(float)


def song_interval(right: DoubleArray, songs: Sequence[str], seed: int) -> tuple[float, float]:
    """95 % interval of the mean of `right` (n,) when songs are drawn anew."""
    _, index = np.unique(np.asarray(songs), return_inverse=True)
    total = np.bincount(index, weights=right)
    count = np.bincount(index).astype(float)
    draws = np.random.default_rng(seed).integers(0, len(total), (BOOTSTRAPS, len(total)))
    means = total[draws].sum(1) / count[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def calibration_error(p: DoubleArray, won: DoubleArray) -> float:
    """Mean distance between stated and observed frequency over `BINS` bins, weighted by votes."""
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [abs((p - won)[place == k].sum()) for k in range(BINS)]
    return float(sum(gaps) / len(p))


def consistency(votes: Sequence[Vote]) -> dict[str, Any] | None:
    """How often annotators repeat themselves on the same two edits, or None without repeats.

    agreement: share of pairs of decisive answers that agree, sides and order put right; ceiling:
    how often a single vote can be right at most, (1 + sqrt(2a − 1)) / 2.
    """
    answers: dict[tuple[object, ...], list[bool]] = defaultdict(list)
    for vote in votes:
        if vote.decisive:
            first, second = vote.edit_a, vote.edit_b
            turned = first.actions > second.actions
            edits = (second, first) if turned else (first, second)
            answers[(vote.annotator, *edits)].append((vote.choice == "a") != turned)
    agree, total = 0, 0
    for given in answers.values():
        for i in range(len(given)):
            for j in range(i):
                agree += given[i] == given[j]
                total += 1
    return _ceiling(agree, total, "repeats")
