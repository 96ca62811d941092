"""Cutting a song into passages: the stretches that one edit, one pair and one episode cover.

Passages begin on downbeats, at multiples of the 8-beat phrase counted from the first downbeat
(in 3/4 and the like at multiples of both the phrase and the bar). They follow each other without
gaps to the last beat; beats before the first downbeat (a pickup) are left out.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from rlhf_core.errors import EditError
from rlhf_core.types import (
    MIN_SONG_BEATS,
    PASSAGE_MAX,
    PASSAGE_MIN,
    PASSAGE_TARGET,
    PHRASE_BEATS,
    BeatGrid,
    Passage,
)


def split_passages(grid: BeatGrid, target: int = PASSAGE_TARGET) -> list[Passage]:
    """Split a song into passages of 32..96 beats, as close to `target` beats as may be.

    A song of 8..31 beats is one passage. Where leaving out the pickup would leave too few beats,
    the passage keeps it and begins at beat 0. Raises EditError on a shorter song.
    """
    n = grid.n_beats
    if n < MIN_SONG_BEATS:
        raise EditError(f"a song needs at least {MIN_SONG_BEATS} beats to be edited, it has {n}")
    downbeats = np.flatnonzero(grid.bar_phase == 0)
    first = int(downbeats[0]) if len(downbeats) else 0
    if n - first < (PASSAGE_MIN if n >= PASSAGE_MIN else MIN_SONG_BEATS):
        first = 0
    beats = n - first
    if beats < PASSAGE_MIN:
        return [Passage(first, n)]
    cuts = _boundaries(beats, math.lcm(PHRASE_BEATS, grid.beats_per_bar), target)
    if cuts is None:  # a bar so long that bars and phrases meet too rarely: phrases win
        cuts = _boundaries(beats, PHRASE_BEATS, target)
    assert cuts is not None  # steps of 8 reach every length from 32 on
    return [Passage(first + a, first + b) for a, b in pairwise(cuts)]


def _boundaries(beats: int, step: int, target: int) -> list[int] | None:
    """0 = b0 < b1 < … = beats on multiples of `step`, sizes in 32..96 with the least sum of
    squared distances from `target` (shortest path); None when no such split exists.
    """
    points = [*range(0, beats, step), beats]
    cost, came = [0.0], [0]
    for i in range(1, len(points)):
        options = [
            (cost[j] + (points[i] - points[j] - target) ** 2, j)
            for j in range(i)
            if PASSAGE_MIN <= points[i] - points[j] <= PASSAGE_MAX
        ]
        best, source = min(options, default=(math.inf, 0))
        cost.append(best)
        came.append(source)
    if math.isinf(cost[-1]):
        return None
    path = [len(points) - 1]
    while path[-1] != 0:
        path.append(came[path[-1]])
    return [points[i] for i in reversed(path)]
