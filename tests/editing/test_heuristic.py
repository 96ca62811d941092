"""The heuristic editor: legal, audible, broad, on bar lines, and choosing good joins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlhf_core.audio.demo_songs import demo_song
from rlhf_core.audio.features import beat_features
from rlhf_core.audio.io import ANALYSIS_RATE, Audio, to_analysis
from rlhf_core.editing.actions import Action, legalise
from rlhf_core.editing.dense_reward import join_distances
from rlhf_core.editing.dynamics import PassageBatch, output_order
from rlhf_core.editing.edl import build_edl
from rlhf_core.editing.heuristic import PRESETS, HeuristicPreset, heuristic_edit, random_edit
from rlhf_core.editing.rendered import Listener
from rlhf_core.errors import ConfigError
from rlhf_core.types import AudioState, Passage
from tests.editing.strategies import random_item


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 96), st.integers(1, 8), st.sampled_from([*PRESETS]))
@example(29076, 8, 3, "long")  # a passage without a downbeat
def test_edits_are_legal_and_audible(seed: int, n: int, bar: int, preset: str) -> None:
    rng = np.random.default_rng(seed)
    state, passage = random_item(rng, n, bar)
    actions = heuristic_edit(state, passage, preset, rng)
    phase = state.grid.bar_phase[passage.start_beat : passage.end_beat]
    assert actions.tolist() == legalise(actions, phase, bar)[0].tolist()
    beats = build_edl(actions, state.grid, passage).beats
    assert len(beats) >= 8
    assert beats != build_edl(np.zeros(n, dtype=np.int64), state.grid, passage).beats


def edits(make_state, preset: str, count: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [heuristic_edit(make_state(i, 64), Passage(0, 64), preset, rng) for i in range(count)]


def test_presets_are_broad_in_tightness_and_repetition(make_state) -> None:
    kept = {name: np.mean([np.mean(e != 1) for e in edits(make_state, name)]) for name in PRESETS}
    assert kept["very_tight"] < 0.5 < kept["tight"] < 0.8 < kept["gentle"]
    repeats = {
        name: np.mean([np.sum(e == Action.REPEAT_BAR) for e in edits(make_state, name)])
        for name in PRESETS
    }
    assert repeats["repetitive"] > 2.5 > 0.8 > repeats["gentle"]
    assert all(
        any(np.any(e == action) for e in edits(make_state, "adventurous"))
        for action in (2, 3, 4, 9)
    )
    assert all(any(np.any(e == a) for e in edits(make_state, "dynamic")) for a in (5, 6, 7, 8))


def test_cuts_are_whole_bars_on_bar_lines(make_state) -> None:
    for edit in edits(make_state, "tight"):
        cut = np.concatenate([[False], edit == Action.CUT, [False]]).astype(int)
        starts, ends = np.flatnonzero(np.diff(cut) == 1), np.flatnonzero(np.diff(cut) == -1)
        assert not np.any(starts % 4) and not np.any(ends % 4)


def test_joins_are_chosen(make_state) -> None:
    """The same cuts with and without preference: chosen joins are closer in context."""

    def mean_distance(choosiness: float) -> float:
        preset = HeuristicPreset((0.6, 0.8), phrase_cuts=0, fade_out=0, choosiness=choosiness)
        rng = np.random.default_rng(1)
        items = [(make_state(i, 64), Passage(0, 64)) for i in range(40)]
        actions = torch.tensor(np.stack([heuristic_edit(*item, preset, rng) for item in items]))
        batch = PassageBatch.from_passages(items)
        order = output_order(batch, actions)
        return float(join_distances(batch, order)[1][order.joins].mean())

    assert mean_distance(20.0) < mean_distance(0.0) - 0.05


@pytest.mark.parametrize("seed", [102, 104])
def test_chosen_joins_sound_closer_than_random_ones_when_rendered(seed: int) -> None:
    """On a demo song's rendered audio (synthetic): each join that leads elsewhere in the song
    against how the song would have gone on, by log-mel frames."""
    demo = demo_song(seed)
    mono = to_analysis(Audio(demo.samples, 44100, Path(demo.name)))
    features = beat_features(mono, ANALYSIS_RATE, demo.grid)
    state, passage = AudioState(demo.name, demo.grid, features), Passage(0, 64)
    audio = Audio(mono[:, None], ANALYSIS_RATE, Path(demo.name))
    listener, rng = Listener.of(audio, state, passage), np.random.default_rng(0)

    def distances(edits: list[np.ndarray]) -> np.ndarray:
        heard = [listener.joins(edit) for edit in edits]
        return np.concatenate([joins.distance[~joins.backwards] for joins in heard])

    chosen = distances([heuristic_edit(state, passage, p, rng) for p in (*PRESETS, *PRESETS)])
    random = distances([random_edit(state, passage, rng, 0.2) for _ in range(14)])
    assert min(len(chosen), len(random)) > 40
    assert np.mean(chosen) < 0.9 * np.mean(random)
    assert np.median(chosen) < np.median(random)


def test_same_generator_same_edit(make_state) -> None:
    state, passage = make_state(0, 64), Passage(0, 64)
    for preset in PRESETS:
        one = heuristic_edit(state, passage, preset, np.random.default_rng(5))
        two = heuristic_edit(state, passage, preset, np.random.default_rng(5))
        assert one.tolist() == two.tolist()


def test_random_edit_changes_about_as_much_as_asked(make_state) -> None:
    state, passage = make_state(0, 96), Passage(0, 96)
    rng = np.random.default_rng(0)
    assert not random_edit(state, passage, rng, 0.0).any()
    share = np.mean([np.mean(random_edit(state, passage, rng, 0.2) != 0) for _ in range(100)])
    assert 0.12 < share < 0.2
    edit = random_edit(state, passage, rng, 0.8)
    assert edit.tolist() == legalise(edit, state.grid.bar_phase, 4)[0].tolist()


def test_mistakes_are_named(make_state) -> None:
    with pytest.raises(ConfigError, match=r"no heuristic preset 'x'.*gentle"):
        heuristic_edit(make_state(0, 32), Passage(0, 32), "x", np.random.default_rng(0))
    with pytest.raises(ConfigError, match="rising shares"):
        HeuristicPreset((0.9, 0.5))
