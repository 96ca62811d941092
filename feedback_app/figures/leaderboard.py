"""Policy versions by strength, from votes on pairs of two versions.

Strengths are log-odds (`davidson`), centred on 0 over the versions. Intervals are 95 % percentile
bootstraps over whole songs, because votes on one song are alike; with fewer than `ENOUGH` songs
over whole annotators, with fewer of both over single votes, which makes them too narrow: the answer
says what was resampled. A second fit adds two covariates, how much longer and how much louder the
first edit was, and also learns from pairs within a version; their intervals come from the
likelihood's curvature (votes taken as independent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feedback_app.figures import davidson
from feedback_app.figures.intervals import Z95, Array, cluster_weights, percentiles, wilson

SAMPLES = 300
ENOUGH = 5  # songs, or annotators, from which resampling them says something
FEW_VOTES = 30  # below this an interval of a share is wider than ± 18 points
COVARIATES = {"length": ("5 s longer", 5.0), "level": ("1 dB louder", 1.0)}
Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Counts of comparisons: who won, by versions and cluster.

    names (n,); sides (k, 2) indices of the two versions of each kind of pair, first < second;
    counts (clusters, k, 3) first won, second won, neither: weighted votes.
    """

    names: list[str]
    sides: Array
    counts: Array

    @property
    def design(self) -> Array:
        """(k, n): +1 for the first version, -1 for the second."""
        out = np.zeros((len(self.sides), len(self.names)))
        rows = np.arange(len(self.sides))
        first, second = self.sides.astype(int).T
        out[rows, first], out[rows, second] = 1, -1
        return out


def tabulate(columns: Columns, cluster: str) -> Table:
    """Counts by pair of versions and cluster, from columns policy_a, policy_b, won_a, won_b, ties
    and the cluster's. Rows within one version are left out.
    """
    first, second = (np.asarray(columns[f"policy_{side}"], dtype=str) for side in "ab")
    across = first != second
    first, second = first[across], second[across]
    won_a, won_b, ties = (
        np.asarray(columns[name], dtype=float)[across] for name in ("won_a", "won_b", "ties")
    )
    names, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    codes = codes.reshape(2, -1)
    turned = codes[0] > codes[1]
    sides, kind = np.unique(np.sort(codes, axis=0), axis=1, return_inverse=True)
    groups, group = np.unique(np.asarray(columns[cluster], dtype=str)[across], return_inverse=True)
    counts = np.zeros((len(groups), sides.shape[1], 3))
    np.add.at(counts[..., 0], (group, kind.ravel()), np.where(turned, won_b, won_a))
    np.add.at(counts[..., 1], (group, kind.ravel()), np.where(turned, won_a, won_b))
    np.add.at(counts[..., 2], (group, kind.ravel()), ties)
    return Table([str(name) for name in names], sides.T.astype(float), counts)


def choose_clusters(columns: Columns) -> str:
    """What to resample: song, annotator, or vote where there are too few of both."""
    across = np.asarray(columns["policy_a"], dtype=str) != np.asarray(
        columns["policy_b"], dtype=str
    )
    for name in ("song", "annotator"):
        if name in columns and len(np.unique(np.asarray(columns[name], str)[across])) >= ENOUGH:
            return name
    return "vote"


def leaderboard(columns: Columns, *, seed: int = 0, samples: int = SAMPLES) -> dict[str, Any]:
    """{rows, resampled, clusters, tie, votes, groups, notes}: versions best first.

    rows: {version, strength, low, high, votes, beats_average}: strength in log-odds, votes
    weighted, beats_average the expected share of decided votes against a version of strength 0.
    """
    cluster = choose_clusters(columns)
    table = tabulate(columns, "song" if cluster == "vote" else cluster)
    if not table.names:
        return {"rows": [], "resampled": None, "clusters": 0, "tie": None, "votes": 0.0,
                "groups": 0, "notes": []}  # fmt: skip
    total = table.counts.sum(0)
    found = davidson.fit(table.design, total)
    draws = _resampled(table, cluster, samples, seed)
    strengths, drawn = (x - x.mean(-1, keepdims=True) for x in (found.coefficients, draws))
    low, high = percentiles(drawn)
    met = davidson.components(len(table.names), table.sides[total.sum(1) > 0])
    votes = np.abs(table.design).T @ total.sum(1)
    rows = [
        {
            "version": name,
            "strength": float(strengths[i]),
            "low": float(min(low[i], strengths[i])),
            "high": float(max(high[i], strengths[i])),
            "votes": float(votes[i]),
            "beats_average": float(1 / (1 + np.exp(-strengths[i]))),
            "group": met[i],
        }
        for i, name in enumerate(table.names)
    ]
    ties = total[:, 2].sum()
    return {
        "rows": sorted(rows, key=lambda row: -float(row["strength"])),
        "resampled": cluster,
        "clusters": int(total.sum()) if cluster == "vote" else len(table.counts),
        "tie": float(ties / total.sum()) if total.sum() else None,
        "votes": float(total.sum()),
        "groups": len(set(met)),
        "notes": notes(rows, cluster, len(set(met))),
    }


