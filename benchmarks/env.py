"""Environment steps/s: the batched environment against the single one and against gymnasium's.

    python benchmarks/env.py [--batch 64] [--passages 16] [--rounds 3]

Synthetic passages of 64 beats, random actions, dense reward included, one torch thread. The three
take turns in `rounds` rounds of the same run; ratios are of the medians. A step is one decision
in one passage.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import gymnasium
import numpy as np
import torch

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.editing.env import AudioEditingEnv, BatchedAudioEditingEnv
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.types import AudioState, BeatGrid, Passage

BEATS = 64

Item = tuple[AudioState, Passage]


def item(seed: int) -> Item:
    """A synthetic passage."""
    rng = np.random.default_rng(seed)
    grid = BeatGrid(np.arange(BEATS + 1) * 0.5, np.arange(BEATS) % 4, 120.0, 4)
    features = np.abs(rng.standard_normal((BEATS, BEAT_FEATURES))).astype(np.float32)
    return AudioState(f"synthetic{seed}", grid, features), Passage(0, BEATS)


def batched(items: list[Item]) -> int:
    env = BatchedAudioEditingEnv(PassageBatch.from_passages(items))
    env.reset()
    actions = torch.randint(0, 10, (BEATS, len(items)))
    for beat in range(BEATS):
        env.step(actions[beat])
    return BEATS * len(items)


def single(items: list[Item]) -> int:
    env, rng = AudioEditingEnv(items), np.random.default_rng(0)
    for index in range(len(items)):
        env.reset(options={"item": index})
        for action in rng.integers(0, 10, BEATS):
            env.step(action)
    return BEATS * len(items)


def vector(envs: gymnasium.vector.VectorEnv, count: int) -> int:
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(BEATS):
        envs.step(rng.integers(0, 10, count))
    return BEATS * count


def rate(run: Callable[[], int]) -> float:
    started = time.perf_counter()
    return run() / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64, help="passages in the batched one")
    parser.add_argument("--passages", type=int, default=16, help="in the single and gymnasium's")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    items = [item(seed) for seed in range(args.batch)]
    few = items[: args.passages]
    makers = [lambda i=i: AudioEditingEnv([items[i]]) for i in range(len(few))]
    envs = gymnasium.vector.SyncVectorEnv(makers)
    runs: dict[str, Callable[[], int]] = {
        f"batched, B = {args.batch}": lambda: batched(items),
        "single": lambda: single(few),
        f"gymnasium SyncVectorEnv of {len(few)}": lambda: vector(envs, len(few)),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # warm up
    for _ in range(args.rounds):
        for name, run in runs.items():
            rates[name].append(rate(run))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours = next(iter(medians.values()))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, median of {args.rounds}")
    for name, value in medians.items():
        print(f"{name:36s}{value:10,.0f} steps/s   batched is {ours / value:6.1f} x")


if __name__ == "__main__":
    main()
