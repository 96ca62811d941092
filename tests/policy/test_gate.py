"""The gate: withheld votes stay withheld, intervals cover songs and tastes, verdicts are stable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import DataError
from rlhf_core.policy import comparison, gate
from rlhf_core.reward.checkpoint import load_reward
from rlhf_core.reward.dataset import Vote
from rlhf_core.reward.learned_reward_integration import find_default_checkpoint
from rlhf_core.reward.withholding import split_votes
from rlhf_core.types import Passage


def vote(number: int, song: str) -> Vote:
    actions = np.zeros(8, dtype=np.int64)
    return Vote(
        f"v{number}", f"p{number}", song, "ann", True, "a", 2, "random", Passage(0, 8), actions,
        actions, "x", "y", False, "train",
    )  # fmt: skip


def test_whole_songs_are_withheld_and_stay_so_as_votes_come_in() -> None:
    votes = [vote(i, f"song{i % 10}") for i in range(100)]
    learned, withheld = split_votes(votes, 0.3)
    assert len(withheld) == 30 and len(learned) == 70
    apart = {v.song_id for v in withheld}
    assert not apart & {v.song_id for v in learned}
    again = split_votes([replace(v, vote_id="x") for v in votes * 2][::-1], 0.3)[1]
    assert {v.song_id for v in again} == apart
    assert [len(part) for part in split_votes([vote(0, "a"), vote(1, "b")])] == [1, 1]
    with pytest.raises(DataError, match="two songs"):
        split_votes([vote(0, "a")])


def test_intervals_resample_songs_not_their_passages() -> None:
    """Ten passages of each of four songs, all alike within a song: four facts, not forty."""
    values = np.repeat([0.0, 1.0, 1.0, 0.0], 10)
    songs = np.repeat(list("abcd"), 10).tolist()
    by_song = comparison.bootstrap_mean(values, songs)
    by_passage = comparison.bootstrap_mean(values)
    assert by_song["mean"] == by_passage["mean"] == 0.5
    assert by_song["low"] == 0.0 and by_song["high"] == 1.0  # all four alike: 2 in 16 draws
    assert by_passage["high"] - by_passage["low"] < 0.4


def test_intervals_cover_tastes_that_disagree() -> None:
    """Half of the tastes like ours on every song, half like theirs: nothing is known."""
    ours = np.ones((12, 2, 50)) * np.where(np.arange(50) % 2 == 0, 1.0, -1.0)
    rate = comparison.win_rate(ours, np.zeros((12, 2, 50)), [f"s{i}" for i in range(12)])
    assert (rate["mean"], rate["low"], rate["high"]) == (0.5, 0.0, 1.0)
    assert 0.45 < rate["better"] < 0.55


def test_tastes_have_the_posterior_s_mean_and_spread(
    make_batch: Callable[[], tuple[PassageBatch, torch.Tensor]],
) -> None:
    made = load_reward(find_default_checkpoint(Path())[0])
    integration = gate.integration_of(made)
    batch, actions = make_batch()
    drawn = gate.tastes(integration, 0, 4000)(batch, actions)
    phi = integration.embed(batch, actions).double()
    difference = phi[0] - phi[1]
    known = float(difference @ made.covariance.double() @ difference) ** 0.5 / made.sigma
    apart = drawn[0] - drawn[1]
    assert float(apart.std()) == pytest.approx(known, rel=0.06)
    wanted = float(difference @ made.mean.double()) / made.sigma
    assert float(apart.mean()) == pytest.approx(wanted, abs=4 * known / 4000**0.5)
    assert torch.equal(drawn, gate.tastes(integration, 0, 4000)(batch, actions))
