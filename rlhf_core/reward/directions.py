"""Where the plain statistics of edits lie in the trunk's embedding: what tastes may be made of.

For each of the K statistics that the trunk was trained on (`descriptors.TARGET_NAMES`) the ridge
regression on phi, between edits of one window, gives u_k with u_k·phi the statistic in deviations
within windows. The sparse prior (see `sparse`) takes all directions alike, so each is scaled by how
likely tastes are to look at its statistic: half of what they look at is what was done.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from rlhf_core.editing.attributes import ATTRIBUTE_NAMES
from rlhf_core.reward.checkpoint import centre_within
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.synthetic import GROUP, SyntheticEdits
from rlhf_core.types import DoubleArray

WINDOWS: Final = 500
RIDGE: Final = 1e-3  # of the mean square of phi


def directions_of(
    model: LearnedRewardModel, edits: SyntheticEdits, standardised: DoubleArray
) -> DoubleArray:
    """(K, D) directions, float64.

    Args:
        edits: P windows, of which up to `WINDOWS` of all lengths are used; standardised: (P, G, K)
            their statistics in deviations within windows.
    """
    count = min(WINDOWS, len(edits))
    picked = torch.linspace(0, len(edits) - 1, count).long()
    with torch.no_grad():
        parts = torch.split(picked, 16)
        phi = torch.cat([model.embed(*edits.inputs(part), GROUP) for part in parts])
    window = np.arange(count).repeat(GROUP)
    x = centre_within(phi.double().numpy(), window)
    y = centre_within(standardised[picked.numpy()].reshape(len(x), -1), window)
    return ridge(x, y) * np.sqrt(weights(y.shape[1]))[:, None]


def ridge(x: DoubleArray, y: DoubleArray) -> DoubleArray:
    """(K, D) u with y (n, K) about x uᵀ, for centred x (n, D)."""
    gram = x.T @ x
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram, x.T @ y).T)


def weights(width: int) -> DoubleArray:
    """(K,) mean 1: prior variances of the statistics' weights in a taste."""
    deeds = min(len(ATTRIBUTE_NAMES), width)
    likely = np.full(width, 0.5 / max(width - deeds, 1))
    likely[:deeds] = (0.5 if width > deeds else 1.0) / deeds
    return likely * width
