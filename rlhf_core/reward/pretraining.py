"""The bootstrap: a reward model that knows what edits are, before anybody has voted.

    python -m rlhf_core.reward.pretraining --data_dir training_data --output_dir .

trains the trunk on synthetic edits of the songs (see `synthetic`), to predict objective attributes
of each edit and the votes of a family of random tastes on pairs of edits (see `tastes`). Nobody's
taste is in it: the checkpoint is labelled synthetic. What it leaves behind:

- the trunk: embeddings in which a taste is a direction, so that a few hundred votes are enough;
- the prior over the head: the spread of the family's directions;
- a head to begin with, that of `GENERIC_TASTE`: clean joins that keep the bar, about as much kept
  as synthetic edits keep on average, nothing odd. It is stated, not learned, and gives a usable
  reward before the first vote; its uncertainty is that of a prior whose typical pair is half as
  far apart as its own;
- reference edits, from which mu and sigma of every later version come.

With --steps the result depends on the seed alone; with a time limit also on the machine's speed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from rlhf_core.audio.library import load_library
from rlhf_core.checkpoints import lineage
from rlhf_core.editing.attributes import ATTRIBUTE_NAMES
from rlhf_core.errors import ConfigError, CoreError, DataError
from rlhf_core.files import set_aside
from rlhf_core.reward.checkpoint import Reference, RewardCheckpoint, spread_within
from rlhf_core.reward.learned_reward_integration import DEFAULT_CHECKPOINT
from rlhf_core.reward.model import LearnedRewardModel, RewardModelConfig
from rlhf_core.reward.posterior import HeadPrior
from rlhf_core.reward.synthetic import GROUP, Progress, SyntheticEdits, make_edits
from rlhf_core.reward.tastes import TasteFamily, draw_tastes, joined, stated_taste
from rlhf_core.runs import RunFolder, running
from rlhf_core.types import AudioState, DoubleArray

PAIRS_PER_WINDOW: Final = GROUP  # each edit against the next, round the group
N_TASTES: Final = 192
PRIOR_SHARE: Final = 0.2  # isotropic part of the bootstrap's own covariance
# A stated taste over standardised attributes, not learned from anybody.
GENERIC_TASTE: Final[dict[str, float]] = {
    "worst_join": -0.6,
    "join_discontinuity": -0.3,
    "joins": -0.4,
    "joins_in_metre": 0.3,
    "whole_bars": 0.6,
    "whole_phrases": 0.3,
    "reverses": -0.6,
    "repetition": -0.4,
    "fades": -0.3,
    "swapped_bars": -0.2,
}
GENERIC_NEAR_MEAN: Final[dict[str, float]] = {"keep_ratio": 0.8}


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


def split_songs(
    states: Sequence[AudioState], rng: np.random.Generator
) -> tuple[list[AudioState], list[AudioState], str]:
    """Songs to train on, songs to measure on (a fifth, at least one), and a note that says which.

    A single song is both: then the figures say nothing about other songs, and the note says so.
    """
    if len(states) == 1:
        return list(states), list(states), "other edits of the one training song"
    order = rng.permutation(len(states))
    count = max(1, len(states) // 5)
    held = [states[i] for i in order[:count]]
    return [states[i] for i in order[count:]], held, f"{count} songs not trained on"


def finish(trunk: Trunk, reference_edits: SyntheticEdits, standard: Standard) -> dict[str, Any]:
    """Prior, posterior and frozen reward scales from the trained trunk."""
    phi = embed_edits(trunk.model, reference_edits)
    window = torch.arange(len(reference_edits)).repeat_interleave(GROUP)
    dense = spread_within(reference_edits.dense.flatten().numpy(), window.numpy())
    reference = Reference(phi.flatten(0, 1), window, *dense)
    tastes: DoubleArray = trunk.taste_head.weight.detach().double().numpy()
    pairs = reference.pair_covariance()
    prior = HeadPrior.build(tastes[1:], pairs)
    mean = tastes[0]
    spread = (1 - PRIOR_SHARE) * prior.family + PRIOR_SHARE * prior.isotropic
    covariance = 0.25 * float(mean @ pairs @ mean) * spread
    trunk.model.head.weight.data.copy_(torch.from_numpy(mean)[None])
    mu, sigma = reference.scale_of(torch.from_numpy(mean))
    return {
        "mean": torch.from_numpy(mean.copy()),
        "covariance": torch.from_numpy(covariance),
        "prior": prior,
        "reference": reference,
        "mu": mu,
        "sigma": sigma,
        "attributes": {
            "names": list(ATTRIBUTE_NAMES),
            "mean": standard.mean.tolist(),
            "std": standard.std.tolist(),
        },
    }


def bootstrap(
    states: Sequence[AudioState],
    out_path: Path,
    settings: PretrainingSettings | None = None,
    *,
    config: RewardModelConfig | None = None,
    report: Progress = lambda done, message: None,
) -> dict[str, Any]:
    """Pretrain on synthetic edits of the songs, save the checkpoint, return its metrics.

    Raises DataError without a song. What stands at out_path is renamed.
    """
    if not states:
        raise DataError("pretraining needs at least one song")
    settings = settings or PretrainingSettings(bf16=native_bf16())
    started = time.monotonic()
    # The end (measuring, reference edits, saving) takes a few seconds of the limit, too.
    limit = settings.time_limit
    deadline = None if limit is None else started + max(0.9 * limit - 3, 0.5 * limit)
    rng = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    fit_songs, held_songs, note = split_songs(states, rng)
    n_windows = math.ceil(settings.pairs / PAIRS_PER_WINDOW)
    edits = make_edits(fit_songs, n_windows, rng, lambda done, text: report(0.2 * done, text))
    held = make_edits(held_songs, settings.held_out_windows, rng)
    reference_edits = make_edits(states, settings.reference_windows, rng)
    family = joined(
        stated_taste(ATTRIBUTE_NAMES, GENERIC_TASTE, GENERIC_NEAR_MEAN),
        draw_tastes(N_TASTES, len(ATTRIBUTE_NAMES), rng),
    )
    standard = Standard(edits.attributes, family)
    trunk = Trunk(config or RewardModelConfig(), len(ATTRIBUTE_NAMES), N_TASTES + 1)
    trunk.model.normaliser.fit(edits.windows.features, edits.windows.valid)
    steps = train(
        trunk,
        edits,
        standard.targets(edits.attributes),
        settings,
        deadline,
        lambda done, text: report(0.2 + 0.7 * done, text),
    )
    if not steps:
        raise ConfigError(
            f"a time limit of {limit} s left no time for training after the edits were drawn: "
            "raise --time_limit, or give fewer --pairs"
        )
    trunk.eval()
    metrics = {
        "evaluated_on": note,
        "pairs": n_windows * PAIRS_PER_WINDOW,
        "steps": steps,
        "n_songs": len(states),
        "generic_taste": {"likes": GENERIC_TASTE, "near_mean": GENERIC_NEAR_MEAN},
        **measure(trunk, held, standard.targets(held.attributes)),
    }
    metrics["seconds"] = time.monotonic() - started
    made = RewardCheckpoint(
        model=trunk.model,
        metrics=metrics,
        lineage=lineage(seed=settings.seed, synthetic=True, settings=asdict(settings)),
        **finish(trunk, reference_edits, standard),
    )
    set_aside(out_path)
    made.save(out_path)
    report(1.0, f"saved {out_path}")
    return metrics


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m rlhf_core.reward.pretraining",
        description="Make the bootstrap reward model from synthetic edits of your songs. "
        "It knows what edits are, not what anybody likes: votes come after it.",
    )
    result.add_argument("--data_dir", type=Path, required=True, help="folder with train/*.wav …")
    result.add_argument("--cache_dir", type=Path, help="analysed songs (default: DATA_DIR/.cache)")
    result.add_argument(
        "--output_dir", type=Path, default=Path(), help="run folder; models/ goes in"
    )
    result.add_argument("--pairs", type=int, default=5000, help="synthetic pairs (default 5000)")
    result.add_argument("--steps", type=int, help="training steps; default: until the time limit")
    result.add_argument(
        "--time_limit", type=float, default=45.0, help="seconds in all, 0 = none (default 45)"
    )
    result.add_argument("--threads", type=int, help="threads for torch (default: torch's choice)")
    result.add_argument("--seed", type=int, default=0)
    return result


def _run(options: argparse.Namespace) -> None:
    settings = PretrainingSettings(
        pairs=options.pairs,
        steps=options.steps,
        time_limit=options.time_limit or None,
        seed=options.seed,
        bf16=native_bf16(),
    )
    if options.threads:
        torch.set_num_threads(options.threads)
    run = RunFolder(options.output_dir, "bootstrap-reward", asdict(settings))
    with running(run), tqdm(total=100, unit="%", disable=None) as bar:

        def report(done: float, message: str) -> None:
            bar.update(round(100 * done) - bar.n)
            bar.set_postfix_str(message)
            run.progress(done, message)

        songs = load_library(options.data_dir, options.cache_dir)
        path = options.output_dir / DEFAULT_CHECKPOINT
        metrics = bootstrap([song.state for song in songs], path, settings, report=report)
        run.finish({"checkpoint": str(path), "metrics": metrics})
    print(
        f"{path}: attribute R² median {metrics['attribute_r2_median']:.2f}, votes of random tastes "
        f"foreseen {metrics['taste_accuracy']:.0%} ({metrics['evaluated_on']}), "
        f"{metrics['steps']} steps in {metrics['seconds']:.0f} s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    try:
        _run(parser().parse_args(argv))
    except CoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
