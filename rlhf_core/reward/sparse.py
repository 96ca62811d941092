"""A person's taste is about a few things: the horseshoe over the head's known directions.

The trunk was trained to predict K plain statistics of an edit; each is a direction u_k of phi (see
`HeadPrior.directions`). A taste may be made of any of them, but hardly of all: w = sum_k c_k u_k,

    c_k ~ N(0, tau² lambda_k²),   lambda_k ~ C+(0, 1),   tau ~ C+(0, TAU)

(Carvalho, Polson, Scott 2010; TAU as in Piironen, Vehtari 2017: p0 / (K - p0) for two of a hundred
directions). The likelihood is the second-order expansion of the votes' one at the mode of the
Gaussian prior (`posterior`): votes i with rows x_i, working response z_i and curvature o_i > 0.
Gibbs sampling with inverse-gamma auxiliaries (Makalic, Schmidt 2016); mean and covariance are
averages of the conditional ones, given the scales, so few samples are enough. The generator's
seed is fixed: the same votes give the same bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.linalg.lapack import dtrtri

from rlhf_core.types import DoubleArray

TAU: Final = 0.02
BURN_IN, SAMPLES = 100, 200
SEED: Final = 0


def sparse_posterior(
    rows: DoubleArray, response: DoubleArray, curvature: DoubleArray
) -> tuple[DoubleArray, DoubleArray]:
    """Posterior mean (K,) and covariance (K, K) of c under the horseshoe.

    Args:
        rows: (n, K); response, curvature: (n,): response = rows @ c + noise of variance
            1 / curvature.
    """
    rng = np.random.default_rng(SEED)
    width = rows.shape[1]
    precision = (rows.T * curvature) @ rows
    towards = rows.T @ (curvature * response)
    local, local_aux, tau, tau_aux = np.ones(width), np.ones(width), TAU**2, TAU**2
    means = np.zeros((SAMPLES, width))
    within = np.zeros((width, width))
    for step in range(BURN_IN + SAMPLES):
        root = np.sqrt(tau * local)
        factor = np.linalg.cholesky(root[:, None] * precision * root + np.eye(width))
        # half (K, K) with halfᵀ half = the conditional covariance
        half = dtrtri(factor, lower=1)[0] * root
        mean = half.T @ (half @ towards)
        if step >= BURN_IN:
            means[step - BURN_IN] = mean
            within += half.T @ half
        square = (mean + half.T @ rng.standard_normal(width)) ** 2
        local = 1 / rng.gamma(1.0, 1 / (1 / local_aux + square / (2 * tau)))
        local_aux = 1 / rng.gamma(1.0, 1 / (1 + 1 / local))
        tau = 1 / rng.gamma((width + 1) / 2, 1 / (1 / tau_aux + (square / local).sum() / 2))
        tau_aux = 1 / rng.gamma(1.0, 1 / (1 / TAU**2 + 1 / tau))
    between = np.atleast_2d(np.cov(means.T))
    return means.mean(0), within / SAMPLES + between
