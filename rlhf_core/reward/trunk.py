"""The network during pretraining: what it is asked, how wrong it is, how it is trained.

The trunk predicts attributes of synthetic edits and the votes of random tastes; only differences
between edits of one window count, as they do for votes.
Shapes: P windows, G edits each, K attributes, N tastes, D = d_model.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlhf_core.editing.attributes import ATTRIBUTE_NAMES
from rlhf_core.errors import ConfigError
from rlhf_core.reward.checkpoint import spread_within
from rlhf_core.reward.model import LearnedRewardModel, RewardModelConfig
from rlhf_core.reward.synthetic import GROUP, Progress, SyntheticEdits
from rlhf_core.reward.tastes import TasteFamily

PAIRS_PER_WINDOW: Final = GROUP  # each edit against the next, round the group


@dataclass(frozen=True)
class PretrainingSettings:
    """What a bootstrap depends on, saved in its lineage.

    time_limit: seconds in all, or None. bf16: matrix products in bfloat16 (see `native_bf16`).
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


def native_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively: there it is faster, elsewhere far slower."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@dataclass(frozen=True)
class Targets:
    """Standardised attributes (P, G, K) and tastes (P, G, N) of synthetic edits, float32."""

    attributes: Tensor
    tastes: Tensor


class Trunk(nn.Module):
    """The reward model with the heads that exist during pretraining only."""

    def __init__(self, config: RewardModelConfig, n_attributes: int, n_tastes: int) -> None:
        super().__init__()
        self.model = LearnedRewardModel(config)
        self.attribute_head = nn.Linear(config.d_model, n_attributes)
        self.taste_head = nn.Linear(config.d_model, n_tastes, bias=False)


class Standard:
    """Attribute mean and deviation within windows; tastes' deviation within windows."""

    def __init__(self, attributes: Tensor, family: TasteFamily) -> None:
        flat = attributes.flatten(0, 1).numpy()
        window = np.arange(len(attributes)).repeat(attributes.shape[1])
        self.mean = flat.mean(0)
        self.std = np.array([spread_within(column, window)[1] for column in flat.T])
        self.std[self.std < 1e-9] = 1.0  # an attribute that never varies says nothing
        self.family = family
        scores = family.scores((flat - self.mean) / self.std)
        self.taste_std = np.array([spread_within(column, window)[1] for column in scores.T])
        self.taste_std[self.taste_std < 1e-9] = 1.0

    def targets(self, attributes: Tensor) -> Targets:
        standard = (attributes.flatten(0, 1).numpy() - self.mean) / self.std
        tastes = self.family.scores(standard) / self.taste_std
        return Targets(
            *(
                torch.from_numpy(x).float().view(*attributes.shape[:2], -1)
                for x in (np.clip(standard, -8, 8), tastes)
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
    regression = F.smooth_l1_loss(within, torch.zeros_like(within))
    regression = regression + absolute * F.smooth_l1_loss(off, torch.zeros_like(off))
    votes = torch.sigmoid(against_next(want.tastes))
    logits = against_next(trunk.taste_head(phi))
    return regression + F.binary_cross_entropy_with_logits(logits, votes)


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
) -> int:
    """Train until the steps are done or the deadline (time.monotonic) has come; returns steps."""
    generator = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(
        trunk.parameters(), settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    started, step, queue = time.monotonic(), 0, list[Tensor]()
    while True:
        done = 0.0 if settings.steps is None else step / settings.steps
        if deadline is not None:
            done = max(done, (time.monotonic() - started) / max(deadline - started, 1e-3))
        if done >= 1:
            return step
        rate = min(1.0, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (0.02 + 0.98 * rate)
        queue = queue or batches(edits.windows.lengths, settings.windows_per_step, generator)
        index = queue.pop()
        picked = Targets(want.attributes[index], want.tastes[index])
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            phi = trunk.model.embed(*edits.inputs(index)).view(len(index), GROUP, -1)
        loss = loss_of(trunk, phi.float(), picked, settings.absolute_weight)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trunk.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 5 == 0:
            report(min(done, 1.0), f"step {step}, loss {float(loss.detach()):.3f}")


def embed_edits(model: LearnedRewardModel, edits: SyntheticEdits, size: int = 16) -> Tensor:
    """Embeddings (P, G, D) of all synthetic edits."""
    parts = []
    with torch.no_grad():
        for index in torch.split(torch.arange(len(edits)), size):
            parts.append(model.embed(*edits.inputs(index)).view(len(index), GROUP, -1))
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
    r2 = {
        name: float(1 - rest[i] / total[i]) if total[i] > 0 else None
        for i, name in enumerate(ATTRIBUTE_NAMES)
    }
    known = sorted(value for value in r2.values() if value is not None)
    right = (against_next(tastes) > 0) == (against_next(want.tastes) > 0)
    return {
        "attribute_r2": r2,
        "attribute_r2_median": float(np.median(known)) if known else None,
        "attribute_r2_worst": known[0] if known else None,
        "taste_accuracy": float(right.float().mean()),
        "generic_taste_accuracy": float(right[..., 0].float().mean()),
    }
