"""The batched dynamics against the plain rules of `actions` and against stepping them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from rlhf_core.editing import dynamics
from rlhf_core.editing.actions import N_ACTIONS, Action, legal_actions, legalise, output_count
from rlhf_core.editing.edl import build_edl
from rlhf_core.errors import EditError
from rlhf_core.types import Passage
from tests.editing.strategies import Case, cases


def _phase_and_bar(case: Case, row: int) -> tuple[np.ndarray, int]:
    state, passage = case.items[row]
    phase = state.grid.bar_phase[passage.start_beat : passage.end_beat]
    return phase, state.grid.beats_per_bar


@settings(max_examples=60, deadline=None)
@given(cases())
def test_replay_agrees_with_legalise(case: Case) -> None:
    replay = dynamics.replay(case.batch, case.padded)
    for row, wanted in enumerate(case.actions):
        n = len(wanted)
        legal, free = legalise(wanted, *_phase_and_bar(case, row))
        assert replay.actions[row, :n].tolist() == legal.tolist()
        assert replay.free[row, :n].tolist() == free.tolist()
        assert not replay.actions[row, n:].any() and not replay.free[row, n:].any()


@settings(max_examples=40, deadline=None)
@given(cases())
def test_masks_agree_with_the_plain_rules(case: Case) -> None:
    replay = dynamics.replay(case.batch, case.padded)
    for row, wanted in enumerate(case.actions):
        phase, bar = _phase_and_bar(case, row)
        legal, _ = legalise(wanted, phase, bar)
        covered = output = 0
        for beat, action in enumerate(legal):
            want = legal_actions(beat, len(legal), int(phase[beat]), bar, covered, output)
            got = {Action(i) for i in range(N_ACTIONS) if replay.masks[row, beat, i]}
            assert got == want
            if action in (Action.REPEAT_BAR, Action.SWAP_BAR):
                covered = beat + bar * (1 if action == Action.REPEAT_BAR else 2)
            output += output_count(int(action), bar)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_stepping_shows_what_replay_says(case: Case) -> None:
    batch, actions = case.batch, case.padded
    replay = dynamics.replay(batch, actions)
    state = dynamics.initial(batch)
    for beat in range(batch.width):
        assert torch.equal(dynamics.mask(batch, state), replay.masks[:, beat])
        assert torch.equal(dynamics.free(batch, state), replay.free[:, beat])
        assert torch.equal(dynamics.history(batch, state), replay.history[:, beat])
        live = ~dynamics.terminal(batch, state)
        assert torch.equal(live, batch.valid[:, beat])
        assert torch.equal(state.last_kept[live], replay.last_kept[live, beat])
        state = dynamics.transition(batch, state, actions[:, beat])
    assert dynamics.terminal(batch, state).all()
    assert torch.equal(state.actions, replay.actions)
    order = dynamics.output_order(batch, actions)
    assert torch.equal(state.output_beats, order.lengths)
    assert torch.equal(dynamics.transition(batch, state, actions[:, 0]).output_beats, order.lengths)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_last_kept_and_joins_agree_with_the_edl_of_the_edit_so_far(case: Case) -> None:
    batch = case.batch
    state = dynamics.initial(batch)
    for beat in range(batch.width):
        for row in torch.nonzero(dynamics.free(batch, state))[:, 0].tolist():
            grid = case.items[row][0].grid
            sounding = _sounding(state.actions[row, :beat].tolist(), grid.beats_per_bar)
            assert int(state.last_kept[row]) == (sounding[-1][0] if sounding else -1)
            assert int(state.output_beats[row]) == len(sounding)
            straight = [
                b == a + 1 and not (a_back or b_back)
                for (a, a_back), (b, b_back) in pairwise(sounding)
            ]
            joins = [place + 1 for place, on in enumerate(straight) if not on]
            if sounding and sounding[-1][1]:  # whatever follows a reversed beat is a join
                joins.append(len(sounding))
            assert int(state.counters.last_join[row]) == max(joins, default=0)
        state = dynamics.transition(batch, state, case.padded[:, beat])


def _sounding(actions: list[int], bar: int) -> list[tuple[int, bool]]:
    """(beat, reverse) of the output of complete decisions, written out by hand."""
    out: list[tuple[int, bool]] = []
    beat = 0
    while beat < len(actions):
        here = list(range(beat, beat + bar))
        match Action(actions[beat]):
            case Action.CUT:
                pass
            case Action.LOOP:
                out += [(beat, False)] * 2
            case Action.REPEAT_BAR:
                out += [(b, False) for b in here + here]
                beat += bar - 1
            case Action.SWAP_BAR:
                out += [(b + bar, False) for b in here] + [(b, False) for b in here]
                beat += 2 * bar - 1
            case other:
                out.append((beat, other == Action.REVERSE))
        beat += 1
    return out


@settings(max_examples=60, deadline=None)
@given(cases())
def test_output_order_agrees_with_build_edl(case: Case) -> None:
    order = dynamics.output_order(case.batch, case.padded)
    for row in range(len(case.items)):
        start = case.items[row][1].start_beat
        beats = case.edl(row).beats
        n = int(order.lengths[row])
        assert n == len(beats) == int(order.valid[row].sum()) >= 8
        assert order.source[row, :n].tolist() == [b.source_beat - start for b in beats]
        assert order.reverse[row, :n].tolist() == [b.reverse for b in beats]
        gains = [(b.gain_start + b.gain_end) / 2 for b in beats]
        np.testing.assert_allclose(order.gain[row, :n].numpy(), gains, rtol=1e-5, atol=1e-6)
        seen: list[int] = []
        for i, beat in enumerate(beats):
            assert int(order.copy[row, i]) == seen.count(beat.source_beat)
            seen.append(beat.source_beat)
        assert not order.source[row, n:].any() and not order.gain[row, n:].any()


@settings(max_examples=40, deadline=None)
@given(cases())
def test_edit_features_say_what_the_edl_says(case: Case) -> None:
    features, ids, valid = dynamics.reward_inputs(case.batch, case.padded)
    assert features.shape[-1] == 125 and bool(features.isfinite().all())
    for row, wanted in enumerate(case.actions):
        n, (phase, bar) = len(wanted), _phase_and_bar(case, row)
        legal, _ = legalise(wanted, phase, bar)
        kept = (legal != Action.CUT).astype(float)
        total = len(case.edl(row).beats)
        output = 0
        for beat in range(n):
            near = kept[max(0, beat - 4) : beat + 5]
            want = [kept[beat], 1 - kept[beat], output / total, near.mean()]
            np.testing.assert_allclose(features[row, beat, 121:].numpy(), want, atol=1e-5)
            output += output_count(int(legal[beat]), bar)
        assert ids[row, :n].tolist() == legal.tolist()
        assert valid[row].tolist() == [True] * n + [False] * (valid.shape[1] - n)
        assert not features[row, n:].any()


@settings(max_examples=30, deadline=None)
@given(cases())
def test_padding_changes_nothing(case: Case) -> None:
    batch, actions = case.batch, case.padded
    together = dynamics.replay(batch, actions)
    edit, order = dynamics.edit_features(batch, actions), dynamics.output_order(batch, actions)
    for row, item in enumerate(case.items):
        alone = dynamics.PassageBatch.from_passages([item])
        own = torch.from_numpy(case.actions[row])[None]
        n, single = len(case.actions[row]), dynamics.replay(alone, own)
        assert torch.equal(single.history[0], together.history[row, :n])
        assert torch.equal(single.masks[0], together.masks[row, :n])
        assert torch.equal(dynamics.edit_features(alone, own)[0], edit[row, :n])
        assert torch.equal(dynamics.output_order(alone, own).source[0], order.source[row, : 2 * n])
        torch.testing.assert_close(alone.standardised[0], batch.standardised[row, :n])


@settings(max_examples=30, deadline=None)
@given(cases())
def test_history_and_observation_are_bounded(case: Case) -> None:
    batch = case.batch
    state = dynamics.initial(batch)
    for beat in range(batch.width):
        vector = dynamics.history(batch, state)
        assert vector.shape == (batch.size, dynamics.HISTORY) and vector.dtype == torch.float32
        assert bool(((vector >= 0) & (vector <= 1)).all())
        seen = dynamics.observe(batch, state)
        assert seen.shape == (batch.size, dynamics.OBSERVATION)
        assert bool((seen.abs() <= 5).all())
        state = dynamics.transition(batch, state, case.padded[:, beat])


def test_only_cuts_leave_eight_beats(make_state) -> None:
    batch = dynamics.PassageBatch.from_passages([(make_state(0, 40), Passage(0, 40))])
    cuts = torch.full((1, 40), int(Action.CUT))
    assert dynamics.output_order(batch, cuts).lengths.tolist() == [8]


def test_every_action_but_keep_changes_the_edl_and_the_reward_input(make_state) -> None:
    state, passage = make_state(1, 32), Passage(0, 32)
    batch = dynamics.PassageBatch.from_passages([(state, passage)])
    keep = np.zeros(32, dtype=np.int64)
    plain = build_edl(keep, state.grid, passage).beats
    for action in range(1, N_ACTIONS):
        edit = keep.copy()
        edit[8] = action
        assert build_edl(edit, state.grid, passage).beats != plain
        before = dynamics.reward_inputs(batch, torch.from_numpy(keep)[None])
        after = dynamics.reward_inputs(batch, torch.from_numpy(edit)[None])
        assert not torch.equal(before[1], after[1])


def test_select_repeats_rows(make_state) -> None:
    items = [(make_state(i, 20 + i, 3 + i), Passage(0, 20 + i)) for i in range(3)]
    batch = dynamics.PassageBatch.from_passages(items)
    picked = batch.select(torch.tensor([2, 0, 2]))
    assert picked.size == 3 and picked.lengths.tolist() == [22, 20, 22]
    assert torch.equal(picked.features[0], picked.features[2])
    assert picked.beats_per_bar.tolist() == [5, 3, 5]


def test_wrong_shapes_and_ids_are_refused(make_state) -> None:
    batch = dynamics.PassageBatch.from_passages([(make_state(0, 20), Passage(0, 20))])
    with pytest.raises(EditError, match="shape"):
        dynamics.replay(batch, torch.zeros(1, 19, dtype=torch.long))
    with pytest.raises(EditError, match="10"):
        dynamics.replay(batch, torch.full((1, 20), 10))
    with pytest.raises(EditError, match="ends at beat 24"):
        dynamics.PassageBatch.from_passages([(make_state(0, 20), Passage(0, 24))])


def test_context_distance_by_hand(make_state) -> None:
    state = make_state(2, 20)
    items = [(state, Passage(0, 20)), (make_state(3, 30), Passage(0, 30))]
    batch = dynamics.PassageBatch.from_passages(items)
    values = state.features[:, [*range(52), *range(109, 121)]].astype(np.float64)
    standard = np.clip((values - values.mean(0)) / values.std(0), -5, 5)
    got = batch.context_distance[0].numpy()
    for i, j in [(0, 0), (2, 9), (11, 4), (18, 3), (17, 19)]:
        ahead = range(min(4, 20 - max(i, j)))
        square = np.mean([np.mean((standard[i + k] - standard[j + k]) ** 2) for k in ahead])
        assert got[i, j] == pytest.approx(np.sqrt(square / 2), abs=1e-5)
