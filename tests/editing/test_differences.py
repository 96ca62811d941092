"""Where edits differ, worked out by hand on a song of half-second beats."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from rlhf_core.editing.actions import Action
from rlhf_core.editing.differences import differing_regions
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.errors import EditError
from rlhf_core.types import BeatGrid, Passage
from tests.editing.strategies import Case, cases

GRID = BeatGrid(np.arange(65) * 0.5, np.arange(64) % 4, 120.0)


def edl(start: int = 0, end: int = 32, **edits: list[int] | range) -> EDL:
    actions = np.zeros(end - start, dtype=np.int64)
    for name, beats in edits.items():
        actions[list(beats)] = int(Action[name])
    return build_edl(actions, GRID, Passage(start, end))


def test_equal_edits_have_no_regions() -> None:
    assert differing_regions(edl(CUT=[4, 5]), edl(CUT=[4, 5])) == ([], [])


def test_a_deletion_counts_as_its_join() -> None:
    cut, kept = differing_regions(edl(CUT=range(8, 12)), edl())
    assert cut == [(3.5, 4.5)]  # the join at 4 s, a beat either side
    assert kept == [(3.5, 6.5)]  # the four beats from 4 s on, a beat either side


def test_gaps_of_four_beats_separate_and_shorter_ones_merge() -> None:
    # Widened: 7..10 and 14..17 (gap 4) against 7..10 and 13..16 (gap 3).
    assert differing_regions(edl(GAIN_UP=[8, 15]), edl())[0] == [(3.5, 5.0), (7.0, 8.5)]
    assert differing_regions(edl(GAIN_UP=[8, 14]), edl())[0] == [(3.5, 8.0)]


def test_regions_stay_within_the_output() -> None:
    assert differing_regions(edl(CUT=[0]), edl()) == ([(0.0, 0.5)], [(0.0, 1.0)])
    a, b = differing_regions(edl(CUT=[31]), edl())
    assert a == [(15.0, 15.5)] and b == [(15.0, 16.0)]


def test_fades_gains_and_direction_differ() -> None:
    for name in ("FADE_OUT", "GAIN_DOWN", "REVERSE", "LOOP"):
        a, b = differing_regions(edl(**{name: [12]}), edl())
        assert len(a) == len(b) == 1
        assert a[0][0] <= 6.0 and a[0][1] >= 6.5


@settings(max_examples=40, deadline=None)
@given(cases(max_rows=1))
def test_outside_the_regions_both_play_the_same(case: Case) -> None:
    state, passage = case.items[0]
    edit = case.edl(0)
    original = build_edl(np.zeros(passage.n_beats, dtype=np.int64), state.grid, passage)
    regions, others = differing_regions(edit, original)
    assert (regions == []) == (edit.beats == original.beats)
    assert (others == []) == (regions == [])
    outside = [_outside(e, r) for e, r in ((edit, regions), (original, others))]
    # What lies outside on one side is found outside or just inside on the other.
    for mine, other in ((outside[0], original), (outside[1], edit)):
        assert set(mine) <= set(other.beats)
    swapped = differing_regions(original, edit)
    assert bool(swapped[0]) == bool(regions)
    for found, e in ((regions, edit), (others, original)):
        assert all(0 <= a < b <= e.duration_s + 1e-9 for a, b in found)
        assert all(b < c for (_, b), (c, _) in pairwise(found))


def _outside(e: EDL, regions: list[tuple[float, float]]) -> list[object]:
    times = e.output_times
    return [
        beat
        for i, beat in enumerate(e.beats)
        if not any(a - 1e-9 <= times[i] and times[i + 1] <= b + 1e-9 for a, b in regions)
    ]


def test_different_passages_are_refused() -> None:
    with pytest.raises(EditError, match="different passages"):
        differing_regions(edl(0, 32), edl(32, 64))


def test_what_the_web_process_imports_brings_no_torch() -> None:
    code = (
        "import sys, rlhf_core.editing.differences, rlhf_core.editing.edl\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'librosa', 'scipy', 'gymnasium')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
