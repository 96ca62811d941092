"""Editing a whole song, passage by passage, with joins at the borders as good as those inside.

Any editor of one passage will do (a heuristic preset, a policy). It sees one passage at a time, so
what it does at a passage's end and at the next one's start may not fit: a border where the output
does not play straight on is mended by giving back as few bars there as it takes for the join to be
no worse than the two passages' joins are on average, without making a worse one elsewhere. Giving
back a bar on each side always plays straight on across the border. Fades that touch an inner border
are taken out: they belong to the song's own start and end.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Final

import numpy as np
import torch

from rlhf_core.editing.actions import Action, legalise
from rlhf_core.editing.dense_reward import join_distances
from rlhf_core.editing.output_order import output_order
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.editing.passages import split_passages
from rlhf_core.types import AudioState, IntArray, Passage

Editor = Callable[[AudioState, Passage], IntArray]
Edits = list[tuple[Passage, IntArray]]

MOST_BARS: Final = 8  # given back on one side of a border
_TOLERANCE: Final = 1e-6
_FADES: Final = (Action.FADE_IN, Action.FADE_OUT)


def edit_song(state: AudioState, editor: Editor) -> Edits:
    """Every passage with its legal actions (passage.n_beats,), in song order.

    The passages cover the song from beat 0 to its end: a pickup before the first downbeat is kept
    and counted to the first passage, which `editor` sees without it. `concatenate_edls` of each
    one's `build_edl` is the edit of the song. Time and memory grow linearly with its length.
    """
    grid, edits = state.grid, Edits()
    for passage in split_passages(grid):
        phase = grid.bar_phase[passage.start_beat : passage.end_beat]
        actions, _ = legalise(editor(state, passage), phase, grid.beats_per_bar)
        edits.append((passage, actions))
    for i in range(len(edits) - 1):
        (before, head), (after, tail) = edits[i], edits[i + 1]
        merged = _mend(state, before, after, _without_fades(head, tail))
        edits[i] = (before, merged[: before.n_beats])
        edits[i + 1] = (after, merged[before.n_beats :])
    first, actions = edits[0]
    if first.start_beat > 0:
        pickup = np.zeros(first.start_beat, dtype=np.int64)
        edits[0] = (Passage(0, first.end_beat), np.concatenate((pickup, actions)))
    return edits


def _without_fades(before: IntArray, after: IntArray) -> tuple[IntArray, IntArray]:
    """The actions with the fades that touch the border between them kept at full level."""
    before, after = before.copy(), after.copy()
    end = len(before)
    while end > 0 and before[end - 1] in (*_FADES, Action.CUT):
        end -= 1
    start = 0
    while start < len(after) and after[start] in (*_FADES, Action.CUT):
        start += 1
    before[end:][np.isin(before[end:], _FADES)] = Action.KEEP
    after[:start][np.isin(after[:start], _FADES)] = Action.KEEP
    return before, after


def _mend(
    state: AudioState, before: Passage, after: Passage, actions: tuple[IntArray, IntArray]
) -> IntArray:
    """The actions of both passages in one array, with the border between them mended."""
    border, bar = before.n_beats, state.grid.beats_per_bar
    choices = [actions[0].tolist() + actions[1].tolist()]
    most = [min(MOST_BARS, passage.n_beats // bar) for passage in (before, after)]
    for back, ahead in product(range(most[0] + 1), range(most[1] + 1)):
        edit = choices[0].copy()
        low, high = border - back * bar, border + ahead * bar
        edit[low:high] = [int(Action.KEEP)] * (high - low)
        choices.append(edit)
    table = np.unique(np.array(choices[1:]), axis=0)
    table = np.concatenate((np.array(choices[:1]), table))
    joins = _joins(state, Passage(before.start_beat, after.end_beat), table)
    own = joins[0]
    inside = [distance for join, distance in own.items() if not _crosses(join, border)]
    limit = (float(np.mean(inside)) if inside else 0.0) + _TOLERANCE
    # Joins that the editor chose inside its passage are its own affair.
    excess = [
        sum(
            max(0.0, distance - limit)
            for join, distance in found.items()
            if _crosses(join, border) or distance > own.get(join, 0.0) + _TOLERANCE
        )
        for found in joins
    ]
    changed = (table != table[0]).sum(1)
    best = min(range(len(table)), key=lambda k: (round(excess[k], 6), changed[k]))
    chosen: IntArray = table[best]
    return chosen


def _crosses(join: tuple[int, int, int], border: int) -> bool:
    return join[0] < border <= join[1]


def _joins(
    state: AudioState, passage: Passage, table: IntArray
) -> list[dict[tuple[int, int, int], float]]:
    """Per row of actions: (beat before, beat after, which playing of it) -> discontinuity."""
    batch = PassageBatch.from_passages([(state, passage)])
    batch = batch.select(torch.zeros(len(table), dtype=torch.long))
    order = output_order(batch, torch.from_numpy(table))
    _, distance = join_distances(batch, order)
    rows: list[dict[tuple[int, int, int], float]] = [{} for _ in table]
    source, copy = order.source.tolist(), order.copy.tolist()
    for row, place in torch.nonzero(order.joins).tolist():
        key = (source[row][place - 1], source[row][place], copy[row][place])
        rows[row][key] = float(distance[row, place])
    return rows