def _resampled(table: Table, cluster: str, samples: int, seed: int) -> Array:
    """(samples, n) strengths of bootstrap samples."""
    if cluster != "vote":
        weights = cluster_weights(len(table.counts), samples, seed)
        counts = np.einsum("sc,ckx->skx", weights, table.counts)
        return davidson.fit(table.design, counts).coefficients
    total = table.counts.sum(0)
    size = max(1, round(float(total.sum())))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(size, (total / total.sum()).ravel(), size=samples).astype(float)
    return davidson.fit(table.design, drawn.reshape(samples, *total.shape)).coefficients


def notes(rows: Sequence[Mapping[str, Any]], cluster: str, groups: int) -> list[str]:
    """What to keep in mind when reading a leaderboard."""
    out = []
    few = [str(row["version"]) for row in rows if row["votes"] < FEW_VOTES]
    if few:
        out.append(
            f"Fewer than {FEW_VOTES} votes on {', '.join(few)}: the order may still turn over."
        )
    if cluster == "vote":
        out.append(
            f"Fewer than {ENOUGH} songs and {ENOUGH} annotators: intervals take each vote as "
            "independent, and are too narrow."
        )
    if groups > 1:
        out.append(
            "Some versions never met, not even through a third: their strengths cannot be "
            "compared. Make pairs of one against the other."
        )
    return out


def with_covariates(columns: Columns) -> dict[str, Any]:
    """{rows: [{version, strength}], effects: [{name, step, log_odds, low, high, wins, …}]}.

    columns: policy_a, policy_b, longer_s, louder_db (a minus b, binned), won_a, won_b, ties.
    wins: expected share of decided votes of the edit that is one step longer or louder, else equal.
    A covariate that never differs is left out.
    """
    sides = [np.asarray(columns[f"policy_{side}"], dtype=str) for side in "ab"]
    if not len(sides[0]):
        return {"rows": [], "effects": []}
    names, codes = np.unique(np.concatenate(sides), return_inverse=True)
    codes = codes.reshape(2, -1)
    design = np.zeros((len(sides[0]), len(names)))
    np.add.at(design, (np.arange(len(design)), codes[0]), 1)
    np.add.at(design, (np.arange(len(design)), codes[1]), -1)
    raw = {"length": np.asarray(columns["longer_s"], float),
           "level": np.asarray(columns["louder_db"], float)}  # fmt: skip
    used = {name: values for name, values in raw.items() if np.ptp(values) > 0}
    extra = [values / COVARIATES[name][1] for name, values in used.items()]
    counts = np.stack([np.asarray(columns[n], float) for n in ("won_a", "won_b", "ties")], axis=1)
    found = davidson.fit(np.column_stack([design, *extra]), counts)
    strengths = found.coefficients[: len(names)]
    effects = []
    for place, name in enumerate(used, start=len(names)):
        value, sd = found.coefficients[place], float(np.sqrt(found.covariance[place, place]))
        low, high = value - Z95 * sd, value + Z95 * sd
        share = {k: float(1 / (1 + np.exp(-x))) for k, x in
                 (("wins", value), ("wins_low", low), ("wins_high", high))}  # fmt: skip
        effects.append({"name": name, "step": COVARIATES[name][0], "log_odds": float(value),
                        "low": float(low), "high": float(high), **share})  # fmt: skip
    met = np.abs(design).sum(0) > 0
    centre = strengths[met].mean() if met.any() else 0.0
    rows = [
        {"version": str(name), "strength": float(s)}
        for name, s, seen in zip(names, strengths - centre, met, strict=True)
        if seen
    ]
    return {"rows": sorted(rows, key=lambda row: -row["strength"]), "effects": effects}


def win_rate(columns: Columns, version: str, against: str) -> dict[str, Any] | None:
    """How often one version beat another, ties half; None where they never met.

    The Wilson interval is for the effective number of votes, (sum of weights)² / sum of squares,
    where people are weighted.
    """
    first, second = (np.asarray(columns[f"policy_{side}"], dtype=str) for side in "ab")
    straight = (first == version) & (second == against)
    turned = (first == against) & (second == version)
    won_a, won_b, ties, squares = (
        np.asarray(columns[name], float) for name in ("won_a", "won_b", "ties", "squares")
    )
    total = float((won_a + won_b + ties)[straight | turned].sum())
    if total <= 0:
        return None
    won = float(won_a[straight].sum() + won_b[turned].sum())
    won += float(ties[straight | turned].sum()) / 2
    effective = total**2 / float(squares[straight | turned].sum())
    share, low, high = wilson(won / total * effective, effective)
    return {"win_rate": share, "low": low, "high": high, "votes": total}
