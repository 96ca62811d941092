"""The network: padding changes nothing, any action changes the score, inputs are checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhf_core.audio.feature_table import BEAT_FEATURES, INPUT_FEATURES
from rlhf_core.editing.actions import N_ACTIONS
from rlhf_core.editing.dynamics import PassageBatch, reward_inputs
from rlhf_core.errors import ConfigError, DataError
from rlhf_core.reward.model import LearnedRewardModel, Normaliser, RewardModelConfig
from rlhf_core.types import AudioState, Passage


@pytest.fixture
def model() -> LearnedRewardModel:
    torch.manual_seed(0)
    return LearnedRewardModel().eval()


def inputs(n_edits: int, n_beats: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(n_edits, n_beats, INPUT_FEATURES, generator=generator)
    actions = torch.randint(0, N_ACTIONS, (n_edits, n_beats), generator=generator)
    return features, actions, torch.ones(n_edits, n_beats, dtype=torch.bool)


def test_three_layers_four_heads_125_inputs_ten_actions(model: LearnedRewardModel) -> None:
    assert (model.config.n_layers, model.config.n_heads) == (3, 4)
    assert len(model.blocks) == 3
    assert INPUT_FEATURES == 125
    assert model.action.num_embeddings == 10
    assert model(*inputs(5, 20)).shape == (5,)


@pytest.mark.parametrize("filling", [0.0, 1e6, float("nan")])
def test_padding_changes_nothing(model: LearnedRewardModel, filling: float) -> None:
    features, actions, mask = inputs(3, 24)
    plain = model(features, actions, mask)
    more = torch.cat([features, torch.full((3, 9, INPUT_FEATURES), filling)], 1)
    ids = torch.cat([actions, torch.full((3, 9), 1)], 1)
    valid = torch.cat([mask, torch.zeros(3, 9, dtype=torch.bool)], 1)
    torch.testing.assert_close(model(more, ids, valid), plain, atol=1e-5, rtol=1e-5)


def test_a_batch_of_different_lengths_scores_each_as_alone(model: LearnedRewardModel) -> None:
    features, actions, mask = inputs(3, 24)
    lengths = (24, 11, 17)
    for row, length in enumerate(lengths):
        mask[row, length:] = False
    together = model(features, actions, mask)
    for row, n in enumerate(lengths):
        alone = model(features[row : row + 1, :n], actions[row : row + 1, :n], mask[row, None, :n])
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("action", range(1, N_ACTIONS))
def test_every_action_anywhere_changes_the_score(
    model: LearnedRewardModel, songs: list[AudioState], action: int
) -> None:
    batch = PassageBatch.from_passages([(songs[0], Passage(0, 32))])
    places = torch.tensor([0, 4, 8, 16, 24])  # downbeats with two bars behind them
    edits = torch.zeros(len(places) + 1, 32, dtype=torch.long)
    edits[torch.arange(len(places)), places] = action
    rows = batch.select(torch.zeros(len(edits), dtype=torch.long))
    scores = model(*reward_inputs(rows, edits))
    assert (scores[:-1] - scores[-1]).abs().min() > 1e-6


def test_no_dropout_and_no_clamp(model: LearnedRewardModel) -> None:
    batch = inputs(2, 16)
    torch.testing.assert_close(model.train()(*batch), model.eval()(*batch))
    before = model(*batch)
    model.head.weight.data.mul_(1e4)
    torch.testing.assert_close(model(*batch), before * 1e4, rtol=1e-4, atol=1e-2)


def test_normaliser_counts_valid_beats_only() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(3, 2, (4, 10, BEAT_FEATURES)).astype(np.float32))
    valid = torch.arange(10)[None] < torch.tensor([10, 3, 7, 1])[:, None]
    features[~valid] = 1e9
    features[..., 5] = torch.where(valid, 4.0, 1e9)
    normaliser = Normaliser()
    normaliser.fit(features, valid)
    rows = np.concatenate([features[i, : int(valid[i].sum())].numpy() for i in range(4)])
    np.testing.assert_allclose(normaliser.mean.numpy(), rows.mean(0), rtol=1e-5)
    expected = rows.std(0)
    expected[5] = 1.0  # constant column
    np.testing.assert_allclose(normaliser.std.numpy(), expected, rtol=1e-4)


def test_wrong_inputs_are_named(model: LearnedRewardModel) -> None:
    features, actions, mask = inputs(2, 8)
    with pytest.raises(DataError, match=r"\(edits, beats, 125\)"):
        model(features[..., :121], actions, mask)
    with pytest.raises(DataError, match="mask"):
        model(features, mask, actions)
    with pytest.raises(DataError, match="no valid beat"):
        model(features, actions, torch.zeros_like(mask))
    with pytest.raises(DataError, match=r"0\.\.9"):
        model(features, actions + 9, mask)
    with pytest.raises(ConfigError, match="multiple"):
        RewardModelConfig(d_model=100, n_heads=3)


def test_edits_of_one_passage_together_embed_as_each_alone() -> None:
    """What the edits of a passage share is computed once; padding and all."""
    torch.manual_seed(3)
    model = LearnedRewardModel(RewardModelConfig()).eval()
    beats = torch.randn(2, 1, 40, 121).expand(-1, 3, -1, -1)
    features = torch.cat([beats, torch.rand(2, 3, 40, 4)], dim=-1).flatten(0, 1)
    ids = torch.randint(0, 10, (6, 40))
    mask = (torch.arange(40) < torch.tensor([40, 33])[:, None]).repeat_interleave(3, 0)
    with torch.no_grad():
        alone = torch.cat(
            [model.embed(features[i : i + 1], ids[i : i + 1], mask[i : i + 1]) for i in range(6)]
        )
        together = model.embed(features, ids, mask, 3)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
