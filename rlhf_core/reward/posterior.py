"""A Bayesian head on frozen embeddings: what a few hundred votes say about w in score = w·phi.

Everything is float64, closed or by Newton iterations from fixed starts, so the same votes give the
same bits. A vote compares edits a and b of one passage; x = phi(a) - phi(b), (D,).

Likelihood of one vote, with m = beta_k w·x + side · bias_k for annotator k:

    p(a) = exp(m/2) / Z,  p(b) = exp(-m/2) / Z,  p(tie) = nu / Z        (Davidson 1970)

- ties: nu is estimated (log nu ~ N(log 1/2, 1)); without ties nu = 0, which is Bradley-Terry;
- "both bad" says nothing about the order and counts as a tie; "skip" (can't judge) is left out;
- strength 1, 2, 3 weighs a vote's log-likelihood by `STRENGTH_WEIGHT` (.75, 1, 1.25: stated, not
  fitted), no strength by 1; so does an annotator's weight in the snapshot (weighted likelihood:
  Bissiri, Holmes, Walker 2016);
- side = +1 where a was on the left, -1 where b was: bias_k ~ N(0, 0.5²) in logits (an effect of
  order within the pair: Davidson, Beaver 1977);
- beta_k, an annotator's reliability relative to the others (as an annotator's expertise in
  Whitehill et al. 2009), has log beta_k ~ N(0, 0.6²) and is fitted on leave-one-out logits, so that
  an annotator cannot look reliable by being memorised.

Prior: w ~ N(0, s² P), P = (1 - share) family + share isotropic, each scaled so that a typical pair
differs by one logit at s = 1; s and share, of a few values each, maximise the Laplace evidence
(MacKay 1992) times a log-normal prior on s centred on 1 (votes that agree with a taste 70 % of the
time have about that; with a wider prior, evidence picked too large an s on 200 votes: less accurate
and overconfident).
The posterior is the Laplace approximation. Where the prior knows the directions of plain statistics
(`HeadPrior.directions`), that only settles the nuisances and the expansion of the likelihood: mean
and covariance of w then come from a sparse prior over those directions (see `sparse`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from rlhf_core.errors import DataError
from rlhf_core.reward.sparse import sparse_posterior
from rlhf_core.types import DoubleArray, IntArray

STRENGTH_WEIGHT: Final = {1: 0.75, 2: 1.0, 3: 1.25}
SIDE_BIAS_SD: Final = 0.5
RELIABILITY_SD: Final = 0.6
LOG_TIE_MEAN, LOG_TIE_SD = float(np.log(0.5)), 1.0
SCALES: Final = (0.35, 0.6, 1.0, 1.7, 2.8, 4.6)
SHARES: Final = (0.02, 0.2, 0.6)
LOG_SCALE_MEAN, LOG_SCALE_SD = 0.0, 0.35
RELIABILITY_GRID: Final = np.linspace(-2.0, 1.5, 141)
MAX_NEWTON, TOLERANCE = 60, 1e-10
MIN_CURVATURE: Final = 1e-6


@dataclass(frozen=True)
class Votes:
    """Votes as numbers, n of them.

    differences (n, D) phi(a) - phi(b); outcome (n,) +1 a, -1 b, 0 tie; weight (n,) > 0;
    annotator (n,) 0..K-1; side (n,) +1 a on the left, -1 b on the left, 0 unknown.
    """

    differences: DoubleArray
    outcome: IntArray
    weight: DoubleArray
    annotator: IntArray
    side: DoubleArray

    def __post_init__(self) -> None:
        if self.differences.ndim != 2:
            raise DataError(f"differences are (votes, D), got {self.differences.shape}")
        for name in ("outcome", "weight", "annotator", "side"):
            if getattr(self, name).shape != (len(self),):
                raise DataError(
                    f"{len(self)} differences but {name} has shape {getattr(self, name).shape}"
                )
        if not np.all(np.isfinite(self.differences)):
            raise DataError("an embedding is not finite: the reward model is damaged")
        if len(self) and (np.abs(self.outcome).max() > 1 or self.weight.min() <= 0):
            raise DataError("outcomes are -1, 0 or 1 and weights are positive")

    def __len__(self) -> int:
        return len(self.differences)

    @property
    def n_annotators(self) -> int:
        return int(self.annotator.max()) + 1 if len(self) else 0

    def select(self, index: IntArray) -> Votes:
        return Votes(
            self.differences[index],
            self.outcome[index],
            self.weight[index],
            self.annotator[index],
            self.side[index],
        )

    def joined(self, other: Votes) -> Votes:
        """These votes, then those, of the same annotators."""
        return Votes(
            np.concatenate([self.differences, other.differences]),
            np.concatenate([self.outcome, other.outcome]),
            np.concatenate([self.weight, other.weight]),
            np.concatenate([self.annotator, other.annotator]),
            np.concatenate([self.side, other.side]),
        )


@dataclass(frozen=True)
class HeadPrior:
    """What is known of w before any vote.

    family, isotropic (D, D): covariances of w that give a typical pair one logit of spread.
    directions (K, D) or None: w·phi for the plain statistics that tastes are made of, each in
    units in which any of them may matter alike; None: a Gaussian prior alone.
    """

    family: DoubleArray
    isotropic: DoubleArray
    directions: DoubleArray | None = None

    @classmethod
    def build(
        cls,
        tastes: DoubleArray,
        pair_covariance: DoubleArray,
        directions: DoubleArray | None = None,
    ) -> HeadPrior:
        """From tastes' weight vectors (N, D) and the covariance (D, D) of phi(a) - phi(b)."""
        family = tastes.T @ tastes
        isotropic = np.eye(len(pair_covariance))
        wide, plain = (p / np.trace(p @ pair_covariance) for p in (family, isotropic))
        return cls(wide, plain, directions)

    def factor(self, share: float) -> DoubleArray:
        """L (D, R) with L Lᵀ = (1 - share) family + share isotropic; worked out once."""
        if share not in self._factors:
            values, vectors = np.linalg.eigh((1 - share) * self.family + share * self.isotropic)
            keep = values > 1e-10 * values[-1]
            self._factors[share] = vectors[:, keep] * np.sqrt(values[keep])
        return self._factors[share]

    @cached_property
    def _factors(self) -> dict[float, DoubleArray]:
        return {}


