"""What is known of each person who votes: how much, how fast, how consistently, how evenly.

Rows come from `store_statistics` as counts. Biases are tested exactly against one half; a person is
marked where the test says p < `ODD_P` and the share is `ODD_SHARE` or more one way, so that neither
few votes nor great numbers alone make a flag. Hours are sitting time: the gaps between votes that
came within `facts`' limit of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_app.figures.intervals import binomial_p, share_of

ODD_P, ODD_SHARE = 0.01, 0.6
TOO_FAST_SHARE = 0.1
GOLD_FAILURES = 2
LEAST_REPEATS = 5
LEAST_ANSWERS = 20


def bias(count: int, total: int) -> dict[str, Any] | None:
    """A share against one half: {share, low, high, of, p}; None of nothing."""
    found = share_of(count, total)
    return None if found is None else found | {"p": binomial_p(count, total)}


def chance(p: float) -> str:
    """A p-value for reading.

    >>> chance(0.0000048), chance(0.0312)
    ('p < 0.001', 'p = 0.03')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.1g}"


def person(row: Mapping[str, Any], reliability: Mapping[str, float]) -> dict[str, Any]:
    """The figures of one person from their counts. Simulated votes have none of this."""
    hours = float(row["sitting_s"] or 0) / 3600
    found: dict[str, Any] = {
        "votes_per_hour": row["timed"] / hours if hours > 0 else None,
        "sitting_hours": hours,
        "median_s": None if row["median_ms"] is None else float(row["median_ms"]) / 1000,
        "decided": share_of(row["decided"], row["answers"]),
        "skipped": int(row["skips"]),
        "left": bias(int(row["lefts"]), int(row["sided"])),
        "first": bias(int(row["firsts"]), int(row["played"])),
        "repeats": share_of(row["repeats_same"], row["repeats"]),
        "gold": share_of(row["gold_failed"], row["gold"]),
        "too_fast": share_of(row["too_fast"], row["answers"]),
        "one_sided": int(row["one_sided"]),
        "reliability": reliability.get(row["annotator"]),
    }
    return found


def marks(found: Mapping[str, Any], others: Mapping[str, Any] | None) -> list[str]:
    """What is odd about a person, in words; [] where nothing is.

    others: {share, low, high, of} how often the person agrees with others.
    """
    out = []
    for name, words in (("left", ("left side", "right side")),
                        ("first", ("side played first", "side played second"))):  # fmt: skip
        one = found[name]
        if one is not None and one["p"] < ODD_P:
            share = max(one["share"], 1 - one["share"])
            if share >= ODD_SHARE:
                which = words[one["share"] < 0.5]
                out.append(f"{100 * share:.0f} % for the {which} ({chance(one['p'])})")
    gold = found["gold"]
    if gold is not None and gold["share"] * gold["of"] >= GOLD_FAILURES:
        failures = round(gold["share"] * gold["of"])
        out.append(f"preferred a broken edit {failures} times in {gold['of']:.0f}")
    fast = found["too_fast"]
    if fast is not None and fast["of"] >= LEAST_ANSWERS and fast["share"] >= TOO_FAST_SHARE:
        out.append(f"{100 * fast['share']:.0f} % of votes too fast to have listened")
    repeats = found["repeats"]
    if repeats is not None and repeats["of"] >= LEAST_REPEATS and repeats["high"] < 0.75:
        out.append(f"repeats only {100 * repeats['share']:.0f} % of their own answers")
    if others is not None and others["of"] >= LEAST_ANSWERS and others["high"] < 0.5:
        out.append(f"agrees with others only {100 * others['share']:.0f} % of the time")
    return out


def people(
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Mapping[str, Any]],
    agreement: Mapping[str, Mapping[str, Any] | None],
    reliability: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Everybody with figures and marks; those who never voted have `figures` None.

    rows: accounts; counts: by name, from `store_statistics.people_counts`.
    """
    out = []
    for row in rows:
        name = row["name"]
        if name not in counts:
            out.append({**row, "figures": None, "marks": []})
            continue
        found = person(counts[name], reliability)
        found["agrees"] = agreement.get(name)
        out.append({**row, "figures": found, "marks": marks(found, found["agrees"])})
    return out
