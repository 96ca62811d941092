"""Descriptors of edits against values known by hand."""

from __future__ import annotations

import pytest
import torch

from rlhf_core.editing.actions import Action
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.reward.descriptors import AXES, DESCRIPTOR_NAMES, TARGET_NAMES, describe
from rlhf_core.types import AudioState, Passage


def described(song: AudioState, actions: torch.Tensor) -> dict[str, list[float]]:
    batch = PassageBatch.from_passages([(song, Passage(0, 64))] * len(actions))
    values = describe(batch, actions)
    assert torch.isfinite(values).all()
    return {name: values[:, i].tolist() for i, name in enumerate(DESCRIPTOR_NAMES)}


def test_names_are_told_apart() -> None:
    assert len(set(TARGET_NAMES)) == len(TARGET_NAMES)


def test_the_whole_passage_is_average_and_unbroken(songs: list[AudioState]) -> None:
    found = described(songs[0], torch.zeros(1, 64, dtype=torch.long))
    for axis in AXES:
        assert found[f"mean_{axis}"][0] == pytest.approx(0.0, abs=1e-4)
        assert found[f"spread_{axis}"][0] == pytest.approx(1.0, abs=1e-2)
    for name in ("harshness", "breaks_of_metre", "reversed", "change_of_length"):
        assert found[name][0] == 0


def test_cuts_change_length_and_metre(songs: list[AudioState]) -> None:
    actions = torch.zeros(2, 64, dtype=torch.long)
    actions[0, 16:32] = Action.CUT  # whole bars
    actions[1, 16:31] = Action.CUT
    found = described(songs[0], actions)
    assert found["change_of_length"] == pytest.approx([16 / 64, 15 / 64])
    assert found["breaks_of_metre"] == pytest.approx([0.0, 1 / 49])


def test_turning_the_second_half_down_is_a_falling_course(songs: list[AudioState]) -> None:
    actions = torch.zeros(2, 64, dtype=torch.long)
    actions[1, 32:] = Action.GAIN_DOWN
    found = described(songs[0], actions)
    assert found["course_level"][1] < found["course_level"][0]
    assert found["end_level"][1] < found["end_level"][0]
    assert found["course_brightness"][1] == pytest.approx(found["course_brightness"][0], abs=1e-5)
