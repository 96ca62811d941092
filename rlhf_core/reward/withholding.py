"""Votes withheld from the reward that trains a policy, for the one that judges it (`policy.gate`).

Whole songs are withheld, chosen by a hash of their ids: the same snapshot always falls into the
same parts, and a song once withheld tends to stay so as votes come in. Without torch: the app's web
process reads the share from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from rlhf_core.errors import DataError

WITHHELD_SHARE = 0.15  # twice as many cost training more than they told (docs/policy-learning.md)
MOST_WITHHELD = 0.3  # where less would be too few to judge by
MIN_PART = 10  # votes in either part; fewer say nothing


class OnASong(Protocol):
    """What a vote has to tell here: its song."""

    @property
    def song_id(self) -> str: ...


Vote = TypeVar("Vote", bound=OnASong)


def split_votes(
    votes: Sequence[Vote], share: float = WITHHELD_SHARE
) -> tuple[list[Vote], list[Vote]]:
    """Votes to learn from, and those withheld: about `share` of them, whole songs.

    Of few votes more are withheld, up to MOST_WITHHELD, so that there are MIN_PART of them. Songs
    come in one order: what a smaller share withholds is among what a larger one does.
    Raises DataError with fewer than two songs.
    """
    songs = sorted(
        {vote.song_id for vote in votes},
        key=lambda song: hashlib.sha256(f"withheld/{song}".encode()).digest(),
    )
    if len(songs) < 2:
        raise DataError(
            f"{len(votes)} votes on {len(songs)} song(s): withholding some takes votes on at least "
            "two songs"
        )
    counts = [sum(vote.song_id == song for vote in votes) for song in songs]
    apart = 1
    while apart < len(songs) - 1:
        too_few = sum(counts[:apart]) < MIN_PART
        most = max(share, MOST_WITHHELD) if too_few else share
        if sum(counts[: apart + 1]) > most * len(votes):
            break
        apart += 1
    chosen = set(songs[:apart])
    return (
        [vote for vote in votes if vote.song_id not in chosen],
        [vote for vote in votes if vote.song_id in chosen],
    )


def parts_of(votes: Sequence[Vote], share: float) -> tuple[list[Vote], list[Vote]]:
    """`split_votes` where both parts are large enough to learn from.

    Raises DataError that says what is missing.
    """
    learned, withheld = split_votes(votes, share)
    if min(len(learned), len(withheld)) < MIN_PART:
        raise DataError(
            f"{len(votes)} votes fall into {len(learned)} to learn from and {len(withheld)} "
            f"withheld; each part needs at least {MIN_PART}"
        )
    return learned, withheld
