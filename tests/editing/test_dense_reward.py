"""The dense components on edits whose merit is plain, and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from rlhf_core.audio.feature_table import FEATURE_SLICES
from rlhf_core.editing.actions import Action
from rlhf_core.editing.attributes import ATTRIBUTE_NAMES, edit_attributes
from rlhf_core.editing.dense_reward import (
    DENSE_COMPONENTS,
    dense_components,
    dense_reward,
    join_distances,
)
from rlhf_core.editing.dynamics import PassageBatch, output_order
from rlhf_core.editing.heuristic import random_edit
from rlhf_core.types import AudioState, BeatGrid, Passage
from tests.editing.strategies import Case, cases

RMS = FEATURE_SLICES["rms"].start


def song(seed: int = 0, n: int = 64, period: int = 8, drift: float = 0.0) -> AudioState:
    """Synthetic: features repeat every `period` beats, tempo drifts by a factor over the song."""
    rng = np.random.default_rng(seed)
    features = np.tile(rng.random((period, 121)), (n // period + 1, 1))[:n].astype(np.float32)
    durations = 0.5 * np.linspace(1.0, 1.0 + drift, n)
    times = np.concatenate([[0.0], np.cumsum(durations)])
    return AudioState("song", BeatGrid(times, np.arange(n) % 4, 120.0), features)


def components(state: AudioState, **edits: list[int] | range) -> dict[str, float]:
    """Dense components of KEEP with the beats named by an action set to it."""
    n = state.grid.n_beats
    actions = torch.zeros(1, n, dtype=torch.long)
    for name, beats in edits.items():
        actions[0, list(beats)] = int(Action[name])
    batch = PassageBatch.from_passages([(state, Passage(0, n))])
    values = dense_components(batch, actions)[0].tolist()
    return dict(zip(DENSE_COMPONENTS, values, strict=True))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_components_lie_in_the_unit_interval_and_keeping_all_earns_all(case: Case) -> None:
    values = dense_components(case.batch, case.padded)
    assert bool(((values >= 0) & (values <= 1)).all())
    kept = dense_components(case.batch, torch.zeros_like(case.padded))
    torch.testing.assert_close(kept, torch.ones_like(kept))
    torch.testing.assert_close(dense_reward(case.batch, case.padded), values.mean(1))


@settings(max_examples=30, deadline=None)
@given(cases())
def test_padding_changes_neither_reward_nor_attributes(case: Case) -> None:
    dense = dense_components(case.batch, case.padded)
    attributes = edit_attributes(case.batch, case.padded)
    assert bool(attributes.isfinite().all())
    for row, item in enumerate(case.items):
        alone, own = PassageBatch.from_passages([item]), torch.from_numpy(case.actions[row])[None]
        torch.testing.assert_close(dense_components(alone, own)[0], dense[row])
        torch.testing.assert_close(
            edit_attributes(alone, own)[0], attributes[row], atol=1e-4, rtol=1e-4
        )


def test_a_whole_phrase_is_cut_better_than_half_a_bar() -> None:
    whole = components(song(), CUT=range(16, 24))
    half = components(song(), CUT=[17, 18])
    # The song repeats every phrase, so the phrase's cut cannot be heard.
    assert whole == pytest.approx(dict.fromkeys(DENSE_COMPONENTS, 1.0), abs=1e-5)
    assert half["phrase_completeness"] < 0.95
    assert half["transition_quality"] < 0.6


def test_ten_loops_running_cost_phrases_transitions_and_flow() -> None:
    looped, kept = components(song(), LOOP=range(20, 30)), components(song())
    assert looped["phrase_completeness"] < 0.7
    assert looped["transition_quality"] < 0.6
    assert looped["energy_flow"] < kept["energy_flow"]


def test_a_run_of_loops_is_no_smoother_for_slow_features() -> None:
    """Where features creep, one repeated beat is close to what would have followed, but a run of
    them leaves the song standing: the more of it, the worse each join."""
    state = song(period=64)
    smooth = np.cumsum(np.random.default_rng(0).standard_normal((64, 121)), 0)
    smooth = np.abs(smooth).astype(np.float32) + 0.1
    state = AudioState("slow", state.grid, smooth)
    one = components(state, LOOP=[20])["transition_quality"]
    ten = components(state, LOOP=range(20, 30))["transition_quality"]
    assert ten < one < 1


@pytest.mark.parametrize("seed", range(5))
def test_edits_rank_as_a_listener_would_rank_them(seed: int) -> None:
    """Keep all > cut a phrase > cut half a bar > LOOP on ten beats > random, by the whole reward;
    and every component but tempo (the song is steady) agrees at the ends."""
    state = song(seed)
    rng = np.random.default_rng(seed)
    random = torch.from_numpy(random_edit(state, Passage(0, 64), rng, 0.5))[None]
    batch = PassageBatch.from_passages([(state, Passage(0, 64))])
    edits = {
        "keep": components(state),
        "phrase": components(state, CUT=range(16, 24)),
        "half a bar": components(state, CUT=[17, 18]),
        "loops": components(state, LOOP=range(20, 30)),
        "random": dict(
            zip(DENSE_COMPONENTS, dense_components(batch, random)[0].tolist(), strict=True)
        ),
    }
    totals = {name: sum(values.values()) / 4 for name, values in edits.items()}
    assert totals["keep"] == pytest.approx(1) == pytest.approx(totals["phrase"])
    assert totals["phrase"] > totals["half a bar"] > totals["loops"] > totals["random"]
    for name in DENSE_COMPONENTS[1:]:
        assert edits["random"][name] < edits["phrase"][name]
    assert edits["random"]["phrase_completeness"] < edits["loops"]["phrase_completeness"]


def test_phrase_completeness_counts_the_beats_of_whole_phrases() -> None:
    # 16 and 17 are cut: phrase 16..23 is broken, its 6 beats count as lost; the others are whole.
    values = components(song(), CUT=[16, 17])
    assert values["phrase_completeness"] == pytest.approx(56 / 62)
    # A phrase whose end is repeated is broken by the join between the two playings.
    assert components(song(), LOOP=[7])["phrase_completeness"] == pytest.approx(64 / 65)
    assert components(song(), LOOP=[6])["phrase_completeness"] == pytest.approx(56 / 65)
    # Played backwards, or short of its first beat, it is not whole either.
    assert components(song(), REVERSE=[9])["phrase_completeness"] == pytest.approx(56 / 64)
    assert components(song(), CUT=[0])["phrase_completeness"] == pytest.approx(56 / 63)
    # The last phrase of a passage of 60 beats has 4 of them.
    assert components(song(n=60), CUT=[20])["phrase_completeness"] == pytest.approx(52 / 59)


def test_discontinuity_by_hand() -> None:
    """What follows a join against what would have followed, beat by beat over four beats."""
    state = song(period=32, n=32)
    batch = PassageBatch.from_passages([(state, Passage(0, 32))])
    actions = torch.zeros(1, 32, dtype=torch.long)
    actions[0, 10] = actions[0, 11] = int(Action.LOOP)
    order = output_order(batch, actions)
    assert order.source[0, 10:16].tolist() == [10, 10, 11, 11, 12, 13]
    _, distance = join_distances(batch, order)
    square = batch.sound_distance[0]
    # After the first 10 come 10, 11, 11, 12; 11, 12, 13, 14 would have.
    first = np.mean([float(square[a, b]) for a, b in ((11, 10), (12, 11), (13, 11), (14, 12))])
    assert float(distance[0, 11]) == pytest.approx(np.sqrt(first), rel=1e-5)
    second = np.mean([float(square[a, a - 1]) for a in (12, 13, 14, 15)])
    assert float(distance[0, 13]) == pytest.approx(np.sqrt(second), rel=1e-5)


def test_tempo_costs_where_the_edit_jumps_and_not_where_the_song_drifts() -> None:
    drifting = song(drift=0.5)
    assert components(drifting)["tempo_consistency"] == 1
    jump = components(drifting, CUT=range(8, 56))
    assert jump["tempo_consistency"] < 0.75
    assert jump["transition_quality"] < components(song(), CUT=range(8, 56))["transition_quality"]
    assert components(song(), CUT=range(8, 56))["tempo_consistency"] == pytest.approx(1)


def test_tempo_by_hand() -> None:
    # 8 beats at 120 BPM then 8 at 60; keep 0-3 and 12-15 only: one window of 4 x .5 + 4 x 1 s.
    times = np.concatenate([[0], np.cumsum([0.5] * 8 + [1.0] * 8)])
    rng = np.random.default_rng(0)
    features = rng.random((16, 121)).astype(np.float32)
    state = AudioState("s", BeatGrid(times, np.arange(16) % 4, 90.0), features)
    values = components(state, CUT=range(4, 12))
    change = abs(8 / 6 * 60 - 120)
    assert values["tempo_consistency"] == pytest.approx(np.exp(-(change - 5) / 10), rel=1e-4)


def test_energy_flow_is_the_ratio_of_variances() -> None:
    state = song()
    rms = state.features[:, RMS].astype(np.float64)
    edited = np.concatenate([rms[:10], rms[10:40] * 10 ** (-6 / 20), rms[40:]])
    ratio = edited.var() / rms.var()
    values = components(state, GAIN_DOWN=range(10, 40))
    assert values["energy_flow"] == pytest.approx(min(ratio, 1 / ratio), rel=1e-2)
    quiet = components(state, FADE_OUT=range(56, 64))
    assert quiet["energy_flow"] < 1


def test_every_component_depends_on_the_edit(make_state) -> None:
    state = make_state(3, 64)
    grid = state.grid
    times = grid.times**1.3  # a song that slows down or speeds up
    state = AudioState("s", BeatGrid(times, grid.bar_phase, 120.0), state.features)
    batch = PassageBatch.from_passages([(state, Passage(0, 64))]).select(torch.zeros(50).long())
    generator = torch.Generator().manual_seed(0)
    actions = torch.randint(0, 10, (50, 64), generator=generator)
    assert bool((dense_components(batch, actions).std(0) > 1e-3).all())


def test_attributes_by_hand() -> None:
    state = song(n=32)
    batch = PassageBatch.from_passages([(state, Passage(0, 32))])
    actions = torch.zeros(1, 32, dtype=torch.long)
    actions[0, 8:16] = int(Action.CUT)
    actions[0, 20] = int(Action.REPEAT_BAR)
    actions[0, 31] = int(Action.LOOP)
    got = dict(zip(ATTRIBUTE_NAMES, edit_attributes(batch, actions)[0].tolist(), strict=True))
    output = 32 - 8 + 4 + 1
    want = {
        "keep_ratio": 24 / 32,
        "log_length": np.log(output / 32),
        "cut_runs": 1 / 32,
        "loops": 1 / 32,
        "repeated_bars": 4 / 32,
        "repetition": 5 / output,
        "joins": 3 / output,  # after the cut, into the repeat, into the loop
        "joins_on_downbeat": 2 / 3,
        "joins_in_metre": 2 / 3,
        "joins_in_phrase": 1 / 3,
        "log_run": np.log(output / 4),
        "mean_gain": 0.0,
        "whole_bars": 1 - (1 + 12) / output + 12 / output,  # all but the second playing of 31
    }
    for name, value in want.items():
        assert got[name] == pytest.approx(value, abs=1e-5), name


def test_attributes_tell_what_was_chosen() -> None:
    state = song(n=32, period=32)
    loud = np.argsort(state.features[:, RMS])[-8:]
    keep_loud = components_attributes(state, [b for b in range(32) if b not in loud][:16])
    keep_quiet = components_attributes(state, list(loud))
    assert keep_loud["energy_chosen"] > 0 > keep_quiet["energy_chosen"]


def components_attributes(state: AudioState, cut: list[int]) -> dict[str, float]:
    n = state.grid.n_beats
    actions = torch.zeros(1, n, dtype=torch.long)
    actions[0, cut] = int(Action.CUT)
    batch = PassageBatch.from_passages([(state, Passage(0, n))])
    return dict(zip(ATTRIBUTE_NAMES, edit_attributes(batch, actions)[0].tolist(), strict=True))
