"""The network during pretraining: what it is asked, how wrong it is, how it is trained.

The trunk predicts attributes of synthetic edits and the votes of random tastes; only differences
between edits of one window count, as they do for votes.
Shapes: P windows, G edits each, K attributes, N tastes, D = width of phi.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlhf_core.errors import ConfigError
from rlhf_core.reward.checkpoint import spread_within
from rlhf_core.reward.descriptors import TARGET_NAMES
from rlhf_core.reward.model import LearnedRewardModel, RewardModelConfig
from rlhf_core.reward.parallel import average_gradients, share_of, world
from rlhf_core.reward.resuming import Course, Keeper
from rlhf_core.reward.synthetic import GROUP, Progress, SyntheticEdits
from rlhf_core.reward.tastes import LIMIT, TasteFamily
from rlhf_core.types import DoubleArray

BENDS: Final = (-1.0, 0.0, 1.0)  # "neither too much nor too little" of an attribute
BEND_WEIGHT: Final = 0.3
PAIRS_PER_WINDOW: Final = GROUP  # each edit against the next, round the group


@dataclass(frozen=True)
class PretrainingSettings:
    """What a bootstrap depends on, saved in its lineage.

    time_limit: seconds in all, or None. bf16: matrix products in bfloat16 (`devices.native_bf16`).
    """

    pairs: int = 5000
    steps: int | None = None
    time_limit: float | None = 45.0
    seed: int = 0
    windows_per_step: int = 3
    learning_rate: float = 3e-3
    absolute_weight: float = 0.05
    bf16: bool = False
    reference_windows: int = 96
    held_out_windows: int = 48

    def __post_init__(self) -> None:
        if self.pairs < PAIRS_PER_WINDOW or self.windows_per_step < 1:
            raise ConfigError(f"pretraining needs at least {PAIRS_PER_WINDOW} pairs, got {self}")
        if self.steps is None and self.time_limit is None:
            raise ConfigError("give a number of steps, a time limit, or both")


@dataclass(frozen=True)
class Targets:
    """Of synthetic edits, float32: standardised attributes and their bends (P, G, K + 3 K) in that
    order (see `with_bends`), and tastes (P, G, N).
    """

    attributes: Tensor
    tastes: Tensor

    def to(self, device: str) -> Targets:
        return Targets(self.attributes.to(device), self.tastes.to(device))


def with_bends(standard: DoubleArray) -> DoubleArray:
    """Standardised attributes (E, K), then |x - c| for each of `BENDS` in turn: (E, K + 3 K)."""
    return np.concatenate([standard, *(np.abs(standard - c) for c in BENDS)], axis=1)


class Trunk(nn.Module):
    """The reward model with the heads that exist during pretraining only."""

    def __init__(self, config: RewardModelConfig, n_attributes: int, n_tastes: int) -> None:
        super().__init__()
        self.model = LearnedRewardModel(config)
        n_targets = n_attributes * (1 + len(BENDS))
        self.attribute_head = nn.Linear(config.embedding, n_targets)
        self.taste_head = nn.Linear(config.embedding, n_tastes, bias=False)


class Standard:
    """Attribute mean and deviation within windows; tastes' deviation within windows."""

    def __init__(self, attributes: Tensor, family: TasteFamily) -> None:
        flat = attributes.flatten(0, 1).numpy()
        window = np.arange(len(attributes)).repeat(attributes.shape[1])
        self.mean = flat.mean(0)
        self.std = np.array([spread_within(column, window)[1] for column in flat.T])
        self.std[self.std < 1e-9] = 1.0  # an attribute that never varies says nothing
        self.family = family
        bends = with_bends(self.standardise(flat))[:, len(self.std) :]
        self.bend_std = np.array([spread_within(column, window)[1] for column in bends.T])
        self.bend_std[self.bend_std < 1e-2] = 1.0
        scores = family.scores((flat - self.mean) / self.std)
        self.taste_std = np.array([spread_within(column, window)[1] for column in scores.T])
        self.taste_std[self.taste_std < 1e-9] = 1.0

    def standardise(self, flat: DoubleArray) -> DoubleArray:
        return np.asarray(np.clip((flat - self.mean) / self.std, -LIMIT, LIMIT))

    def targets(self, attributes: Tensor) -> Targets:
        standard = self.standardise(attributes.flatten(0, 1).numpy())
        tastes = self.family.scores(standard) / self.taste_std
        everything = with_bends(standard)
        everything[:, len(self.std) :] /= self.bend_std
        return Targets(
            *(
                torch.from_numpy(x).float().view(*attributes.shape[:2], -1)
                for x in (everything, tastes)
            )
        )


def against_next(scores: Tensor) -> Tensor:
    """Score of each edit less that of the next in its group. Shape: (P, G, N) -> (P, G, N)."""
    return scores - scores.roll(-1, dims=1)


def loss_of(trunk: Trunk, phi: Tensor, want: Targets, absolute: float) -> Tensor:
    """Attribute error between edits of a window (and a little in absolute terms), and the
    cross-entropy of every taste's votes on the pairs (Bradley-Terry, soft labels).
    """
    off = trunk.attribute_head(phi) - want.attributes
    within = off - off.mean(1, keepdim=True)
    plain = off.shape[-1] // (1 + len(BENDS))
    regression = _size(within[..., :plain]) + BEND_WEIGHT * _size(within[..., plain:])
    regression = regression + absolute * _size(off[..., :plain])
    votes = torch.sigmoid(against_next(want.tastes))
    logits = against_next(trunk.taste_head(phi))
    return regression + F.binary_cross_entropy_with_logits(logits, votes)


