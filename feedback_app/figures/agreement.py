"""How alike people vote: Krippendorff's alpha, raw agreement, Cohen's kappa per pair of people.

An item is a pair of edits; an answer is a, neither (tie, both bad) or b, on a nominal scale.
"Can't judge" is a missing answer, hidden repeats and gold pairs are left out. Alpha's point value
is the `krippendorff` library's; its interval resamples items. Alpha and raw agreement need no
names, so items with the same numbers of answers are counted together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from feedback_app.figures.intervals import Array, percentiles, share_of

SAMPLES = 500
ANSWERS = ("a", "neither", "b")


def alpha(counts: Array, items: Array, *, seed: int = 0, samples: int = SAMPLES) -> Any:
    """{alpha, low, high, items, answers, raw} or None where no item has two answers.

    counts: (k, answers) how many people gave each answer to an item of kind k; items: (k,) how many
    such items there are. raw: share of pairs of answers to one item that are the same. alpha is
    None where everybody always gave the same answer: there is nothing to tell apart.
    """
    paired = counts.sum(1) >= 2
    counts, items = counts[paired].astype(float), items[paired].astype(np.int64)
    if not items.sum():
        return None
    together = _coincidences(counts)
    draws = np.random.default_rng(seed).multinomial(
        int(items.sum()), items / items.sum(), size=samples
    )
    values = _alpha_of(np.einsum("sk,kab->sab", draws.astype(float), together))
    values = values[np.isfinite(values)]
    low, high = (None, None) if not len(values) else (float(x) for x in percentiles(values))
    answers = counts.sum(1)
    same = (counts * (counts - 1)).sum(1) / (answers * (answers - 1))
    return {
        "alpha": library_alpha(counts, items),
        "low": low,
        "high": high,
        "items": int(items.sum()),
        "answers": int((answers * items).sum()),
        "raw": float((same * items).sum() / items.sum()),
    }


def library_alpha(counts: Array, items: Array) -> float | None:
    """Krippendorff's nominal alpha by the `krippendorff` library; None where all answers agree on
    one value.
    """
    import krippendorff  # only when asked for: the web process starts without it

    if ((counts * items[:, None]).sum(0) > 0).sum() < 2:
        return None
    whole = np.repeat(counts.astype(np.int64), items.astype(np.int64), axis=0)
    return float(krippendorff.alpha(value_counts=whole, level_of_measurement="nominal"))


def _coincidences(counts: Array) -> Array:
    """(k, v, v) what one item of each kind adds to the coincidence matrix."""
    total = counts.sum(1)[:, None, None]
    diagonal = counts[:, :, None] * np.eye(counts.shape[1])
    return np.asarray((counts[:, :, None] * counts[:, None, :] - diagonal) / (total - 1))


def _alpha_of(coincidences: Array) -> Array:
    """Nominal alpha of coincidence matrices (…, v, v); NaN where there is one value only."""
    margins = coincidences.sum(-1)
    n = margins.sum(-1)
    same = np.trace(coincidences, axis1=-2, axis2=-1)
    by_chance = (margins * (margins - 1)).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - (n - same) * (n - 1) / (n * (n - 1) - by_chance))


def kappa(table: Array, *, seed: int = 0, samples: int = SAMPLES) -> dict[str, Any]:
    """Cohen's (1960) kappa of two people from their (v, v) table, with a bootstrap over items.

    None where both always gave one same answer.
    """
    total = int(table.sum())
    draws = np.random.default_rng(seed).multinomial(total, (table / total).ravel(), size=samples)
    values = _kappa_of(draws.reshape(samples, *table.shape).astype(float))
    values = values[np.isfinite(values)]
    point = float(_kappa_of(table.astype(float)))
    low, high = (None, None) if not len(values) else (float(x) for x in percentiles(values))
    return {
        "kappa": point if np.isfinite(point) else None,
        "low": low,
        "high": high,
        "items": total,
        "raw": float(np.trace(table) / total),
    }


def _kappa_of(tables: Array) -> Array:
    total = tables.sum((-2, -1))
    seen = np.trace(tables, axis1=-2, axis2=-1) / total
    chance = (tables.sum(-1) * tables.sum(-2)).sum(-1) / total**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((seen - chance) / (1 - chance))


def kappas(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Kappa of every two people who judged the same pairs, most items first.

    rows: {first, second, answer_first, answer_second (0 a, 1 neither, 2 b), n}.
    """
    tables: dict[tuple[str, str], Array] = {}
    for row in rows:
        table = tables.setdefault((row["first"], row["second"]), np.zeros((3, 3)))
        table[row["answer_first"], row["answer_second"]] += row["n"]
    found = [{"first": x, "second": y, **kappa(table)} for (x, y), table in tables.items()]
    return sorted(found, key=lambda row: (-row["items"], row["first"], row["second"]))


def agreement_by_person(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """How often each person's answer is another person's on the same pair.

    rows: {annotator, same, others}: sums over the person's votes. Votes of one pair are not
    independent, so the interval is somewhat too narrow.
    """
    return {row["annotator"]: share_of(float(row["same"]), float(row["others"])) for row in rows}
