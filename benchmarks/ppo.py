"""Steps/s of our PPO loop against stable-baselines3's, on the same passages and reward, in one run.

    python benchmarks/ppo.py [--data_dir SONGS] [--reward_model PATH] [--steps 16384] [--rounds 3]

Contenders take turns in `rounds` rounds; all learn from 2048 steps an update for 5 epochs, one
torch thread, nobody stops an update early, and nobody is held near a reference:

    default   stable-baselines3's defaults: 1 env, minibatches of 64 steps
    best      its best setting here: 8 envs, minibatches of 512 steps
    ours      RLHFTrainer with its own defaults, files written and all

A step is one beat of an edit. Speeds are per second of the process's CPU time, which other work on
the machine disturbs least; wall time is printed beside it. The return is the dense reward of fresh
edits by the trained policy, sampled, all passages `EVALUATED` times. Without --data_dir the
passages are synthetic. With --reward_model (a path, or "default") the reward is the learned and
dense one together, and its scoring is counted; stable-baselines3 has edits scored as they end.
The last lines say where our time goes, and how much of it matrix products need at least.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from env import item
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.utils.flop_counter import FlopCounterMode

from rlhf_core.editing.dense_reward import dense_reward
from rlhf_core.editing.env import AudioEditingEnv
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.imitation import mean_and_deviation
from rlhf_core.policy.ppo import PPOConfig
from rlhf_core.policy.rewards import Item, LearnedRewards, RewardSource, dense_only
from rlhf_core.policy.rollout import collect
from rlhf_core.policy.songs import load_items
from rlhf_core.policy.trainer import RLHFTrainer, TrainingConfig, copy_of
from rlhf_core.reward.learned_reward_integration import LearnedRewardIntegration

N_STEPS, EPOCHS = 2048, 5
EVALUATED = 4
BARS = {"dense": {"default": 10.0, "best": 4.0}, "learned": {"best": 2.5}}
SYNTHETIC = 48


class Scored(gymnasium.Wrapper):
    """Pays what a `RewardSource` says of the finished edit instead of the dense reward."""

    def __init__(self, env: AudioEditingEnv, items: Sequence[Item], reward: RewardSource) -> None:
        super().__init__(env)
        self.items, self.reward, self.index = items, reward, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        self.index = info["item"]
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, paid, done, cut, info = self.env.step(action)
        if done:
            passage = [self.items[self.index]]
            actions = torch.as_tensor(info["actions"])[None]
            with torch.no_grad():
                batch = PassageBatch.from_passages(passage)
                paid = float(self.reward(batch, actions, passage).total[0])
        return observation, paid, done, cut, info


def fresh_agent(items: Sequence[Item], seed: int) -> Agent:
    torch.manual_seed(seed)
    agent = Agent()
    agent.set_normaliser(*mean_and_deviation(items))
    return agent


def reward_source(model: str | None, items: Sequence[Item]) -> RewardSource:
    if model is None:
        return dense_only
    integration = LearnedRewardIntegration()
    integration.load_model(None if model == "default" else model)
    source = LearnedRewards(integration, copy_of(fresh_agent(items, 0)))
    for start in range(0, len(items), 32):  # what is cached per passage is nobody's training time
        source.references(items[start : start + 32])
    return source


class Clock:
    """Wall and CPU seconds of a block."""

    def __enter__(self) -> Clock:
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


def theirs(
    items: Sequence[Item], reward: RewardSource, steps: int, seed: int, envs: int, batch: int
) -> tuple[Clock, float]:
    def make() -> gymnasium.Env[Any, Any]:
        env = AudioEditingEnv(items)
        return env if reward is dense_only else Scored(env, items, reward)

    vector = DummyVecEnv([make] * envs)
    model = PPO(
        "MlpPolicy", vector, n_steps=N_STEPS // envs, batch_size=batch, n_epochs=EPOCHS,
        seed=seed, device="cpu",
    )  # fmt: skip
    with Clock() as clock:
        model.learn(steps)
    return clock, returns_of_model(model, items)


def returns_of_model(model: PPO, items: Sequence[Item]) -> float:
    env = AudioEditingEnv(items)
    earned = []
    for index in list(range(len(items))) * EVALUATED:
        observation, _ = env.reset(options={"item": index})
        done = False
        while not done:
            action, _ = model.predict(observation, deterministic=False)
            observation, paid, done, _, _ = env.step(action)
        earned.append(paid)
    return float(np.mean(earned))


def ours(items: Sequence[Item], reward: RewardSource, steps: int, seed: int) -> tuple[Clock, float]:
    agent = fresh_agent(items, seed)
    ppo = PPOConfig(epochs=EPOCHS, kl_weight=0.0, update_kl=1e9)
    config = TrainingConfig(total_steps=steps, n_steps=N_STEPS, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RLHFTrainer(agent, items, reward, Path(folder), config, ppo=ppo)
        with Clock() as clock:
            trainer.train()
    assert trainer.step >= steps
    batch = PassageBatch.from_passages(list(items) * EVALUATED)
    rollout = collect(agent, batch, torch.Generator().manual_seed(seed + 1))
    clock.steps = trainer.step  # type: ignore[attr-defined]
    return clock, float(dense_reward(batch, rollout.actions).mean())


def matrix_rate() -> float:
    """fp32 FLOP/s of this thread on a product of the update's typical shape."""
    a, b = torch.randn(2048, 256), torch.randn(256, 256)
    best = 0.0
    for _ in range(5):
        with Clock() as clock:
            for _ in range(50):
                a @ b
        best = max(best, 50 * 2 * 2048 * 256 * 256 / clock.cpu)
    return best


