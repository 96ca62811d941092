"""Which pairs to ask about next: the votes that are expected to teach most, and not all the same.

The value of a vote is its mutual information with the reward's weights (BALD: Houlsby 2011,
arXiv:1112.5745). A batch is picked one by one: after each pick the covariance is shrunk by what its
vote will tell whatever the answer (the Laplace curvature at the expected p), so that a second pair
that asks the same question is worth less (a greedy batch as in Kirsch 2019, arXiv:1906.08158).
"""

from __future__ import annotations

import numpy as np

from rlhf_core.errors import DataError
from rlhf_core.types import DoubleArray, IntArray

QUADRATURE = 15


def information_gain(mean: DoubleArray, variance: DoubleArray) -> DoubleArray:
    """Nats (n,) that a vote ~ Bernoulli(sigmoid(x)), x ~ N(mean, variance), tells about x."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
    share = weights / weights.sum()
    x = mean[:, None] + np.sqrt(np.maximum(variance, 0))[:, None] * nodes
    p = 1 / (1 + np.exp(-x))
    return np.asarray(_coin(p @ share) - _coin(p) @ share)


def _coin(p: DoubleArray) -> DoubleArray:
    """Entropy of a coin in nats."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log(p) + (1 - p) * np.log(1 - p)))


def choose_batch(
    differences: DoubleArray,
    group: IntArray,
    mean: DoubleArray,
    covariance: DoubleArray,
    count: int,
) -> IntArray:
    """Indices (count,) of the pairs to ask about, best first, at most one of each group.

    Args:
        differences: (n, D) phi(a) - phi(b) of the candidates; group (n,): for instance passages.
        mean, covariance: posterior of the weights, (D,) and (D, D).
    Raises DataError when there are fewer groups than pairs wanted.
    """
    if len(np.unique(group)) < count:
        raise DataError(f"{count} pairs wanted from {len(np.unique(group))} groups of candidates")
    logit = differences @ mean
    left = differences @ covariance  # (n, D) rows Sigma x, kept up to date
    variance = np.einsum("nd,nd->n", left, differences)
    free = np.ones(len(differences), dtype=bool)
    picked = []
    for _ in range(count):
        gain = np.where(free, information_gain(logit, variance), -np.inf)
        best = int(np.argmax(gain))
        picked.append(best)
        free &= group != group[best]
        p = 1 / (1 + np.exp(-logit[best] / np.sqrt(1 + np.pi * variance[best] / 8)))
        # Sherman-Morrison: the covariance after a vote of curvature p (1 - p) on this pair.
        towards = differences @ left[best]
        shrink = p * (1 - p) / (1 + p * (1 - p) * variance[best])
        variance = np.maximum(variance - shrink * towards**2, 0.0)
        left = left - shrink * np.outer(towards, left[best])
    return np.array(picked, dtype=np.int64)
