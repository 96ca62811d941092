"""The first policy does what its teacher does, in a spread, and is the same for the same seed."""

from __future__ import annotations

import numpy as np
import torch

from rlhf_core.editing.actions import Action
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy.agent import AgentConfig
from rlhf_core.policy.imitation import (
    ImitationConfig,
    demonstrations,
    imitate,
    mean_and_deviation,
)
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.rollout import collect

TINY = ImitationConfig(edits=128, steps=90, batch=12, lr=4e-3)


def test_it_learns_to_cut_on_bar_lines_and_its_edits_vary(items: list[Item]) -> None:
    """Synthetic songs: the heuristic cuts whole bars from downbeats on; chance is one in four."""
    items = [item for item in items if item[0].grid.beats_per_bar == 4]
    agent, losses = imitate(items, 0, TINY, AgentConfig(width=32, layers=1, hidden=64))
    assert losses[-1] < 0.6 * losses[0]
    batch = PassageBatch.from_passages(items * 8)
    actions = collect(agent, batch, torch.Generator().manual_seed(0)).actions
    cut = (actions == Action.CUT) & batch.valid
    starts = cut.clone()
    starts[:, 1:] &= ~cut[:, :-1]
    on_downbeat = (batch.bar_phase[starts] == 0).float().mean()
    assert starts.sum() > 20 and on_downbeat > 0.6
    same = torch.stack([actions[i] for i in range(0, len(actions), len(items))])
    assert len({tuple(row.tolist()) for row in same}) > 4


def test_demonstrations_use_every_passage_and_preset_alike(items: list[Item]) -> None:
    passages, edits = demonstrations(items, 30, 0)
    assert np.bincount(passages).tolist() == [3] * 10
    assert [len(edit) for edit in edits] == [items[p][1].n_beats for p in passages]
    again = demonstrations(items, 30, 0)
    assert again[0] == passages and all(
        torch.equal(a, b) for a, b in zip(again[1], edits, strict=True)
    )


def test_the_normaliser_counts_each_song_once(items: list[Item]) -> None:
    mean, std = mean_and_deviation(items)
    songs = {state.song_id: state.features for state, _ in items}
    beats = np.concatenate(list(songs.values()))
    assert np.allclose(mean, beats.mean(0), atol=1e-4)
    assert np.allclose(std, beats.std(0), atol=1e-4)


def test_same_seed_same_policy(items: list[Item]) -> None:
    short = ImitationConfig(edits=8, steps=3, batch=4)
    small = AgentConfig(width=16, layers=1, heads=2, hidden=16)
    torch.manual_seed(5)
    untouched = torch.get_rng_state()
    a, b, c = (imitate(items, seed, short, small)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)
    assert torch.equal(untouched, torch.get_rng_state()), "the global generator was used"