def budget(items: Sequence[Item], reward: RewardSource, folder: Path) -> None:
    """Where the time of one update goes, in milliseconds of CPU, and the products' share."""
    ppo = PPOConfig(epochs=EPOCHS, kl_weight=0.0, update_kl=1e9)
    trainer = RLHFTrainer(
        fresh_agent(items, 0), items, reward, folder, TrainingConfig(n_steps=N_STEPS), ppo=ppo
    )
    spent: dict[str, list[float]] = {"roll-out and reward": [], "learning": []}
    for _ in range(4):
        with Clock() as clock:
            rollout, rewards = trainer._collect_rollouts_with_learned_rewards()
        spent["roll-out and reward"].append(clock.cpu)
        with Clock() as clock:
            trainer.algorithm.update(rollout, rewards.total, trainer.generator)
        spent["learning"].append(clock.cpu)
    with FlopCounterMode(display=False) as counter:
        rollout, rewards = trainer._collect_rollouts_with_learned_rewards()
        trainer.algorithm.update(rollout, rewards.total, trainer.generator)
    least = counter.get_total_flops() / matrix_rate()
    total = sum(min(values) for values in spent.values())
    for name, values in spent.items():
        print(f"  {name:22s}{1000 * min(values):8.1f} ms of an update of {rollout.steps} steps")
    print(
        f"  matrix products: {counter.get_total_flops() / 1e9:.2f} GFLOP, at the measured "
        f"{matrix_rate() / 1e9:.0f} GFLOP/s {1000 * least:.1f} ms = {least / total:.0%} of it"
    )


def run(
    items: Sequence[Item], reward: RewardSource, steps: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    contenders: dict[str, Callable[[int], tuple[Clock, float]]] = {
        "default": lambda seed: theirs(items, reward, steps, seed, 1, 64),
        "best": lambda seed: theirs(items, reward, steps, seed, 8, 512),
        "ours": lambda seed: ours(items, reward, steps, seed),
    }
    found: dict[str, dict[str, list[float]]] = {
        name: {"cpu": [], "wall": [], "return": []} for name in contenders
    }
    for seed in range(rounds):
        for name, train in contenders.items():
            clock, earned = train(seed)
            done = getattr(clock, "steps", steps)
            found[name]["cpu"].append(done / clock.cpu)
            found[name]["wall"].append(done / clock.wall)
            found[name]["return"].append(earned)
            print(f"  round {seed}: {name:8s}{done / clock.cpu:8.0f} steps/s", flush=True)
    return found


def report(kind: str, found: dict[str, dict[str, list[float]]]) -> None:
    print(f"{kind} reward{'':10s}steps/s (CPU)  steps/s (wall)  dense return, per round")
    for name, values in found.items():
        middle = {key: statistics.median(values[key]) for key in ("cpu", "wall")}
        earned = " ".join(f"{value:.3f}" for value in values["return"])
        print(f"  {name:20s}{middle['cpu']:14.0f}{middle['wall']:16.0f}  {earned}")
    for name, bar in BARS[kind].items():
        each = [
            [a / b for a, b in zip(found["ours"][key], found[name][key], strict=True)]
            for key in ("cpu", "wall")
        ]
        print(
            f"ours / {name}: {statistics.median(each[0]):.1f}x by CPU time, "
            f"{statistics.median(each[1]):.1f}x by wall time (bar {bar:g}x)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="folder with train/ (default: synthetic)")
    parser.add_argument("--reward_model", help='also with this reward checkpoint, or "default"')
    parser.add_argument("--steps", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="stable_baselines3")
    logging.getLogger("rlhf_core").setLevel(logging.ERROR)
    if args.data_dir is None:
        items: list[Item] = [item(seed) for seed in range(SYNTHETIC)]
    else:
        items = load_items(args.data_dir, None, "train")
    print(f"{len(items)} passages, {args.steps} steps, {EPOCHS} epochs, {args.rounds} rounds")
    for kind, model in (("dense", None), ("learned", args.reward_model)):
        if kind == "dense" or model is not None:
            reward = reward_source(model, items)
            report(kind, run(items, reward, args.steps, args.rounds))
            with tempfile.TemporaryDirectory() as folder:
                budget(items, reward, Path(folder))


if __name__ == "__main__":
    main()
