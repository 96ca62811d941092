"""How near reward-model training comes to the machine's own matrix-product rate, and fit times.

    python benchmarks/reward_training.py [--threads 1] [--seconds 8]

Trains the shipped architecture on made-up windows (no songs needed) in fp32 and, where the CPU
multiplies bfloat16 natively, in bf16; counts floating-point operations of forward and backward
passes (`torch.utils.flop_counter`) and prints the rate as a share of plain fp32 and bf16 matrix
products timed in the same run, in turn with the training. Rates are per second of the process's own
CPU time, so that other work on the machine counts as little as it can. Then what batches of like
lengths save, and the time of a fit to 200 simulated votes from embeddings in memory. Target:
>= 60 % of the fp32 product rate, more than that in bf16, a fit in under 5 s.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.devices import native_bf16
from rlhf_core.reward.descriptors import TARGET_NAMES
from rlhf_core.reward.model import RewardModelConfig
from rlhf_core.reward.posterior import HeadPrior, Votes, fit_head
from rlhf_core.reward.pretraining import family
from rlhf_core.reward.synthetic import GROUP, SyntheticEdits, make_edits
from rlhf_core.reward.trunk import (
    PretrainingSettings,
    Standard,
    Trunk,
    batches,
    gradient,
)
from rlhf_core.types import AudioState, BeatGrid

WINDOWS_PER_STEP = 3
WARM_UP = 3
Shape = tuple[int, ...]


def forward_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Operations of attention; the counter knows its GPU kernels only, the CPU's does the same."""
    return int(flop_counter.sdpa_flop_count(query, key, value))


def backward_flops(grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(flop_counter.sdpa_backward_flop_count(grad, query, key, value))


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward_flops,
}


def made_up_song(seed: int, n_beats: int = 200) -> AudioState:
    """Beats of noise: enough for timing, nothing to learn."""
    rng = np.random.default_rng(seed)
    times = np.arange(n_beats + 1) * 0.5
    features = rng.normal(size=(n_beats, BEAT_FEATURES)).astype(np.float32)
    grid = BeatGrid(times, np.arange(n_beats) % 4, 120.0, source="known")
    return AudioState(f"synthetic{seed}", grid, features)


def products(dtype: torch.dtype, size: int = 1024, count: int = 4) -> float:
    """Floating-point operations per second of square matrix products."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    a @ b
    started = time.process_time()
    for _ in range(count):
        a @ b
    return 2 * size**3 * count / (time.process_time() - started)


class Training:
    """Steps of pretraining that can be counted and timed."""

    def __init__(self, edits: SyntheticEdits, bf16: bool) -> None:
        rng = np.random.default_rng(0)
        standard = Standard(edits.attributes, family(rng))
        torch.manual_seed(0)
        self.edits, self.want = edits, standard.targets(edits.attributes)
        tastes = self.want.tastes.shape[-1]
        self.trunk = Trunk(RewardModelConfig(), len(TARGET_NAMES), tastes)
        self.trunk.model.normaliser.fit(edits.windows.features, edits.windows.valid)
        self.settings = PretrainingSettings(steps=1, time_limit=None, bf16=bf16)
        self.optimiser = torch.optim.AdamW(self.trunk.parameters(), 1e-4, fused=True)

    def step(self, index: torch.Tensor) -> None:
        gradient(self.trunk, self.edits, self.want, self.settings, index)
        torch.nn.utils.clip_grad_norm_(self.trunk.parameters(), 1.0)
        self.optimiser.step()

    def work(self, index: torch.Tensor) -> int:
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
            gradient(self.trunk, self.edits, self.want, self.settings, index)
        return int(counter.get_total_flops())


def rates(
    training: Training, queue: list[torch.Tensor], dtype: torch.dtype, seconds: float
) -> None:
    """Training and plain products in turn, so that other work on the machine hits both alike."""
    for index in queue[:WARM_UP]:
        training.step(index)
    shares, speed, spent, step = [], [], 0.0, 0
    while spent < seconds or len(shares) < 5:
        index = queue[step % len(queue)]
        fp32, own = products(torch.float32), products(dtype)
        started = time.process_time()
        training.step(index)
        took = time.process_time() - started
        done = training.work(index) / took
        shares.append((done / fp32, done / own))
        speed.append((done, len(index) * GROUP / took))
        spent, step = spent + took, step + 1
    fp32_share, own_share = np.median(np.array(shares), axis=0)
    rate, edits = np.median(np.array(speed), axis=0)
    print(
        f"{str(dtype)[6:]}: {rate / 1e9:.1f} GFLOP/s, {edits:.0f} edits/s, {fp32_share:.0%} of the "
        f"fp32 product rate, {own_share:.0%} of its own; median of {len(shares)} steps"
    )


def bucketing(edits: SyntheticEdits) -> None:
    """Share of beats computed that are padding, in batches of like lengths and at random."""

    def waste(parts: list[torch.Tensor]) -> float:
        lengths = [edits.windows.lengths[part] for part in parts]
        computed = sum(int(part.max()) * len(part) for part in lengths)
        return 1 - sum(int(part.sum()) for part in lengths) / computed

    generator = torch.Generator().manual_seed(0)
    like = batches(edits.windows.lengths, WINDOWS_PER_STEP, generator)
    mixed = torch.randperm(len(edits), generator=generator).split(WINDOWS_PER_STEP)
    print(f"padding: {waste(like):.1%} in batches of like lengths, {waste(list(mixed)):.1%} mixed")


def fit_time(votes: int = 200, width: int = 192) -> float:
    """Seconds of one fit of the head to simulated votes."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(votes, width)), rng.normal(size=width) / 10
    data = Votes(
        x,
        np.where(rng.random(votes) < 1 / (1 + np.exp(-x @ w)), 1, -1),
        np.ones(votes),
        np.zeros(votes, dtype=np.int64),
        np.ones(votes),
    )
    started = time.perf_counter()
    tastes, directions = rng.normal(size=(192, width)), rng.normal(size=(101, width)) / width**0.5
    fit_head(data, HeadPrior.build(tastes, np.eye(width), directions))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="of training, per precision")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    edits = make_edits([made_up_song(i) for i in range(4)], 60, np.random.default_rng(0))
    queue = batches(edits.windows.lengths, WINDOWS_PER_STEP, torch.Generator().manual_seed(0))
    rates(Training(edits, False), queue, torch.float32, args.seconds)
    if native_bf16():
        rates(Training(edits, True), queue, torch.bfloat16, args.seconds)
    else:
        print("bfloat16: this CPU does not multiply it natively; not used")
    bucketing(edits)
    print(f"200 votes fitted in {fit_time():.2f} s (limit 5 s)")


if __name__ == "__main__":
    main()