def _size(off: Tensor) -> Tensor:
    return F.smooth_l1_loss(off, torch.zeros_like(off))


def batches(lengths: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """All windows once, in batches of like lengths, in random order."""
    order = torch.randperm(len(lengths), generator=generator)
    order = order[torch.argsort(lengths[order], stable=True)]
    parts = list(torch.split(order, size))
    return [parts[i] for i in torch.randperm(len(parts), generator=generator).tolist()]


def train(
    trunk: Trunk,
    edits: SyntheticEdits,
    want: Targets,
    settings: PretrainingSettings,
    deadline: float | None,
    report: Progress,
    keeper: Keeper | None = None,
) -> int:
    """Train until the steps are done or the deadline (time.monotonic) has come; returns steps.

    All on the device that the trunk is on. keeper: goes on where an earlier run was, and writes
    down how far this one is. In a process group (see `parallel`) each process takes
    `windows_per_step` windows of a batch.
    """
    if world()[1] > 1 and deadline is not None:
        raise ConfigError("several processes need --steps and --time_limit 0: clocks differ")
    generator = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(
        trunk.parameters(), settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    course = Course(limit=None if deadline is None else max(deadline - time.monotonic(), 1e-3))
    if keeper is not None:
        kept = keeper.take_up(trunk, optimiser, generator)
        course = kept if kept.step else course
    started = time.monotonic() - course.seconds
    while True:
        course.seconds = time.monotonic() - started
        done = 0.0 if settings.steps is None else course.step / settings.steps
        if course.limit is not None:
            done = max(done, course.seconds / course.limit)
        if done >= 1:
            return course.step
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * rate(course.step, done)
        size = settings.windows_per_step * world()[1]
        course.queue = course.queue or batches(edits.windows.lengths.cpu(), size, generator)
        loss = gradient(trunk, edits, want, settings, course.queue.pop())
        nn.utils.clip_grad_norm_(trunk.parameters(), 1.0)
        optimiser.step()
        course.step += 1
        if course.step % 5 == 0:
            report(min(done, 1.0), f"step {course.step}, loss {loss:.3f}")
        if keeper is not None:
            keeper.keep(course, trunk, optimiser, generator)


def rate(step: int, done: float) -> float:
    """Share of the learning rate at a step, when this share of the training is done."""
    return 0.02 + 0.98 * min(1.0, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * done))


def gradient(
    trunk: Trunk,
    edits: SyntheticEdits,
    want: Targets,
    settings: PretrainingSettings,
    index: Tensor,
) -> float:
    """Leave the gradient of the windows' mean loss in the trunk; returns this process's part."""
    trunk.zero_grad()
    device = trunk.taste_head.weight.device
    mine, weight = share_of(index)
    loss = torch.zeros(())
    if len(mine):
        picked = Targets(want.attributes[mine], want.tastes[mine])
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
            phi = trunk.model.embed(*edits.inputs(mine), GROUP).view(len(mine), GROUP, -1)
        loss = weight * loss_of(trunk, phi.float(), picked, settings.absolute_weight)
        loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(trunk.parameters())
    return float(loss.detach())


def embed_edits(model: LearnedRewardModel, edits: SyntheticEdits, size: int = 16) -> Tensor:
    """Embeddings (P, G, D) of all synthetic edits."""
    return _of_all(model.embed, edits, size)


def pool_edits(model: LearnedRewardModel, edits: SyntheticEdits, size: int = 16) -> Tensor:
    """`LearnedRewardModel.pool` (P, G, W) of all synthetic edits."""
    return _of_all(model.pool, edits, size)


def _of_all(view: Callable[..., Tensor], edits: SyntheticEdits, size: int) -> Tensor:
    parts = []
    with torch.no_grad():
        for index in torch.split(torch.arange(len(edits)), size):
            parts.append(view(*edits.inputs(index), GROUP).view(len(index), GROUP, -1))
    return torch.cat(parts)


def measure(trunk: Trunk, edits: SyntheticEdits, want: Targets) -> dict[str, Any]:
    """R² of each attribute between edits of a window, and the share of taste votes foreseen."""
    with torch.no_grad():
        phi = embed_edits(trunk.model, edits)
        guess, tastes = trunk.attribute_head(phi), trunk.taste_head(phi)

    def centred(x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)

    rest = centred(guess - want.attributes).square().sum((0, 1))
    total = centred(want.attributes).square().sum((0, 1))
    r2 = [float(1 - rest[i] / total[i]) if total[i] > 0 else None for i in range(len(total))]
    plain = dict(zip(TARGET_NAMES, r2, strict=False))
    known = sorted(value for value in plain.values() if value is not None)
    bends = [value for value in r2[len(plain) :] if value is not None]
    right = (against_next(tastes) > 0) == (against_next(want.tastes) > 0)
    return {
        "attribute_r2": plain,
        "attribute_r2_median": float(np.median(known)) if known else None,
        "attribute_r2_worst": known[0] if known else None,
        "bend_r2_median": float(np.median(bends)) if bends else None,
        "taste_accuracy": float(right.float().mean()),
        "generic_taste_accuracy": float(right[..., 0].float().mean()),
    }
