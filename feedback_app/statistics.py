"""Figures about votes, as pure functions of plain arrays.

`bradley_terry` is the maximum-likelihood model of Bradley and Terry (1952) with ties counted as
half a win for each side, fitted by Hunter's (2004) minorise-maximise iteration with a small prior
(half a tie against a common opponent) that keeps versions without losses finite.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
PRIOR = 0.5


@dataclass(frozen=True)
class Comparison:
    """One decisive or tied vote between two versions; result 1: first won, 0.5 tie, 0: lost."""

    first: str
    second: str
    result: float


def comparisons(rows: Sequence[dict[str, Any]]) -> list[Comparison]:
    """Votes between two different versions; can't-judge is left out, both-bad is a tie."""
    results = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
    return [
        Comparison(row["policy_a"], row["policy_b"], results[row["choice"]])
        for row in rows
        if row["policy_a"] != row["policy_b"] and row["choice"] in results
    ]


def win_matrix(votes: Sequence[Comparison], names: Sequence[str]) -> Array:
    """(n, n) wins of row over column, ties half each."""
    place = {name: index for index, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for vote in votes:
        first, second = place[vote.first], place[vote.second]
        wins[first, second] += vote.result
        wins[second, first] += 1 - vote.result
    return wins


def bradley_terry(wins: Array, rounds: int = 500, tolerance: float = 1e-9) -> Array:
    """Log-strengths (n,) with mean 0, from a win matrix (n, n).

    Each version also has `PRIOR` wins and `PRIOR` losses against an opponent of strength 1.
    """
    games = wins + wins.T
    won = wins.sum(1) + PRIOR
    strength = np.ones(len(wins))
    for _ in range(rounds):
        pairs = games / (strength[:, None] + strength[None, :])
        updated = won / (pairs.sum(1) + 2 * PRIOR / (strength + 1))
        done = bool(np.max(np.abs(np.log(updated / strength))) < tolerance)
        strength = updated
        if done:
            break
    logs = np.log(strength)
    return np.asarray(logs - logs.mean())


def leaderboard(
    votes: Sequence[Comparison], *, samples: int = 200, seed: int = 0
) -> list[dict[str, Any]]:
    """Versions by strength, best first, with 95 % bootstrap intervals over votes."""
    names = sorted({name for vote in votes for name in (vote.first, vote.second)})
    if not names:
        return []
    strengths = bradley_terry(win_matrix(votes, names))
    rng = np.random.default_rng(seed)
    draws = np.array(
        [
            bradley_terry(
                win_matrix([votes[i] for i in rng.integers(len(votes), size=len(votes))], names),
                rounds=50,
            )
            for _ in range(samples)
        ]
    )
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    counts = Counter(name for vote in votes for name in (vote.first, vote.second))
    rows = [
        {
            "version": name,
            "strength": float(strengths[i]),
            "low": float(low[i]),
            "high": float(high[i]),
            "votes": counts[name],
        }
        for i, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: -float(str(row["strength"])))


def wilson(wins: float, total: int) -> tuple[float, float, float]:
    """(share, low, high): a share with its 95 % Wilson interval; (nan, 0, 1) of nothing."""
    if total == 0:
        return float("nan"), 0.0, 1.0
    z, share = 1.959963984540054, wins / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return share, float(max(0.0, middle - half)), float(min(1.0, middle + half))


def win_rate(votes: Sequence[Comparison], version: str, against: str) -> dict[str, Any] | None:
    """How often one version beat another, ties half; None where they never met."""
    results = [v.result for v in votes if (v.first, v.second) == (version, against)]
    results += [1 - v.result for v in votes if (v.first, v.second) == (against, version)]
    if not results:
        return None
    share, low, high = wilson(sum(results), len(results))
    return {"win_rate": share, "low": low, "high": high, "votes": len(results)}


def side_bias(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per annotator: share of decisive votes for the left side, with its interval."""
    lefts: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row["choice"] in ("a", "b") and row["b_first"] is not None:
            lefts[row["annotator"]].append((row["choice"] == "b") == row["b_first"])
    out = {}
    for name, values in lefts.items():
        share, low, high = wilson(sum(values), len(values))
        out[name] = {"left_share": share, "low": low, "high": high, "votes": float(len(values))}
    return out


def behaviour(edits: Sequence[dict[str, Any]], action_names: Sequence[str]) -> dict[str, Any]:
    """What a version does: share of beats that still sound, joins per edit, share per action.

    edits: rows with `actions` and `edl` (as `EDL.to_json`).
    """
    if not edits:
        return {"edits": 0, "keep_ratio": None, "joins_per_edit": None, "actions": {}}
    counts = Counter(action for edit in edits for action in edit["actions"])
    total = sum(counts.values())
    kept = [
        len({int(beat[0]) for beat in edit["edl"]["beats"]}) / len(edit["actions"])
        for edit in edits
    ]
    joins = [joins_of(edit["edl"]["beats"]) for edit in edits]
    return {
        "edits": len(edits),
        "keep_ratio": float(np.mean(kept)),
        "joins_per_edit": float(np.mean(joins)),
        "actions": {name: counts[i] / total for i, name in enumerate(action_names)},
    }


def joins_of(beats: Sequence[Sequence[float]]) -> int:
    """Places in an edit's output where the source does not play straight on."""
    return sum(
        bool(this[3]) or bool(following[3]) or following[0] != this[0] + 1
        for this, following in pairwise(beats)
    )
