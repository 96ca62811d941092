"""A family of tastes, drawn at random, for pretraining on synthetic votes.

A taste is a function of an edit's standardised attributes (K of them):

    u(x) = Σ_k v_k x_k − Σ_k b_k |x_k − c_k|

with a few non-zero weights v ("more of this, less of that") and bends b around a favourite value c
("neither too short nor too long"). The family is what the prior over a person's head is made of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlhf_core.errors import ConfigError
from rlhf_core.types import DoubleArray

LIMIT = 4.0  # standardised attributes are cut here
TERMS = (1, 2, 3, 4, 6)  # how many attributes a taste looks at


@dataclass(frozen=True)
class TasteFamily:
    """N tastes over K attributes. weights, bends, centres: (N, K); bends >= 0."""

    weights: DoubleArray
    bends: DoubleArray
    centres: DoubleArray

    def scores(self, attributes: DoubleArray) -> DoubleArray:
        """Utility of edits to every taste. Shape: standardised attributes (E, K) -> (E, N)."""
        x = np.clip(attributes, -LIMIT, LIMIT)
        result = x @ self.weights.T
        for taste in np.flatnonzero(self.bends.any(1)):
            used = np.flatnonzero(self.bends[taste])
            away = np.abs(x[:, used] - self.centres[taste, used])
            result[:, taste] -= away @ self.bends[taste, used]
        return np.asarray(result)


def draw_tastes(
    count: int, n_attributes: int, rng: np.random.Generator, n_deeds: int | None = None
) -> TasteFamily:
    """Tastes at random: the number of attributes, which, in what direction, how much.

    n_deeds: half of what tastes look at is among the first so many attributes (None: all alike).
    """
    shape = (count, n_attributes)
    likely = np.full(n_attributes, 1 / n_attributes)
    if n_deeds is not None:
        likely[:n_deeds] = 0.5 / n_deeds
        likely[n_deeds:] = 0.5 / (n_attributes - n_deeds)
    weights, bends, centres = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for taste in range(count):
        terms = min(int(rng.choice(TERMS)), n_attributes)
        for attribute in rng.choice(n_attributes, terms, replace=False, p=likely):
            if rng.random() < 0.35:
                bends[taste, attribute] = abs(rng.normal())
                centres[taste, attribute] = rng.normal()
            else:
                weights[taste, attribute] = rng.normal()
    return TasteFamily(weights, bends, centres)


def stated_taste(
    names: tuple[str, ...], likes: dict[str, float], near_mean: dict[str, float]
) -> TasteFamily:
    """One taste by attribute name: weights, and how much each should stay near its mean.

    Raises ConfigError when a name is not an attribute.
    """
    unknown = sorted({*likes, *near_mean} - set(names))
    if unknown:
        raise ConfigError(f"no attribute {', '.join(unknown)}; there are: {', '.join(names)}")
    weights = np.array([[likes.get(name, 0.0) for name in names]])
    bends = np.array([[near_mean.get(name, 0.0) for name in names]])
    return TasteFamily(weights, bends, np.zeros_like(weights))


def joined(first: TasteFamily, second: TasteFamily) -> TasteFamily:
    """The tastes of both families, in order."""
    return TasteFamily(
        np.vstack([first.weights, second.weights]),
        np.vstack([first.bends, second.bends]),
        np.vstack([first.centres, second.centres]),
    )
