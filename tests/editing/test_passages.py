"""Passages cover songs, begin on downbeats and phrases, and have the right lengths."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.editing.passages import split_passages
from rlhf_core.errors import EditError
from rlhf_core.types import BeatGrid


def grid(n: int, bar: int, first_phase: int) -> BeatGrid:
    return BeatGrid(np.arange(n + 1) * 0.5, (np.arange(n) + first_phase) % bar, 120.0, bar)


@settings(max_examples=300, deadline=None)
@given(st.integers(32, 700), st.integers(1, 8), st.integers(0, 7))
def test_long_songs(n: int, bar: int, phase: int) -> None:
    song = grid(n, bar, phase % bar)
    passages = split_passages(song)
    first = int(np.flatnonzero(song.bar_phase == 0)[0])
    assert all(32 <= p.n_beats <= 96 for p in passages)
    assert all(a.end_beat == b.start_beat for a, b in pairwise(passages))
    assert passages[-1].end_beat == n
    if n - first >= 32:
        assert passages[0].start_beat == first
        for passage in passages:
            assert song.bar_phase[passage.start_beat] == 0
            assert (passage.start_beat - first) % 8 == 0
    else:
        assert [(p.start_beat, p.end_beat) for p in passages] == [(0, n)]


@given(st.integers(8, 31), st.integers(1, 8), st.integers(0, 7))
def test_short_songs_are_one_passage(n: int, bar: int, phase: int) -> None:
    passages = split_passages(grid(n, bar, phase % bar))
    assert len(passages) == 1 and passages[0].end_beat == n
    assert passages[0].n_beats >= 8 and passages[0].start_beat < bar


def test_the_usual_song_is_cut_into_sixty_fours() -> None:
    passages = split_passages(grid(256, 4, 0))
    assert [(p.start_beat, p.end_beat) for p in passages] == [
        (0, 64),
        (64, 128),
        (128, 192),
        (192, 256),
    ]
    assert [p.n_beats for p in split_passages(grid(128, 4, 0), target=32)] == [32] * 4


def test_a_long_bar_gives_way_to_phrases() -> None:
    assert sum(p.n_beats for p in split_passages(grid(130, 13, 0))) == 130


def test_too_short_a_song_is_refused() -> None:
    with pytest.raises(EditError, match="at least 8 beats"):
        split_passages(grid(7, 4, 0))