@dataclass(frozen=True)
class HeadPosterior:
    """What the votes say. mean (D,), covariance (D, D) of w; nuisances per annotator (K,)."""

    mean: DoubleArray
    covariance: DoubleArray
    scale: float
    share: float
    tie: float | None
    side_bias: DoubleArray
    reliability: DoubleArray
    log_evidence: float
    n_votes: int

    def logits(self, differences: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
        """Mean and variance (n,) of w·x for differences (n, D)."""
        variance = np.einsum("nd,de,ne->n", differences, self.covariance, differences)
        return differences @ self.mean, np.maximum(variance, 0.0)

    def probability(self, differences: DoubleArray) -> DoubleArray:
        """P(a is preferred, given that it is no tie) (n,), averaged over the posterior."""
        mean, variance = self.logits(differences)
        return 1 / (1 + np.exp(-attenuate(mean, variance)))


@dataclass(frozen=True)
class _Mode:
    theta: DoubleArray  # [z (R), bias (K or 0), log nu (1 or 0)]
    solver: tuple[DoubleArray, bool]  # Cholesky factor of the precision
    design: DoubleArray  # (n, R + K): m = design @ theta[:-1 or all]
    slope: DoubleArray  # (n,) d log p / d m, weighted
    curvature: DoubleArray  # (n,) -d² log p / d m², weighted
    log_evidence: float

    @cached_property
    def covariance(self) -> DoubleArray:
        """Of theta. Not needed of the modes that the search over scales only passes by."""
        return np.asarray(cho_solve(self.solver, np.eye(len(self.theta))))


def attenuate(mean: DoubleArray, variance: DoubleArray) -> DoubleArray:
    """The logit whose sigmoid is about E[sigmoid(m)], m ~ N(mean, variance) (MacKay 1992)."""
    return mean / np.sqrt(1 + np.pi * variance / 8)


def log_likelihood(
    m: DoubleArray, log_tie: float | None, outcome: IntArray
) -> tuple[DoubleArray, DoubleArray, DoubleArray, DoubleArray]:
    """log p of the outcomes (n,) and p of a, b and tie, each of the shape of m (…, n)."""
    tie = -np.inf if log_tie is None else log_tie
    energies = np.stack([m / 2, -m / 2, np.full_like(m, tie)])
    top = energies.max(0)
    log_z = top + np.log(np.exp(energies - top).sum(0))
    p_a, p_b, p_tie = np.exp(energies - log_z)
    chosen = np.where(outcome > 0, energies[0], np.where(outcome < 0, energies[1], energies[2]))
    return chosen - log_z, p_a, p_b, p_tie


def _derivatives(
    theta: DoubleArray, design: DoubleArray, votes: Votes, ties: bool
) -> tuple[float, DoubleArray, DoubleArray, DoubleArray, DoubleArray]:
    """Log-likelihood, its gradient and negative Hessian in theta, slope and curvature in m."""
    width = design.shape[1]
    value, p_a, p_b, p_tie = log_likelihood(
        design @ theta[:width], float(theta[-1]) if ties else None, votes.outcome
    )
    slope = votes.weight * (votes.outcome - (p_a - p_b)) / 2
    curvature = votes.weight * (p_a + p_b - (p_a - p_b) ** 2) / 4
    scaled = design * np.sqrt(curvature)[:, None]  # a product with itself costs half
    gradient, hessian = design.T @ slope, scaled.T @ scaled
    if ties:
        cross = design.T @ (-votes.weight * p_tie * (p_a - p_b) / 2)
        gradient = np.append(gradient, votes.weight @ ((votes.outcome == 0) - p_tie))
        corner = np.array([[votes.weight @ (p_tie * (1 - p_tie))]])
        hessian = np.block([[hessian, cross[:, None]], [cross[None, :], corner]])
    return float(votes.weight @ value), gradient, hessian, slope, curvature


def _mode(
    votes: Votes,
    factor: DoubleArray,
    reliability: DoubleArray,
    side_bias: bool,
    start: DoubleArray | None = None,
) -> _Mode:
    """Newton with step halving on a strictly concave function: one mode, found from any start."""
    ties = bool(np.any(votes.outcome == 0))
    design = (votes.differences @ factor) * reliability[votes.annotator][:, None]
    n_bias = votes.n_annotators if side_bias else 0
    if side_bias:
        sides = np.zeros((len(votes), n_bias))
        sides[np.arange(len(votes)), votes.annotator] = votes.side
        design = np.hstack([design, sides])
    rank = factor.shape[1]
    deviations = np.concatenate(
        [np.ones(rank), np.full(n_bias, SIDE_BIAS_SD), np.full(int(ties), LOG_TIE_SD)]
    )
    centre = np.concatenate([np.zeros(rank + n_bias), np.full(int(ties), LOG_TIE_MEAN)])
    precision = 1 / deviations**2

    def objective(theta: DoubleArray) -> float:
        log_tie = float(theta[-1]) if ties else None
        value = log_likelihood(design @ theta[: design.shape[1]], log_tie, votes.outcome)[0]
        return float(votes.weight @ value - 0.5 * precision @ (theta - centre) ** 2)

    theta = centre.copy() if start is None else start
    for _ in range(MAX_NEWTON):
        _, gradient, hessian, slope, curvature = _derivatives(theta, design, votes, ties)
        gradient = gradient - precision * (theta - centre)
        solver = cho_factor(hessian + np.diag(precision))
        step = cho_solve(solver, gradient)
        decrement = float(gradient @ step)
        if decrement < TOLERANCE:
            break
        size, current = 1.0, objective(theta)
        while objective(theta + size * step) < current and size > 1e-6:
            size /= 2
        theta = theta + size * step
    log_determinant = 2 * float(np.log(np.diag(solver[0])).sum()) - float(np.log(precision).sum())
    evidence = objective(theta) - 0.5 * log_determinant
    return _Mode(theta, solver, design, slope, curvature, evidence)


def _leave_one_out(mode: _Mode, rank: int) -> tuple[DoubleArray, DoubleArray]:
    """Mean and variance (n,) of z·x as if the vote itself had not been seen (one Newton step)."""
    x = mode.design[:, :rank]
    cross = x @ mode.covariance[:rank, :rank]
    variance = np.einsum("nr,nr->n", cross, x)
    left = np.maximum(1 - mode.curvature * variance, 1e-3)
    return x @ mode.theta[:rank] - variance * mode.slope / left, variance / left


def _reliabilities(votes: Votes, mode: _Mode, rank: int, current: DoubleArray) -> DoubleArray:
    """Each annotator's beta by a one-dimensional search, with geometric mean 1 over the votes."""
    mean, variance = _leave_one_out(mode, rank)
    scale = current[votes.annotator]
    logits = attenuate(mean / scale, variance / scale**2)
    log_tie = float(mode.theta[-1]) if np.any(votes.outcome == 0) else None
    result = np.zeros(len(current))
    counts = np.bincount(votes.annotator, minlength=len(current))
    for k in range(len(current)):
        mine = votes.annotator == k
        scaled = np.exp(RELIABILITY_GRID)[:, None] * logits[mine]
        scores = log_likelihood(scaled, log_tie, votes.outcome[mine])[0] @ votes.weight[mine]
        scores = scores - 0.5 * (RELIABILITY_GRID / RELIABILITY_SD) ** 2
        result[k] = RELIABILITY_GRID[int(np.argmax(scores))]
    return np.asarray(np.exp(result - counts @ result / counts.sum()))


def _search(
    votes: Votes,
    prior: HeadPrior,
    reliability: DoubleArray,
    side_bias: bool,
    before: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Prior scale and share: a line search over the scale, one over the share, scale again.

    before: what was best with other reliabilities, which move it little: only scales near it.
    """
    known: dict[tuple[float, float], float] = {}
    last: dict[float, tuple[float, DoubleArray]] = {}

    def evidence(scale: float, share: float) -> float:
        if (scale, share) not in known:
            factor, start = scale * prior.factor(share), None
            if share in last:  # the same w under another scale is a good start
                start = last[share][1].copy()
                start[: factor.shape[1]] *= last[share][0] / scale
            mode = _mode(votes, factor, reliability, side_bias, start)
            last[share] = (scale, mode.theta)
            hyper = -0.5 * ((np.log(scale) - LOG_SCALE_MEAN) / LOG_SCALE_SD) ** 2
            known[scale, share] = float(mode.log_evidence + hyper)
        return known[scale, share]

    def near(scale: float) -> list[float]:
        return [s for s in SCALES if 0.5 < s / scale < 2]

    scales, share = (SCALES, SHARES[1]) if before is None else (near(before[0]), before[1])
    scale = max(scales, key=lambda s: evidence(s, share))
    share = max(SHARES, key=lambda s: evidence(scale, s))
    return max(near(scale), key=lambda s: evidence(s, share)), share


def _weights(
    votes: Votes, prior: HeadPrior, reliability: DoubleArray, factor: DoubleArray, mode: _Mode
) -> tuple[DoubleArray, DoubleArray]:
    """Mean (D,) and covariance (D, D) of w, from the likelihood's expansion at the mode."""
    rank = factor.shape[1]
    if prior.directions is None:
        return factor @ mode.theta[:rank], factor @ mode.covariance[:rank, :rank] @ factor.T
    rows = (votes.differences * reliability[votes.annotator][:, None]) @ prior.directions.T
    curvature = np.maximum(mode.curvature, MIN_CURVATURE)
    response = mode.design[:, :rank] @ mode.theta[:rank] + mode.slope / curvature
    mean, covariance = sparse_posterior(rows, response, curvature)
    return prior.directions.T @ mean, prior.directions.T @ covariance @ prior.directions


def fit_head(
    votes: Votes,
    prior: HeadPrior,
    *,
    scale: float | None = None,
    share: float | None = None,
    side_bias: bool = True,
    reliability: bool = True,
) -> HeadPosterior:
    """Posterior of w given the votes; scale and share are chosen by evidence unless given.

    Raises DataError when there is no vote.
    """
    if not len(votes):
        raise DataError("no vote to fit the reward head to: collect votes first")
    beta = np.ones(votes.n_annotators)
    rounds = 2 if reliability and votes.n_annotators > 1 else 0
    fixed = best = None if scale is None or share is None else (scale, share)
    for remaining in range(rounds, -1, -1):
        best = fixed or _search(votes, prior, beta, side_bias, best)
        best_scale, best_share = best
        factor = best_scale * prior.factor(best_share)
        mode = _mode(votes, factor, beta, side_bias)
        if remaining:
            beta = _reliabilities(votes, mode, factor.shape[1], beta)
    rank, k = factor.shape[1], votes.n_annotators
    mean, covariance = _weights(votes, prior, beta, factor, mode)
    return HeadPosterior(
        mean=mean,
        covariance=(covariance + covariance.T) / 2,
        scale=best_scale,
        share=best_share,
        tie=float(np.exp(mode.theta[-1])) if np.any(votes.outcome == 0) else None,
        side_bias=mode.theta[rank : rank + k] if side_bias else np.zeros(k),
        reliability=beta,
        log_evidence=mode.log_evidence,
        n_votes=len(votes),
    )
