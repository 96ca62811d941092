"""The gymnasium shell: its checkers, its agreement with the batched one, a short training."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from rlhf_core.editing.dense_reward import dense_reward
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.editing.env import AudioEditingEnv, BatchedAudioEditingEnv
from rlhf_core.errors import EditError
from rlhf_core.types import Passage


@pytest.fixture
def items(make_state):
    """Three passages of different lengths and metres."""
    return [(make_state(i, 40, bar), Passage(i, i + 12 + 5 * i)) for i, bar in enumerate((4, 3, 4))]


def test_gymnasium_checker(items) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render.*")
        warnings.filterwarnings("ignore", message=".*spec.*")
        check_env(AudioEditingEnv(items), skip_render_check=True)


def test_stable_baselines_checker_and_training(items) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    env = AudioEditingEnv(items)
    check_for_sb3(env, warn=True)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, device="cpu", seed=0)
    model.learn(128)
    assert model.num_timesteps == 128


def test_one_env_equals_a_row_of_the_batched_env(items) -> None:
    batch = PassageBatch.from_passages(items)
    batched, envs = BatchedAudioEditingEnv(batch), [AudioEditingEnv(items) for _ in items]
    step = batched.reset()
    for row, env in enumerate(envs):
        seen, info = env.reset(options={"item": row})
        np.testing.assert_allclose(seen, step.observation[row].numpy(), atol=1e-5)
        assert info["action_mask"].tolist() == step.mask[row].tolist()
    rng, done = np.random.default_rng(0), np.zeros(len(items), dtype=bool)
    for _ in range(batch.width):
        actions = rng.integers(0, 10, len(items))
        step = batched.step(torch.from_numpy(actions))
        for row, env in enumerate(envs):
            if done[row]:
                assert step.done[row] and step.reward[row] == 0
                continue
            seen, reward, done[row], _, info = env.step(actions[row])
            np.testing.assert_allclose(seen, step.observation[row].numpy(), atol=1e-5)
            assert reward == pytest.approx(float(step.reward[row]), abs=1e-5)
            assert done[row] == bool(step.done[row])
            assert info["action_mask"].tolist() == step.mask[row].tolist()
            assert env.action_masks().tolist() == step.mask[row].tolist()
    assert done.all()


def test_the_dense_reward_comes_once_at_the_end(items) -> None:
    env = AudioEditingEnv(items[:1])
    env.reset(seed=1)
    rewards, done = [], False
    while not done:
        _, reward, done, _, info = env.step(2)
        rewards.append(reward)
    assert len(rewards) == items[0][1].n_beats and not any(rewards[:-1])
    batch = PassageBatch.from_passages(items[:1])
    want = dense_reward(batch, torch.from_numpy(info["actions"])[None])
    assert rewards[-1] == pytest.approx(float(want[0]))


def test_reset_is_reproducible(items) -> None:
    first, second = AudioEditingEnv(items), AudioEditingEnv(items)
    for env in (first, second):
        env.reset(seed=7)
    drawn = [[env.reset()[1]["item"] for _ in range(20)] for env in (first, second)]
    assert drawn[0] == drawn[1] and set(drawn[0]) == {0, 1, 2}
    a, _ = first.reset(seed=3)
    first.step(1)
    b, _ = first.reset(seed=3)
    np.testing.assert_array_equal(a, b)


def test_mistakes_are_named(items) -> None:
    with pytest.raises(EditError, match="at least one passage"):
        AudioEditingEnv([])
    env = AudioEditingEnv(items)
    with pytest.raises(EditError, match="item 9"):
        env.reset(options={"item": 9})
    env.reset(seed=0)
    with pytest.raises(EditError, match="action 10"):
        env.step(10)
