"""Synthetic edits for pretraining: many different edits of many windows of the songs.

A *window* is a passage that starts on a downbeat, of 32 to 96 beats. Each window gets `GROUP`
edits, because only differences between edits of one passage can be learned from votes. The edits
come from heuristic presets, from random changes, and from mixtures of both, so that what a policy
will ever do lies between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlhf_core.editing.actions import N_ACTIONS
from rlhf_core.editing.attributes import edit_attributes
from rlhf_core.editing.dense_reward import dense_reward
from rlhf_core.editing.dynamics import PassageBatch, reward_inputs
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit, random_edit
from rlhf_core.reward.descriptors import describe
from rlhf_core.types import PHRASE_BEATS, AudioState, IntArray, Passage

GROUP = 8
HEURISTICS, RANDOMS = 3, 1  # of each group; the others are mixtures
WINDOW_BEATS = (32, 32, 48, 48, 64, 64, 80)
CHUNK = 256

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class SyntheticEdits:
    """P windows with G = GROUP edits each.

    windows: PassageBatch of P rows, by length; actions (P, G, T) long, legal;
    edit_features (P, G, T, 4); attributes (P, G, K) float64, columns as in `TARGET_NAMES`, not
    standardised; dense (P, G);
    song (P,) index of the song; passages: where each window is in its song.
    """

    windows: PassageBatch
    actions: Tensor
    edit_features: Tensor
    attributes: Tensor
    dense: Tensor
    song: IntArray
    passages: tuple[Passage, ...]

    def __len__(self) -> int:
        return self.windows.size

    def to(self, device: str) -> SyntheticEdits:
        """The same edits with what the network reads on a device."""
        return replace(
            self,
            windows=self.windows.to(device),
            actions=self.actions.to(device),
            edit_features=self.edit_features.to(device),
        )

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reward model inputs of the windows (W,): (W·G, T', …), T' the longest among them."""
        width = int(self.windows.lengths[index].max())
        shape = (len(index), GROUP, width)
        beats = self.windows.features[index, None, :width].expand(*shape, -1)
        features = torch.cat([beats, self.edit_features[index, :, :width]], dim=-1)
        valid = self.windows.valid[index, None, :width].expand(shape)
        actions = self.actions[index, :, :width]
        return features.flatten(0, 1), actions.flatten(0, 1), valid.flatten(0, 1)


def draw_window(state: AudioState, rng: np.random.Generator) -> Passage:
    """A stretch of a song from a downbeat on; the whole song when it is shorter than asked."""
    wanted = int(rng.choice(WINDOW_BEATS))
    n_beats = state.grid.n_beats
    if n_beats <= wanted:
        return Passage(0, n_beats)
    starts = np.flatnonzero(state.grid.bar_phase[: n_beats - wanted + 1] == 0)
    start = int(rng.choice(starts)) if len(starts) else 0
    return Passage(start, start + wanted)


def draw_edits(state: AudioState, window: Passage, rng: np.random.Generator) -> list[IntArray]:
    """`GROUP` edits of a window: some heuristic, some random, the rest mixtures of those."""
    presets = rng.choice(sorted(PRESETS), HEURISTICS, replace=False)
    edits = [heuristic_edit(state, window, str(preset), rng) for preset in presets]
    edits += [
        random_edit(state, window, rng, float(rng.uniform(0.02, 0.4))) for _ in range(RANDOMS)
    ]
    while len(edits) < GROUP:
        edit, other = (edits[i] for i in rng.choice(HEURISTICS, 2, replace=False))
        how = int(rng.integers(3))  # spliced, changed, or both
        if how != 1:  # the beginning of one, the end of the other
            cut = PHRASE_BEATS * int(rng.integers(1, max(2, len(edit) // PHRASE_BEATS)))
            edit = np.concatenate([edit[:cut], other[cut:]])
        if how != 0:  # a few beats changed
            changed = rng.random(len(edit)) < rng.uniform(0.01, 0.2)
            edit = np.where(changed, rng.integers(0, N_ACTIONS, len(edit)), edit)
        edits.append(edit)
    return [edits[i] for i in rng.permutation(GROUP)]


def make_edits(
    states: Sequence[AudioState],
    n_windows: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> SyntheticEdits:
    """Draw windows from the songs in turn, edit each `GROUP` times and measure the edits."""
    drawn = [(i % len(states), draw_window(states[i % len(states)], rng)) for i in range(n_windows)]
    drawn.sort(key=lambda item: item[1].n_beats)
    items = [(states[song], window) for song, window in drawn]
    windows = PassageBatch.from_passages(items)
    actions = torch.zeros(n_windows, GROUP, windows.width, dtype=torch.long)
    for row, (state, window) in enumerate(items):
        for column, edit in enumerate(draw_edits(state, window, rng)):
            actions[row, column, : window.n_beats] = torch.from_numpy(np.asarray(edit))
        if progress is not None and row % 16 == 0:
            progress(row / n_windows, "drawing edits")
    song, passages = np.array([song for song, _ in drawn]), tuple(window for _, window in drawn)
    return _measure(windows, actions, song, passages)


def _measure(
    windows: PassageBatch, actions: Tensor, song: IntArray, passages: tuple[Passage, ...]
) -> SyntheticEdits:
    """Legal actions, edit features, attributes and dense reward of all edits, in chunks."""
    flat = actions.flatten(0, 1)
    owner = torch.arange(windows.size).repeat_interleave(GROUP)
    legal, edit, attributes, dense = [], [], [], []
    for start in range(0, len(flat), CHUNK):
        batch = windows.select(owner[start : start + CHUNK])
        features, ids, _ = reward_inputs(batch, flat[start : start + CHUNK])
        legal.append(ids)
        edit.append(features[..., -4:])
        attributes.append(
            torch.cat([edit_attributes(batch, ids), describe(batch, ids)], 1).double()
        )
        dense.append(dense_reward(batch, ids).double())
    shape = (windows.size, GROUP)
    return SyntheticEdits(
        windows,
        torch.cat(legal).view(*shape, *legal[0].shape[1:]),
        torch.cat(edit).view(*shape, *edit[0].shape[1:]),
        torch.cat(attributes).view(*shape, *attributes[0].shape[1:]),
        torch.cat(dense).view(*shape, *dense[0].shape[1:]),
        song,
        passages,
    )
