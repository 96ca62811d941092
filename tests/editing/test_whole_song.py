"""A whole song passage by passage: covered, legal, and joined at the borders as well as inside."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.audio.demo_songs import demo_song
from rlhf_core.audio.features import beat_features
from rlhf_core.audio.io import ANALYSIS_RATE, Audio, to_analysis
from rlhf_core.editing.actions import Action, legalise
from rlhf_core.editing.edl import build_edl, concatenate_edls
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit, random_edit
from rlhf_core.editing.passages import split_passages
from rlhf_core.editing.rendered import Listener
from rlhf_core.editing.whole_song import Edits, edit_song
from rlhf_core.types import AudioState, Passage
from tests.conftest import synthetic_state


def song_edl(state: AudioState, edits: Edits):
    return concatenate_edls([build_edl(actions, state.grid, p) for p, actions in edits])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 300), st.integers(1, 8), st.integers(0, 7))
def test_the_whole_song_is_covered_by_legal_edits(seed: int, n: int, bar: int, phase: int) -> None:
    state, rng = synthetic_state(seed, n, bar, phase % bar), np.random.default_rng(seed)
    edits = edit_song(state, lambda s, p: random_edit(s, p, rng, 0.3))
    assert edits[0][0].start_beat == 0 and edits[-1][0].end_beat == n
    assert all(a.end_beat == b.start_beat for (a, _), (b, _) in pairwise(edits))
    for passage, actions in edits:
        own = state.grid.bar_phase[passage.start_beat : passage.end_beat]
        assert actions.tolist() == legalise(actions, own, bar)[0].tolist()
    whole = song_edl(state, edits)
    assert (whole.passage.start_beat, whole.passage.end_beat) == (0, n)
    assert len(whole.beats) >= 8 * len(edits)


def test_what_fits_is_left_alone() -> None:
    """Borders that play straight on are not touched; nor is anything far from a border."""
    state = synthetic_state(3, 192)

    def inner(_: AudioState, passage: Passage) -> np.ndarray:
        actions = np.zeros(passage.n_beats, dtype=np.int64)
        actions[16:24] = Action.CUT
        actions[40] = Action.REPEAT_BAR
        return actions

    for passage, actions in edit_song(state, inner):
        assert actions.tolist() == inner(state, passage).tolist()


@pytest.mark.parametrize("cut", [1, 2, 4, 11, 24])
def test_a_border_that_does_not_fit_plays_straight_on(cut: int) -> None:
    """With no other join to compare to, only playing straight on is as good as inside."""
    state = synthetic_state(4, 128)

    def careless(_: AudioState, passage: Passage) -> np.ndarray:
        actions = np.zeros(passage.n_beats, dtype=np.int64)
        actions[-cut:] = Action.CUT
        return actions

    first, last = edit_song(state, careless)
    assert not first[1].any()
    assert last[1].tolist() == careless(state, last[0]).tolist()  # the song's own end


def test_fades_stay_at_the_ends_of_the_song() -> None:
    state = synthetic_state(5, 192)

    def fading(_: AudioState, passage: Passage) -> np.ndarray:
        actions = np.zeros(passage.n_beats, dtype=np.int64)
        actions[:4], actions[-4:] = Action.FADE_IN, Action.FADE_OUT
        return actions

    edits = edit_song(state, fading)
    together = np.concatenate([actions for _, actions in edits])
    assert set(np.flatnonzero(together)) == {*range(4), *range(188, 192)}


def test_a_pickup_is_kept(make_state) -> None:
    state = make_state(0, 99, 4, 1)  # three beats before the first downbeat
    first = split_passages(state.grid)[0]
    assert first.start_beat == 3
    edits = edit_song(state, lambda _, p: np.full(p.n_beats, Action.REVERSE))
    assert edits[0][0] == Passage(0, first.end_beat)
    assert not edits[0][1][:3].any() and edits[0][1][3:8].all()


def test_joins_at_borders_sound_as_good_as_inside() -> None:
    """On rendered audio of demo songs (synthetic), over all presets that cut."""
    demo = demo_song(104)
    path = Path(demo.name)
    mono = to_analysis(Audio(demo.samples, 44100, path))
    features = beat_features(mono, ANALYSIS_RATE, demo.grid)
    state = AudioState(demo.name, demo.grid, features)
    listener = Listener.of(
        Audio(mono[:, None], ANALYSIS_RATE, path), state, Passage(0, demo.grid.n_beats)
    )
    inside, borders, straight = [], [], 0
    rng = np.random.default_rng(0)
    for preset in ("gentle", "tight", "very_tight", "adventurous") * 2:
        edits = edit_song(state, partial(heuristic_edit, preset=preset, rng=rng))
        edl = song_edl(state, edits)
        joins = listener.joins_of(edl)
        found, through = split(joins.place, joins.distance, edl, edits)
        inside += found[0]
        borders += found[1]
        straight += through
    assert len(inside) > 50 and len(borders) + straight >= 8
    assert np.mean(borders + [0.0] * straight) <= np.mean(inside)
    assert not borders or np.mean(borders) <= 1.1 * np.mean(inside)


def split(place, distance, edl, edits: Edits) -> tuple[tuple[list, list], int]:
    """Distances of joins (inside, at borders), and the number of borders without a join."""
    starts = [p.start_beat for p, _ in edits[1:]]
    inside, borders = [], []
    for i, value in zip(place, distance, strict=True):
        before, after = edl.beats[i - 1].source_beat, edl.beats[i].source_beat
        crosses = any(before < start <= after for start in starts)
        (borders if crosses else inside).append(float(value))
    return (inside, borders), len(starts) - len(borders)


def test_presets_all_work_on_a_whole_song(make_state) -> None:
    state, rng = make_state(0, 200), np.random.default_rng(0)
    for preset in PRESETS:
        edits = edit_song(state, partial(heuristic_edit, preset=preset, rng=rng))
        assert any(actions.any() for _, actions in edits)
