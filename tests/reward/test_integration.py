"""Learned and dense reward put together; checkpoints that cannot be used raise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_core.editing.dense_reward import dense_reward
from rlhf_core.editing.dynamics import PassageBatch, reward_inputs
from rlhf_core.errors import CheckpointError, ConfigError, DataError
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.learned_reward_integration import (
    DEFAULT_CHECKPOINT,
    LearnedRewardConfig,
    LearnedRewardIntegration,
    find_default_checkpoint,
)
from rlhf_core.types import AudioState, Passage

Loaded = tuple[LearnedRewardIntegration, PassageBatch, torch.Tensor]


@pytest.fixture
def loaded(bootstrap_path: Path, songs: list[AudioState]) -> Loaded:
    integration = LearnedRewardIntegration()
    integration.load_model(bootstrap_path)
    batch = PassageBatch.from_passages(
        [(song, Passage(0, 32 + 16 * (song is songs[0]))) for song in songs[:4]]
    )
    actions = torch.randint(0, 10, (4, 48), generator=torch.Generator().manual_seed(0))
    return integration, batch, actions


def test_defaults_are_the_documented_ones() -> None:
    config = LearnedRewardConfig()
    assert (config.learned_reward_weight, config.dense_reward_weight) == (0.8, 0.2)
    assert config.clamp_reward == (-10.0, 10.0)
    assert (config.reward_scale, config.reward_offset) == (1.0, 0.0)


def test_single_and_batched_agree_and_total_is_the_weighted_sum(loaded: Loaded) -> None:
    integration, batch, actions = loaded
    features, ids, valid = reward_inputs(batch, actions)
    dense = dense_reward(batch, actions)
    together = integration.compute_trajectory_reward(features, ids, dense, valid)
    for row in range(4):
        n = int(batch.lengths[row])
        alone = integration.compute_trajectory_reward(
            features[row, :n], ids[row, :n], float(dense[row])
        )
        assert isinstance(alone.total, float)
        assert alone.total == pytest.approx(float(together.total[row]), abs=1e-3)
        assert alone.total == pytest.approx(0.8 * alone.learned + 0.2 * alone.dense, abs=1e-5)
        learned = integration.compute_learned_reward(features[row, :n], ids[row, :n])
        assert learned == pytest.approx(alone.learned, abs=1e-3)


def test_reference_edits_have_mean_zero_and_unit_spread_in_both_terms(
    checkpoint: RewardCheckpoint,
) -> None:
    reference = checkpoint.reference
    scores = (reference.embeddings.double() @ checkpoint.mean - checkpoint.mu) / checkpoint.sigma
    values, window = scores.numpy(), reference.passage.numpy()
    within = np.concatenate([values[window == k] - values[window == k].mean() for k in set(window)])
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert np.sqrt((within**2).sum() / (len(within) - len(set(window)))) == pytest.approx(1)


def test_scale_offset_and_clamp(bootstrap_path: Path, loaded: Loaded) -> None:
    integration, batch, actions = loaded
    plain = integration.score(batch, actions).mean
    config = LearnedRewardConfig(reward_scale=3.0, reward_offset=-0.5, clamp_reward=(-1.0, 1.0))
    other = LearnedRewardIntegration(config)
    other.load_model(bootstrap_path)
    learned, cut = other.shape_learned(plain)
    expected = np.clip(3 * plain.numpy() - 0.5, -1, 1)
    np.testing.assert_allclose(learned.numpy(), expected, rtol=1e-5)
    assert bool((cut == (np.abs(3 * plain - 0.5) > 1)).all())


def test_uncertainty_is_that_of_the_difference_from_the_reference(loaded: Loaded) -> None:
    integration, batch, actions = loaded
    phi = integration.embed(batch, actions)
    made = integration.checkpoint
    reference = phi.roll(1, 0)
    scores = integration.score(batch, actions, reference)
    draws = torch.distributions.MultivariateNormal(
        made.mean, made.covariance + 1e-12 * torch.eye(len(made.mean))
    )
    torch.manual_seed(0)
    values = (phi - reference).double() @ draws.sample((40_000,)).T / made.sigma
    np.testing.assert_allclose(scores.mean.numpy(), values.mean(1), atol=0.06)
    np.testing.assert_allclose(scores.std.numpy(), values.std(1), rtol=0.03)
    below = LearnedRewardConfig.lcb * values.std(1)
    np.testing.assert_allclose(scores.lower.numpy(), values.mean(1) - below, atol=0.06, rtol=0.03)
    itself = integration.score(batch, actions, phi)
    assert float(itself.std.max()) == 0 and float(itself.mean.abs().max()) == 0


def test_state_goes_round(loaded: Loaded, tmp_path: Path) -> None:
    integration, batch, actions = loaded
    torch.save(integration.get_model_state(), tmp_path / "state.pt")
    other = LearnedRewardIntegration()
    other.set_model_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.score(batch, actions).mean, integration.score(batch, actions).mean)


def test_nothing_loaded_raises_instead_of_rewarding_zero(loaded: Loaded) -> None:
    _, batch, actions = loaded
    empty, inputs = LearnedRewardIntegration(), reward_inputs(batch, actions)
    for reward in (
        lambda: empty.score(batch, actions),
        lambda: empty.compute_learned_reward(*inputs),
        lambda: empty.compute_trajectory_reward(inputs[0], inputs[1], torch.ones(4), inputs[2]),
        empty.get_model_state,
    ):
        with pytest.raises(CheckpointError, match="load_model"):
            reward()


def test_a_mask_in_place_of_action_ids_and_the_reverse_are_refused(loaded: Loaded) -> None:
    """The historic mistake: True and False would be read as KEEP and CUT."""
    integration, batch, actions = loaded
    features, ids, valid = reward_inputs(batch, actions)
    for wrong in (valid, features[..., 0]):
        with pytest.raises(DataError, match="action ids are whole numbers"):
            integration.compute_learned_reward(features, wrong, valid)
    with pytest.raises(DataError, match="the mask is bool"):
        integration.compute_trajectory_reward(features, ids, torch.zeros(4), ids)
    with pytest.raises(DataError, match="4 edits but dense"):
        integration.compute_trajectory_reward(features, ids, torch.zeros(3), valid)
    plain, small = (
        torch.as_tensor(integration.compute_learned_reward(features, some, valid))
        for some in (ids, ids.to(torch.int8))
    )
    assert torch.equal(plain, small)


def test_a_state_that_is_not_whole_leaves_what_was_loaded(loaded: Loaded) -> None:
    integration, batch, actions = loaded
    before = integration.score(batch, actions).mean
    state = integration.get_model_state()
    for part in ("model", "posterior", "reference"):
        with pytest.raises(CheckpointError, match="not whole"):
            integration.set_model_state({key: state[key] for key in state if key != part})
    assert torch.equal(integration.score(batch, actions).mean, before)


def test_missing_damaged_and_foreign_checkpoints_raise(
    bootstrap_path: Path, tmp_path: Path
) -> None:
    integration = LearnedRewardIntegration()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        integration.load_model(tmp_path / "missing.pt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(bootstrap_path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        integration.load_model(cut)
    data = torch.load(bootstrap_path, weights_only=True)
    for change, words in (
        ({"kind": "policy"}, "policy"),
        ({"feature_version": "beat-features-0"}, "beat-features-0"),
        ({"format": 99}, "format 99"),
        ({"actions": ["KEEP", "CUT"]}, "other actions"),
        (
            {"config": {"d_model": 64, "n_layers": 3, "n_heads": 4, "ff": 256, "embedding": 64}},
            "not whole",
        ),
        ({"reference": {}}, "not whole"),
    ):
        path = tmp_path / "changed.pt"
        torch.save({**data, **change}, path)
        with pytest.raises(CheckpointError, match=words):
            integration.load_model(path)
    data["posterior"]["mean"][0] = float("nan")
    torch.save(data, tmp_path / "nan.pt")
    with pytest.raises(CheckpointError, match="not finite"):
        integration.load_model(tmp_path / "nan.pt")


def test_default_checkpoint_is_the_workspaces_first(
    bootstrap_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / DEFAULT_CHECKPOINT
    place.parent.mkdir(parents=True)
    place.write_bytes(bootstrap_path.read_bytes())
    path, where = find_default_checkpoint(tmp_path)
    assert path == place and "workspace" in where
    monkeypatch.chdir(tmp_path)
    path, where = find_default_checkpoint(tmp_path / "runs/elsewhere")
    assert path.resolve() == place and "workspace" in where
    place.unlink()
    path, where = find_default_checkpoint(tmp_path)
    assert "package" in where and load_reward(path).lineage["synthetic"]


def test_bootstrap_says_that_it_is_synthetic(bootstrap_path: Path) -> None:
    made = load_reward(bootstrap_path)
    assert made.lineage["synthetic"] is True
    assert 0 <= made.metrics["taste_accuracy"] <= 1
    assert set(made.metrics["attribute_r2"]) == set(made.attributes["names"])


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="clamp_reward"):
        LearnedRewardConfig(clamp_reward=(1.0, -1.0))
    with pytest.raises(ConfigError, match="finite"):
        LearnedRewardConfig(learned_reward_weight=-1.0)
    with pytest.raises(ConfigError, match="set its weight to 0"):
        LearnedRewardConfig(reward_scale=0.0)
    with pytest.raises(ConfigError, match="reward_offset finite"):
        LearnedRewardConfig(reward_offset=float("nan"))
