"""The ten actions, and what makes a sequence of them legal.

An edit is one action per beat of a passage. The ids are fixed for good: the reward model's action
embedding has one row per id, votes are stored with them, exports carry them.

Rules (the same for acting, updating and rendering):
- REPEAT_BAR and SWAP_BAR are legal on a downbeat only, with one / two whole bars left in the
  passage. The beats that they cover are forced to KEEP and are no decisions.
- CUT is illegal where fewer than `MIN_OUTPUT_BEATS` beats of output would remain possible.
- An illegal action counts as KEEP.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import numpy as np

from rlhf_core.errors import EditError
from rlhf_core.types import BoolArray, IntArray


class Action(IntEnum):
    """What is done to one beat."""

    KEEP = 0
    CUT = 1  # drop the beat
    LOOP = 2  # play the beat twice
    REPEAT_BAR = 3  # play this bar twice
    SWAP_BAR = 4  # this bar and the next change places
    FADE_IN = 5  # rise from silence over the beat (neighbouring fades form one ramp)
    FADE_OUT = 6  # fall to silence over the beat (neighbouring fades form one ramp)
    GAIN_DOWN = 7
    GAIN_UP = 8
    REVERSE = 9  # play the beat backwards


N_ACTIONS: Final = len(Action)
ACTION_NAMES: Final = tuple(action.name for action in Action)
MIN_OUTPUT_BEATS: Final = 8
GAIN_DOWN_DB: Final = -6.0
GAIN_UP_DB: Final = 4.0
BARS_COVERED: Final = {Action.REPEAT_BAR: 1, Action.SWAP_BAR: 2}


def check_actions(actions: Sequence[int] | IntArray, n_beats: int) -> IntArray:
    """The actions as an int64 array, or EditError when count or ids are wrong."""
    array = np.asarray(actions)
    if array.shape != (n_beats,) or not np.issubdtype(array.dtype, np.integer):
        raise EditError(
            f"expected {n_beats} integer actions, one per beat, got shape {array.shape}"
        )
    if array.size and (array.min() < 0 or array.max() >= N_ACTIONS):
        bad = array[(array < 0) | (array >= N_ACTIONS)][0]
        raise EditError(
            f"action id {bad} is not one of 0..{N_ACTIONS - 1} ({', '.join(ACTION_NAMES)})"
        )
    return array.astype(np.int64)


def legal_actions(
    beat: int,
    n_beats: int,
    bar_phase: int,
    beats_per_bar: int,
    covered_until: int,
    output_beats: int,
) -> set[Action]:
    """Legal actions on one beat of a passage (plain Python reference of the batched mask).

    beat counts from the passage's start; output_beats is what beats before it already give.
    """
    if beat < covered_until:
        return {Action.KEEP}
    legal = set(Action)
    for action, bars in BARS_COVERED.items():
        if bar_phase != 0 or beat + bars * beats_per_bar > n_beats:
            legal.discard(action)
    if output_beats + (n_beats - beat - 1) < MIN_OUTPUT_BEATS:
        legal.discard(Action.CUT)
    return legal


def output_count(action: int, beats_per_bar: int) -> int:
    """Output beats that a free action adds before the next decision's own beat is counted.

    A bar action counts its extra bar here; its covered beats count themselves as KEEPs.
    """
    if action == Action.CUT:
        return 0
    if action == Action.LOOP:
        return 2
    if action == Action.REPEAT_BAR:
        return 1 + beats_per_bar
    return 1


def legalise(
    actions: Sequence[int] | IntArray, bar_phase: IntArray, beats_per_bar: int
) -> tuple[IntArray, BoolArray]:
    """Replace illegal actions by KEEP.

    Args: actions (n,), bar_phase (n,) of the passage's beats.
    Returns: legal actions (n,) and free (n,) bool: True where the beat was a decision.
    """
    result = check_actions(actions, len(bar_phase))
    free = np.ones(len(result), dtype=bool)
    covered, output = 0, 0
    for beat in range(len(result)):
        legal = legal_actions(
            beat, len(result), int(bar_phase[beat]), beats_per_bar, covered, output
        )
        free[beat] = beat >= covered
        if Action(int(result[beat])) not in legal:
            result[beat] = Action.KEEP
        action = Action(int(result[beat]))
        if action in BARS_COVERED:
            covered = beat + BARS_COVERED[action] * beats_per_bar
        output += output_count(action, beats_per_bar)
    return result, free
