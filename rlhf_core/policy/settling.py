"""What votes on pairs of a proposed policy and its parent make of the gate's verdict.

Plain arithmetic without torch: the app's pages use it, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SURE = 0.9  # probability of being better from which it is accepted; below 1 - SURE: rejected
PRIOR_LIMIT = 0.95  # no gate is surer than this before people have voted


def settle(judged: Mapping[str, Any], wins: int, losses: int) -> dict[str, Any]:
    """A verdict after votes on pairs of the proposal and its parent, ties left out.

    The share of votes for the proposal is unknown, evenly so within 0..0.5 (worse) and 0.5..1
    (better); Bayes' rule weighs the votes with what the gate thought before. Where there are odd
    signs, what the gate thought may be the very mistake that was exploited: votes alone count.

    judged: {better, odd} of `gate.verdict`; votes alone count as well where either is not known.
    Returns it with the decision, better and reasons that the votes make of it.
    """
    total = wins + losses
    votes = sum(math.comb(total + 1, k) for k in range(wins + 1)) / 2 ** (total + 1)
    known, odd = judged.get("better"), judged.get("odd", True)
    before = 0.5 if odd or known is None else float(known)
    before = min(max(before, 1 - PRIOR_LIMIT), PRIOR_LIMIT)
    better = before * votes / (before * votes + (1 - before) * (1 - votes))
    decision = "accept" if better >= SURE else "reject" if better <= 1 - SURE else "doubtful"
    reason = (
        f"{wins} of {total} votes on pairs of both are for it; with them it is better with a "
        f"probability of {better:.0%}"
    )
    if judged.get("odd"):
        reason += " (by the votes alone: the gate saw odd signs)"
    return {**judged, "decision": decision, "better": better, "reasons": [reason]}
