"""Which pairs to ask about next: the votes after which the reward is surest on usual pairs.

A vote on the pair x = phi(a) - phi(b) is worth what it takes from the posterior variance of w·t,
averaged over usual pairs t of covariance T (Cohn, Ghahramani, Jordan 1996, arXiv:cs/9603104):

    worth(x) = k xᵀΣTΣx / (1 + k xᵀΣx),     k = E[p (1 - p)],  w·x ~ N(mean·x, xᵀΣx)

with k the curvature that the vote's likelihood is expected to have. The mutual information with the
weights (BALD: Houlsby 2011, arXiv:1112.5745) prefers far-fetched pairs, of which much is learned
that no usual pair needs; `information_gain` still says how many nats a vote tells.
A batch is picked one by one: after each pick the covariance is shrunk by what its vote will tell
whatever the answer, so that a second pair that asks the same question is worth less.
"""

from __future__ import annotations

import numpy as np

from rlhf_core.errors import DataError
from rlhf_core.types import DoubleArray, IntArray

QUADRATURE = 15


def information_gain(mean: DoubleArray, variance: DoubleArray) -> DoubleArray:
    """Nats (n,) that a vote ~ Bernoulli(sigmoid(x)), x ~ N(mean, variance), tells about x."""
    p, share = _chances(mean, variance)
    return np.asarray(_coin(p @ share) - _coin(p) @ share)


def curvature(mean: DoubleArray, variance: DoubleArray) -> DoubleArray:
    """E[p (1 - p)] (n,), p = sigmoid(x), x ~ N(mean, variance): what the likelihood of a vote adds
    to the precision of x.
    """
    p, share = _chances(mean, variance)
    return np.asarray((p * (1 - p)) @ share)


def _chances(mean: DoubleArray, variance: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """p (n, Q) at the nodes of the Gauss-Hermite quadrature, and the nodes' shares (Q,)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
    x = mean[:, None] + np.sqrt(np.maximum(variance, 0))[:, None] * nodes
    return 1 / (1 + np.exp(-x)), weights / weights.sum()


def _coin(p: DoubleArray) -> DoubleArray:
    """Entropy of a coin in nats."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log(p) + (1 - p) * np.log(1 - p)))


class Asking:
    """Candidates (n, D) and what their votes are worth given those that were asked for before.

    Args:
        differences: (n, D) phi(a) - phi(b) of the candidates.
        mean, covariance: posterior of the weights, (D,) and (D, D).
        usual: (D, D) covariance of the differences of the pairs on which the reward is to be right.
    """

    def __init__(
        self,
        differences: DoubleArray,
        mean: DoubleArray,
        covariance: DoubleArray,
        usual: DoubleArray,
    ) -> None:
        self.differences, self.covariance, self.usual = differences, covariance, usual
        self._logit = differences @ mean
        self._left = differences @ covariance  # rows Sigma x, kept up to date
        self._variance = np.einsum("nd,nd->n", self._left, differences)
        self._shift = np.einsum("nd,nd->n", self._left @ usual, self._left)

    def worth(self) -> DoubleArray:
        """(n,) by how much each vote lowers the mean variance of w·t over usual pairs t."""
        known = curvature(self._logit, self._variance)
        return np.asarray(known * self._shift / (1 + known * self._variance))

    def ask(self, index: int) -> None:
        """One candidate will be voted on: the others are worth less (Sherman-Morrison)."""
        left, variance = self._left[index].copy(), self._variance[index : index + 1]
        known = float(curvature(self._logit[index : index + 1], variance)[0])
        shrink = known / (1 + known * float(variance[0]))
        towards = self.differences @ left
        across = self._left @ (self.usual @ left)
        step = shrink * towards
        self._shift = self._shift - 2 * step * across + step**2 * self._shift[index]
        self._shift = np.maximum(self._shift, 0.0)
        self._variance = np.maximum(self._variance - step * towards, 0.0)
        self._left = self._left - np.outer(step, left)
        self.covariance = self.covariance - shrink * np.outer(left, left)


def choose_batch(
    differences: DoubleArray,
    group: IntArray,
    mean: DoubleArray,
    covariance: DoubleArray,
    usual: DoubleArray,
    count: int,
) -> IntArray:
    """Indices (count,) of the pairs to ask about, best first, at most one of each group.

    Args: group (n,): for instance passages; the others as in `Asking`.
    Raises DataError when there are fewer groups than pairs wanted.
    """
    if len(np.unique(group)) < count:
        raise DataError(f"{count} pairs wanted from {len(np.unique(group))} groups of candidates")
    asking = Asking(differences, mean, covariance, usual)
    free = np.ones(len(differences), dtype=bool)
    picked = []
    for _ in range(count):
        best = int(np.argmax(np.where(free, asking.worth(), -np.inf)))
        picked.append(best)
        free &= group != group[best]
        asking.ask(best)
    return np.array(picked, dtype=np.int64)
