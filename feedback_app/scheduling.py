"""Rules of assignments and votes: sides, what must be heard before voting, what is odd.

Pure functions. Which pair comes next is decided by `pool`, on the one writer thread.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

SAME_SIDE = 11  # of the last LOOK_BACK decided votes on one side: by chance in fewer than 1 of 150
LOOK_BACK = 12
FAST_IN_A_ROW = 4
SITTING_PAUSE = timedelta(hours=2)  # without a vote: what comes then is another sitting
NEARLY = 0.2  # s per side that the page's clock and the server's sums may differ by


@dataclass(frozen=True)
class Plan:
    """What an assignment is for: a pair, why, and where it is a hidden repeat, of which assignment.

    reason: score, random, cross, gold or repeat. information: nats that the newest ranking expects.
    """

    pair_id: str
    required_a: float
    required_b: float
    reason: str
    information: float | None = None
    repeat_of: str | None = None
    b_first: bool | None = None


def new_assignment(
    plan: Plan, annotator: str, now: datetime, lease: timedelta, rng: random.Random
) -> dict[str, Any]:
    """A lease with shuffled sides and opaque media names that mean nothing elsewhere."""
    b_first = rng.random() < 0.5 if plan.b_first is None else plan.b_first
    required = (plan.required_a, plan.required_b)
    return {
        "assignment_id": uuid4().hex,
        "pair_id": plan.pair_id,
        "annotator": annotator,
        "b_first": b_first,
        "first_side": rng.choice(("left", "right")),
        "media_left": uuid4().hex,
        "media_right": uuid4().hex,
        "media_original": uuid4().hex,
        "state": "open",
        "leased_until": now + lease,
        "created_at": now,
        "repeat_of": plan.repeat_of,
        "reason": plan.reason,
        "information": plan.information,
        "required_left_s": required[b_first],
        "required_right_s": required[not b_first],
    }


def required_seconds(regions: Sequence[Sequence[float]], share: float, cap_s: float) -> float:
    """Seconds of a side's differing regions to be heard before a vote: a share, capped."""
    return round(min(cap_s, share * sum(end - start for start, end in regions)), 3)


def unheard(listened: Mapping[str, Any], required: Mapping[str, float]) -> dict[str, float]:
    """Seconds still missing per side (left, right); {} where enough was heard.

    listened: as the page reports it, `regions_<side>_s` a list of seconds per differing region.
    """
    missing = {}
    for side, wanted in required.items():
        parts = listened.get(f"regions_{side}_s", [])
        heard = sum(part for part in parts if _is_seconds(part)) if isinstance(parts, list) else 0
        if heard < wanted - NEARLY:
            missing[side] = round(wanted - heard, 1)
    return missing


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6


def notes_on(
    choice: str, response_ms: int | None, recent: Sequence[tuple[str, bool]], fast_ms: int
) -> list[str]:
    """What is odd about a vote: "too_fast", "one_sided"; both are noted, neither is refused.

    recent: (choice of sides, was too fast) of this person's votes before it, oldest first.
    """
    notes = []
    if choice != "skip" and response_ms is not None and response_ms < fast_ms:
        notes.append("too_fast")
    decided = [one for one, _ in recent if one in ("left", "right")][-(LOOK_BACK - 1) :]
    if choice in ("left", "right") and len(decided) == LOOK_BACK - 1:
        same = 1 + sum(one == choice for one in decided)
        if same >= SAME_SIDE:
            notes.append("one_sided")
    return notes


def hint_on(notes: Sequence[str], recent: Sequence[tuple[str, bool]]) -> str | None:
    """What the page says when votes have been odd for a while; None when all is well.

    recent: as in `notes_on`, this vote included.
    """
    last = recent[-FAST_IN_A_ROW:]
    if "too_fast" in notes and len(last) == FAST_IN_A_ROW and all(fast for _, fast in last):
        return "Your last votes came very fast. Take the time you need; there is no hurry."
    if "one_sided" in notes:
        return (
            "Nearly all of your last votes went to the same side. Sides are shuffled each time: "
            "check that both ears and both keys work."
        )
    return None


def to_edit_choice(choice: str, b_first: bool) -> str:
    """A choice of sides (left, right) in terms of the pair's edits (a, b)."""
    sides = {"left": "b" if b_first else "a", "right": "a" if b_first else "b"}
    return sides.get(choice, choice)


def to_side_choice(choice: str, b_first: bool) -> str:
    """The inverse of `to_edit_choice`."""
    sides = {"a": "right" if b_first else "left", "b": "left" if b_first else "right"}
    return sides.get(choice, choice)


def removed_ranges(
    beats: Sequence[Sequence[float]], start_beat: int, times: Sequence[float]
) -> list[dict[str, float]]:
    """Stretches of a passage that an edit never plays.

    beats: the edit's `[source_beat, …]` rows; times: (n + 1,) seconds of the passage's beats.
    """
    played = {int(beat[0]) - start_beat for beat in beats}
    out: list[dict[str, float]] = []
    for index in range(len(times) - 1):
        if index in played:
            continue
        if out and out[-1]["end_beat"] == start_beat + index:
            out[-1] |= {"end_beat": start_beat + index + 1, "end_s": times[index + 1]}
        else:
            out.append(
                {
                    "start_beat": start_beat + index,
                    "end_beat": start_beat + index + 1,
                    "start_s": times[index],
                    "end_s": times[index + 1],
                }
            )
    return out
