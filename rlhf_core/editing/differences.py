"""Where two edits of a passage differ, in the seconds of each one's own output.

Used by the player (marks, "next difference", how much must be heard before a vote). numpy only:
the web process imports this.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

import numpy as np

from rlhf_core.editing.edl import EDL
from rlhf_core.errors import EditError
from rlhf_core.types import DoubleArray

MARGIN_BEATS = 1
MERGE_BELOW_BEATS = 4

Regions = list[tuple[float, float]]


def differing_regions(edl_a: EDL, edl_b: EDL) -> tuple[Regions, Regions]:
    """Stretches of output in which the edits differ: (regions of a, regions of b), in seconds.

    The two outputs are aligned as sequences of output beats (source beat, gains, direction).
    What has no counterpart differs; a stretch that only one side has is, on the other side, the
    join where it is missing. Each is widened by a beat on either side, and regions with gaps of
    less than 4 beats between them are one. Equal edits have none.

    Raises EditError when the edits are not of one passage.
    """
    if edl_a.passage != edl_b.passage:
        raise EditError(
            f"cannot compare edits of different passages: {edl_a.passage} and {edl_b.passage}"
        )
    matcher = SequenceMatcher(None, _keys(edl_a), _keys(edl_b), autojunk=False)
    changed = [codes[1:] for codes in matcher.get_opcodes() if codes[0] != "equal"]
    return (
        _regions(((a, b) for a, b, _, _ in changed), edl_a.output_times),
        _regions(((a, b) for _, _, a, b in changed), edl_b.output_times),
    )


def _keys(edl: EDL) -> list[tuple[int, int, int, bool]]:
    """Output beats with gains rounded, so that equal ramps compare equal."""
    return [
        (beat.source_beat, round(beat.gain_start * 1e6), round(beat.gain_end * 1e6), beat.reverse)
        for beat in edl.beats
    ]


def _regions(changed: Iterable[tuple[int, int]], times: DoubleArray) -> Regions:
    """Half-open ranges of output beats, in order, as widened and merged stretches of seconds."""
    merged: list[tuple[int, int]] = []
    last_beat = len(times) - 1
    for start, end in changed:
        wide = (max(0, start - MARGIN_BEATS), min(last_beat, end + MARGIN_BEATS))
        if merged and wide[0] - merged[-1][1] < MERGE_BELOW_BEATS:
            merged[-1] = (merged[-1][0], max(merged[-1][1], wide[1]))
        else:
            merged.append(wide)
    seconds = np.asarray(times, dtype=np.float64)
    return [(float(seconds[start]), float(seconds[end])) for start, end in merged]
