"""Which pair an annotator hears next, on which sides, and what must be heard before voting.

Pure functions: the caller reads the candidates and writes the lease in one transaction on the one
writer thread, so two annotators can never be given the same place of a pair.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4


@dataclass(frozen=True)
class Candidate:
    """A pair that needs a vote. taken: annotators who have it; batch: the run that made it."""

    pair_id: str
    taken: int
    created_at: datetime
    batch: str = ""


def choose(candidates: Sequence[Candidate], rng: random.Random) -> Candidate | None:
    """The pair to give next, or None where there is none.

    Pairs that others have begun come first (a pair half-voted is worth little), then the newest
    batch (made by the newest policy), and within a batch chance decides, so that the shares of
    pools in which the batch was made are kept.
    """
    if not candidates:
        return None
    most = max(candidate.taken for candidate in candidates)
    begun = [candidate for candidate in candidates if candidate.taken == most]
    newest = max(begun, key=lambda candidate: candidate.created_at).batch
    return rng.choice([candidate for candidate in begun if candidate.batch == newest])


def new_assignment(
    pair_id: str, annotator: str, now: datetime, lease: timedelta, rng: random.Random
) -> dict[str, Any]:
    """A lease with shuffled sides and opaque media names that mean nothing elsewhere."""
    return {
        "assignment_id": uuid4().hex,
        "pair_id": pair_id,
        "annotator": annotator,
        "b_first": rng.random() < 0.5,
        "first_side": rng.choice(("left", "right")),
        "media_left": uuid4().hex,
        "media_right": uuid4().hex,
        "media_original": uuid4().hex,
        "state": "open",
        "leased_until": now + lease,
        "created_at": now,
    }


def required_seconds(regions: Sequence[Sequence[float]], share: float, cap_s: float) -> float:
    """Seconds of a side's differing regions to be heard before a vote: a share, capped."""
    return round(min(cap_s, share * sum(end - start for start, end in regions)), 3)


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
