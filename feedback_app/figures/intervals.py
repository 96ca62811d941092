"""Shares with their intervals, and the exact test of a share against one half."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Z95 = 1.959963984540054


def wilson(wins: float, total: float) -> tuple[float, float, float]:
    """(share, low, high): a share with its 95 % Wilson (1927) interval; (nan, 0, 1) of nothing.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.8, 0.49, 0.943]
    """
    if total <= 0:
        return float("nan"), 0.0, 1.0
    z, share = Z95, wins / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return share, max(0.0, middle - half), min(1.0, middle + half)


def share_of(wins: float, total: float) -> dict[str, Any] | None:
    """{share, low, high, of} for a page and for JSON; None of nothing."""
    if total <= 0:
        return None
    share, low, high = wilson(wins, total)
    return {"share": share, "low": low, "high": high, "of": total}


def binomial_p(count: int, total: int) -> float:
    """Two-sided exact binomial test of `count` in `total` against a half (1.0 of nothing).

    A half is symmetric, so it is twice the smaller tail, at most 1.

    >>> round(binomial_p(9, 10), 4)
    0.0215
    """
    if total == 0:
        return 1.0
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, total + 1)))))
    k = np.arange(min(count, total - count) + 1)
    terms = logs[total] - logs[k] - logs[total - k] - total * math.log(2)
    return float(min(1.0, 2 * np.exp(terms).sum()))


def percentiles(draws: Array) -> tuple[Array, Array]:
    """The 2.5th and 97.5th percentile over the first axis."""
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return low, high


def cluster_weights(clusters: int, samples: int, seed: int) -> Array:
    """(samples, clusters): how often each cluster is drawn in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=samples).astype(float)
