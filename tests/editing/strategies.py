"""Hypothesis strategies for edits, and slow, plain oracles of what they mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.editing.actions import N_ACTIONS
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.types import AudioState, BeatGrid, IntArray, Passage


class Case(NamedTuple):
    """Passages with one edit each; actions are plain per-row arrays of each passage's length."""

    items: list[tuple[AudioState, Passage]]
    actions: list[IntArray]

    @property
    def batch(self) -> PassageBatch:
        return PassageBatch.from_passages(self.items)

    @property
    def padded(self) -> torch.Tensor:
        width = max(len(row) for row in self.actions)
        return torch.stack(
            [torch.from_numpy(np.pad(row, (0, width - len(row)))) for row in self.actions]
        )

    def edl(self, row: int) -> EDL:
        state, passage = self.items[row]
        return build_edl(self.actions[row], state.grid, passage)


def random_item(rng: np.random.Generator, n_beats: int, bar: int) -> tuple[AudioState, Passage]:
    """A passage inside a longer song; sometimes the bar phases are torn (as after a correction)."""
    start = int(rng.integers(0, 5))
    total = start + n_beats + int(rng.integers(0, 3))
    phase = (np.arange(total) + rng.integers(0, bar)) % bar
    if rng.random() < 0.3:
        phase = rng.integers(0, bar, total)
    times = np.cumsum(np.concatenate([[0.1], rng.uniform(0.3, 0.7, total)]))
    features = rng.standard_normal((total, BEAT_FEATURES)).astype(np.float32) ** 2 + 0.01
    grid = BeatGrid(times, phase, 120.0, bar)
    state = AudioState(f"case{n_beats}", grid, features)
    return state, Passage(start, start + n_beats)


def _random_actions(rng: np.random.Generator, n_beats: int) -> IntArray:
    style = rng.random()
    if style < 0.2:  # mostly cuts, so that the limit on output is met
        return np.where(rng.random(n_beats) < 0.95, 1, rng.integers(0, N_ACTIONS, n_beats))
    if style < 0.4:  # runs of fades and cuts
        return rng.choice([0, 1, 5, 6], size=n_beats // 3 + 1).repeat(3)[:n_beats]
    if style < 0.6:  # many bar actions
        return rng.choice([0, 1, 3, 4, 9], size=n_beats)
    return rng.integers(0, N_ACTIONS, n_beats)


@st.composite
def cases(draw: st.DrawFn, max_rows: int = 4) -> Case:
    """One to four passages of 8..40 beats in meters 1..8 with arbitrary actions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = draw(
        st.lists(st.tuples(st.integers(8, 40), st.integers(1, 8)), min_size=1, max_size=max_rows)
    )
    items = [random_item(rng, n, bar) for n, bar in shapes]
    return Case(items, [_random_actions(rng, n).astype(np.int64) for n, _ in shapes])
