"""What votes on pairs of a proposed policy and its parent make of the gate's verdict.

Numpy alone: the app's pages use it, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SURE = 0.9  # probability of being better from which it is accepted; below 1 - SURE: rejected
PRIOR_LIMIT = 0.95  # no gate is surer than this before people have voted
CLEAREST = 0.7  # how often a single vote follows its listener's order: what is best wins no more
FEWEST = 10  # pairs before the votes are let speak
_SHARES = 0.5 + (CLEAREST - 0.5) * (np.arange(400) + 0.5) / 400


def settle(judged: Mapping[str, Any], wins: int, losses: int) -> dict[str, Any]:
    """A verdict after votes on pairs of the proposal and its parent.

    The share of pairs that the proposal wins is unknown, evenly so within 0.3..0.5 (worse) and
    0.5..0.7 (better): wider limits would let a handful of noisy votes decide. Bayes' rule weighs
    them with what the gate thought before. Where there are odd signs, a good opinion of the gate's
    may be the very mistake that was exploited: it then counts as no opinion.

    judged: {decision, reasons, better, odd} of `gate.verdict`; where better is not known it is
    one half, where odd is not, there may be odd signs. wins, losses: pairs, each counted once
    however many voted on it (they share their songs' and edits' chance), undecided ones left out.
    Returns it with the decision, better and reasons that the votes make of it; with fewer than
    FEWEST pairs, all but the reasons as it was.
    """
    total = wins + losses
    for_it = f"{wins} of {total} pairs of both that were voted on are for it"
    if total < FEWEST:
        return {**judged, "reasons": [f"{for_it}; {FEWEST} are needed to settle the verdict"]}
    known, odd = judged.get("better"), judged.get("odd", True)
    before = 0.5 if known is None else min(float(known), 0.5) if odd else float(known)
    before = min(max(before, 1 - PRIOR_LIMIT), PRIOR_LIMIT)
    votes = _better_by_votes(wins, losses)
    better = before * votes / (before * votes + (1 - before) * (1 - votes))
    decision = "accept" if better >= SURE else "reject" if better <= 1 - SURE else "doubtful"
    reason = f"{for_it}; with them it is better with a probability of {better:.0%}"
    if judged.get("odd"):
        reason += " (the gate saw odd signs: its own good opinion does not count)"
    return {**judged, "decision": decision, "better": better, "reasons": [reason]}


def _better_by_votes(wins: int, losses: int) -> float:
    """The probability of a share above one half, both sides as likely before."""
    up = wins * np.log(_SHARES) + losses * np.log1p(-_SHARES)
    down = losses * np.log(_SHARES) + wins * np.log1p(-_SHARES)
    highest = max(up.max(), down.max())
    for_it, against = np.exp(up - highest).sum(), np.exp(down - highest).sum()
    return float(for_it / (for_it + against))
