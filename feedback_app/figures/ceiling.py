"""How often any model can be right at most, as a reward model's metrics tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Which part of the metrics it comes from: that, what it counts, and in words.
SOURCES = {
    "repeats": ("consistency", "repeats", "hidden repeats"),
    "agreement": ("agreement", "comparisons", "answers of two people on one pair"),
}


def ceiling_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """{ceiling, ceiling_low, ceiling_high, ceiling_from}, each None where it is not known.

    The interval is of 95 %; ceiling_from says in words what it was counted on, and how much of it.
    """
    part, counted, words = SOURCES.get(str(metrics.get("ceiling_from")), ("", "", ""))
    found = metrics.get(part) or {}
    return {
        "ceiling": metrics.get("ceiling"),
        "ceiling_low": found.get("ceiling_low"),
        "ceiling_high": found.get("ceiling_high"),
        "ceiling_from": f"{found[counted]} {words}" if found.get(counted) else None,
    }
