"""What a policy version does: beats kept, joins, actions, and the parts of the dense reward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from feedback_app.figures.intervals import Z95


def mean_with_interval(values: Sequence[float]) -> dict[str, Any] | None:
    """{mean, low, high, of}: 95 % by the standard error; None of nothing, no bounds of one."""
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None, "of": len(values)}
    half = Z95 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half, "of": len(values)}


def joins_of(beats: Sequence[Sequence[float]]) -> int:
    """Places in an edit's output where the source does not play straight on."""
    return sum(
        bool(this[3]) or bool(following[3]) or following[0] != this[0] + 1
        for this, following in pairwise(beats)
    )


def behaviour(edits: Sequence[Mapping[str, Any]], action_names: Sequence[str]) -> dict[str, Any]:
    """Share of beats that still sound, joins per edit, share per action.

    edits: rows with `actions` (ids) and `beats` ([source beat, start, length, reverse] in output
    order, as in `EDL.to_json`).
    """
    if not edits:
        return {"edits": 0, "keep_ratio": None, "joins_per_edit": None, "actions": {}}
    counts = Counter(action for edit in edits for action in edit["actions"])
    total = sum(counts.values())
    kept = [len({int(b[0]) for b in edit["beats"]}) / len(edit["actions"]) for edit in edits]
    joins = [joins_of(edit["beats"]) for edit in edits]
    return {
        "edits": len(edits),
        "keep_ratio": mean_with_interval(kept),
        "joins_per_edit": mean_with_interval(joins),
        "actions": {name: counts[i] / total for i, name in enumerate(action_names)},
    }


def dense_components(policy: Mapping[str, Any]) -> dict[str, float] | None:
    """The parts of the dense reward from a version's evaluation on unseen songs, or None."""
    metrics = policy.get("metrics") or {}
    contender = (metrics.get("contenders") or {}).get("policy") or {}
    found = contender.get("dense_components")
    return dict(found) if found else None
