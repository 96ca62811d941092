"""Wins, losses and ties as a regression: Bradley and Terry (1952) with Davidson's (1970) ties.

For one comparison with design row x and coefficients w, m = w·x:

    p(first) = exp(m/2) / Z,  p(second) = exp(-m/2) / Z,  p(tie) = nu / Z

With rows that hold +1 for one version and -1 for another, w are Bradley-Terry strengths in
log-odds: p(first | decided) = 1 / (1 + exp(-m)). Further columns are covariates. Weak priors,
w ~ N(0, PRIOR_SD²) and log nu ~ N(log 1/2, PRIOR_SD²), keep what nobody lost, or nobody tied,
finite; from a few dozen votes on they hardly count. The log-posterior is concave; it is maximised
by Newton steps, for many bootstrap samples at once. "Both bad" is a tie: it does not order the two.
The reward model's head has the same likelihood (`rlhf_core/reward/posterior.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedback_app.figures.intervals import Array

PRIOR_SD = 3.0
LOG_TIE = float(np.log(0.5))
MAX_STEPS, TOLERANCE, LONGEST_STEP = 60, 1e-9, 2.0


@dataclass(frozen=True)
class Fit:
    """coefficients (…, p), log_tie (…,), covariance (…, p + 1, p + 1) of both together."""

    coefficients: Array
    log_tie: Array
    covariance: Array


def fit(design: Array, counts: Array) -> Fit:
    """Maximum a posteriori.

    design: (g, p), a row per group of like comparisons; counts: (…, g, 3) how often first won,
    second won, neither (weights may be fractions). Leading axes of counts are fitted side by side.
    """
    lead, width = counts.shape[:-2], design.shape[1]
    flat = counts.reshape(-1, *counts.shape[-2:])
    precision = np.full(width + 1, PRIOR_SD**-2)
    centre = np.zeros(width + 1)
    centre[-1] = LOG_TIE
    place = np.tile(centre, (len(flat), 1))
    total = flat.sum(2)
    won = (flat[..., 0] - flat[..., 1]) / 2
    hessian = np.tile(np.diag(precision), (len(flat), 1, 1))
    for _ in range(MAX_STEPS):
        half = place[:, :-1] @ design.T / 2
        log_tie = place[:, -1:]
        top = np.maximum(np.abs(half), log_tie)
        first, second = np.exp(half - top), np.exp(-half - top)
        tie = np.exp(log_tie - top)
        norm = first + second + tie
        lean, ties = (first - second) / norm / 2, tie / norm
        gradient = -precision * (place - centre)
        gradient[:, :-1] += (won - total * lean) @ design
        gradient[:, -1] += (flat[..., 2] - total * ties).sum(1)
        curve = total * ((first + second) / norm / 4 - lean**2)
        hessian = _hessian(design, curve, -total * lean * ties, total * ties * (1 - ties))
        hessian += np.diag(precision)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        longest = np.abs(step).max(1, keepdims=True)
        place += step * np.minimum(1.0, LONGEST_STEP / np.maximum(longest, 1e-300))
        if longest.max() < TOLERANCE:
            break
    covariance = np.linalg.inv(hessian)
    return Fit(
        place[:, :-1].reshape(*lead, width),
        place[:, -1].reshape(lead),
        covariance.reshape(*lead, width + 1, width + 1),
    )


def _hessian(design: Array, curve: Array, mixed: Array, ties: Array) -> Array:
    """(s, p + 1, p + 1) minus the second derivatives: of w, of w with log nu, of log nu."""
    samples, width = len(curve), design.shape[1]
    out = np.empty((samples, width + 1, width + 1))
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    out[:, :-1, :-1] = (curve @ products).reshape(samples, width, width)
    out[:, :-1, -1] = out[:, -1, :-1] = mixed @ design
    out[:, -1, -1] = ties.sum(1)
    return out


def components(n: int, pairs: Array) -> list[int]:
    """A number per version: those that met, directly or through others, share it.

    pairs: (k, 2) indices of versions that were compared.
    """
    home = list(range(n))

    def root(i: int) -> int:
        while home[i] != i:
            i = home[i]
        return i

    for a, b in pairs.astype(int).tolist():
        home[root(a)] = root(b)
    return [root(i) for i in range(n)]
