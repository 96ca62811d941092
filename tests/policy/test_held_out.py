"""Which passages are held out, and which checkpoint they choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlhf_core.policy.held_out import HeldOut, Standing, hold_out, surely_less, touches
from rlhf_core.policy.rewards import Item, dense_only
from rlhf_core.reward.dataset import Vote
from rlhf_core.types import Passage


def names(items: list[Item]) -> set[tuple[str, int, int]]:
    return {(state.song_id, p.start_beat, p.end_beat) for state, p in items}


def test_one_passage_in_eight_is_held_out_and_never_trained_on(items: list[Item]) -> None:
    trained_on, held_out = hold_out(items)
    assert len(items) == 10 and len(held_out) == 1
    assert names(trained_on) | names(held_out) == names(items)
    assert not names(trained_on) & names(held_out)
    assert hold_out(items) == (trained_on, held_out)
    few, none = hold_out(items[:7])
    assert names(few) == names(items[:7]) and none == []


def test_votes_on_a_held_out_passage_are_found(items: list[Item]) -> None:
    state, passage = items[3]
    other = next(s for s, _ in items if s.song_id != state.song_id)
    edit = np.zeros(passage.n_beats, dtype=np.int64)
    vote = Vote(
        "v", "p", state.song_id, "zoe", False, "a", 1, "random", passage, edit, edit, "", "",
        False, "train",
    )  # fmt: skip
    held_out = [(state, Passage(8, 16))]
    cases = {(0, 8): False, (0, 9): True, (15, 24): True, (16, 24): False, (4, 20): True}
    for (start, end), expected in cases.items():
        assert touches(replace(vote, passage=Passage(start, end)), held_out) is expected
    assert not touches(replace(vote, song_id=other.song_id), held_out)


def test_the_best_is_the_latest_that_cannot_be_told_from_the_highest(items: list[Item]) -> None:
    """Losses and their standard errors by hand: .5 (.42), .3 (.54), then one value alone."""
    highest = np.zeros(4)
    assert surely_less(np.array([-1.2, 0.4, -1.2, 0.0]), highest)
    assert not surely_less(np.array([-1.2, 0.8, -1.2, 0.4]), highest)
    assert not surely_less(highest, highest) and surely_less(np.array([-0.1]), np.array([0.0]))
    held = HeldOut(items[:4], dense_only, 0)
    taken = []
    for number, paid in enumerate((0.0, 0.5, 0.47, 0.2, 0.48, 0.45)):
        other = 0.05 if number == 1 else -0.05  # an error of .041 between the second and others
        now = Standing({"step": number}, (paid - other, paid + other, paid, paid))
        if held.is_best(now):
            held.take(now)
            taken.append(number)
    assert taken == [0, 1, 2, 4]
    assert held.best is not None and held.best.content["step"] == 4
    assert held.highest is not None and np.mean(held.highest) == pytest.approx(0.5)
    again = HeldOut(items[:4], dense_only, 0)
    again.restore(held.state())
    assert (again.best, again.highest) == (held.best, held.highest)
    for others in (items[:5], items[1:5]):  # songs were added, or changed, before it was resumed
        anew = HeldOut(others, dense_only, 0)
        anew.restore(held.state())
        assert anew.best is None and anew.is_best(Standing({}, (-9.0,) * len(others)))
