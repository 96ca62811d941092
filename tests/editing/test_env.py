"""The gymnasium shell: its checkers, its agreement with the batched one, a short training."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.editing.actions import legalise
from rlhf_core.editing.dense_reward import dense_reward
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.editing.env import AudioEditingEnv, BatchedAudioEditingEnv
from rlhf_core.editing.passages import split_passages
from rlhf_core.errors import EditError
from rlhf_core.types import Passage
from tests.editing.strategies import Case, cases


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


def test_stable_baselines_checker(items) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_for_sb3(AudioEditingEnv(items), warn=True, skip_render_check=True)


def test_stable_baselines_ppo_trains_unchanged(items) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(lambda: AudioEditingEnv(items), n_envs=2, seed=0)
    model = PPO("MlpPolicy", envs, n_steps=64, batch_size=32, n_epochs=1, device="cpu", seed=0)
    before = [weight.clone() for weight in model.policy.parameters()]
    model.learn(256)
    assert model.num_timesteps == 256
    assert any(bool((a != b).any()) for a, b in zip(before, model.policy.parameters(), strict=True))
    episodes = list(model.ep_info_buffer or [])
    assert episodes and all(0 < episode["r"] <= 1 for episode in episodes)
    assert {episode["l"] for episode in episodes} <= {p.n_beats for _, p in items}


def test_maskable_ppo_trains_unchanged_and_keeps_to_the_masks(items) -> None:
    from sb3_contrib import MaskablePPO

    env = _Watched(items)
    model = MaskablePPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0)
    model.learn(128)
    assert model.num_timesteps == 128
    # Nothing that was tried had to be replaced by KEEP.
    assert len(env.tried) == 128 and all(mask[action] for action, mask in env.tried)
    assert any(not mask.all() for _, mask in env.tried)


class _Watched(AudioEditingEnv):
    """Notes each action with the mask it was taken under."""

    def __init__(self, items) -> None:
        super().__init__(items)
        self.tried = []

    def step(self, action):
        self.tried.append((int(action), self.action_masks()))
        return super().step(action)


@settings(max_examples=25, deadline=None)
@given(cases(), st.booleans())
def test_one_env_equals_a_row_of_the_batched_env(case: Case, keep_to_mask: bool) -> None:
    """Step by step, under random actions (legal ones, or any), in any metre and length."""
    batch, rng = case.batch, np.random.default_rng(int(case.padded.sum()))
    batched, envs = BatchedAudioEditingEnv(batch), [AudioEditingEnv(case.items) for _ in case.items]
    step = batched.reset()
    for row, env in enumerate(envs):
        seen, info = env.reset(options={"item": row})
        np.testing.assert_allclose(seen, step.observation[row].numpy(), atol=1e-5)
        assert info["action_mask"].tolist() == step.mask[row].tolist()
    done = np.zeros(batch.size, dtype=bool)
    for _ in range(batch.width):
        masks = step.mask.numpy()
        actions = rng.integers(0, 10, batch.size)
        if keep_to_mask:
            actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        step = batched.step(torch.from_numpy(actions))
        for row, env in enumerate(envs):
            if done[row]:
                assert step.done[row] and step.reward[row] == 0
                continue
            seen, reward, done[row], _, info = env.step(actions[row])
            assert env.observation_space.contains(seen)
            np.testing.assert_allclose(seen, step.observation[row].numpy(), atol=1e-5)
            assert reward == pytest.approx(float(step.reward[row]), abs=1e-5)
            assert done[row] == bool(step.done[row])
            assert info["action_mask"].tolist() == step.mask[row].tolist()
            assert env.action_masks().tolist() == step.mask[row].tolist()
            if done[row]:
                assert info["actions"].tolist() == legalised(case, row, batched)
    assert done.all()


def legalised(case: Case, row: int, batched: BatchedAudioEditingEnv) -> list[int]:
    """What the plain rules make of the row's actions (they are legal already)."""
    state, passage = case.items[row]
    acted = batched.state.actions[row, : passage.n_beats].numpy()
    phase = state.grid.bar_phase[passage.start_beat : passage.end_beat]
    return legalise(acted, phase, state.grid.beats_per_bar)[0].tolist()


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


def test_reset_is_pure(items) -> None:
    """Neither the songs nor later episodes are changed by what was done before a reset."""
    before = [state.features.copy() for state, _ in items]
    env, fresh = AudioEditingEnv(items), AudioEditingEnv(items)
    rng = np.random.default_rng(0)
    for item in (0, 1, 0, 2, 1):
        env.reset(options={"item": item})
        for _ in range(int(rng.integers(1, 12))):  # left in the middle
            env.step(int(rng.integers(10)))
    for item, (_, passage) in enumerate(items):
        pair = [e.reset(options={"item": item}) for e in (env, fresh)]
        assert pair[0][1]["action_mask"].tolist() == pair[1][1]["action_mask"].tolist()
        np.testing.assert_array_equal(pair[0][0], pair[1][0])
        for action in rng.integers(0, 10, passage.n_beats):
            one, two = env.step(action), fresh.step(action)
            np.testing.assert_array_equal(one[0], two[0])
            assert one[1:4] == two[1:4]
    for (state, _), features in zip(items, before, strict=True):
        np.testing.assert_array_equal(state.features, features)


def test_batched_reset_begins_anew(items) -> None:
    env = BatchedAudioEditingEnv(PassageBatch.from_passages(items))
    first = env.reset()
    for _ in range(5):
        env.step(torch.ones(3, dtype=torch.long))
    again = env.reset()
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert not bool(env.state.actions.any())


def test_songs_of_five_hundred_beats(make_state) -> None:
    """As one episode, and passage by passage."""
    state = make_state(0, 500)
    env = AudioEditingEnv([(state, Passage(0, 500))])
    env.reset(seed=0)
    rng, steps, done, reward = np.random.default_rng(0), 0, False, 0.0
    while not done:
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        seen, reward, done, _, _ = env.step(action)
        assert env.observation_space.contains(seen)
        steps += 1
    assert steps == 500 and 0 < reward < 1
    parts = split_passages(state.grid)
    assert sum(p.n_beats for p in parts) == 500
    batched = BatchedAudioEditingEnv(PassageBatch.from_passages([(state, p) for p in parts]))
    step, paid = batched.reset(), torch.zeros(len(parts))
    for _ in range(batched.batch.width):
        step = batched.step(torch.zeros(len(parts), dtype=torch.long))
        paid += step.reward
    assert bool(step.done.all()) and torch.equal(paid, torch.ones(len(parts)))


def test_mistakes_are_named(items) -> None:
    with pytest.raises(EditError, match="at least one passage"):
        AudioEditingEnv([])
    env = AudioEditingEnv(items)
    with pytest.raises(EditError, match="item 9"):
        env.reset(options={"item": 9})
    env.reset(seed=0)
    with pytest.raises(EditError, match="action 10"):
        env.step(10)
