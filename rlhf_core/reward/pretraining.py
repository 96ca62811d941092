"""The bootstrap: a reward model that knows what edits are, before anybody has voted.

    python -m rlhf_core.reward.pretraining --data_dir training_data --output_dir .

trains the trunk on synthetic edits of the songs (see `synthetic`; --demo_songs 40 puts synthesised
songs beside them), to predict objective attributes
of each edit and the votes of a family of random tastes on pairs of edits (see `tastes`). Nobody's
taste is in it: the checkpoint is labelled synthetic. What it leaves behind:

- the trunk: embeddings in which a taste is a direction, so that a few hundred votes are enough;
- the prior over the head: the spread of the family's directions, and where each plain statistic
  lies in phi (`directions`): a person's taste is expected to be about a few of them;
- a head to begin with, that of `GENERIC_TASTE`: clean joins that keep the bar, about as much kept
  as synthetic edits keep on average, nothing odd. It is stated, not learned, and gives a usable
  reward before the first vote; its uncertainty is that of a prior whose typical pair is half as
  far apart as its own;
- reference edits, from which mu and sigma of every later version come.

With --steps the result depends on the seed alone; with a time limit also on the machine's speed.
Where it is stopped, the same command goes on from the last step that was kept (see `resuming`), to
the same result. On several processes:

    torchrun --nproc_per_node 2 -m rlhf_core.reward.pretraining --steps 1000 --time_limit 0 …
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from rlhf_core.checkpoints import lineage
from rlhf_core.command_line import guarded
from rlhf_core.devices import (
    advising,
    backend,
    check_device,
    native_bf16,
    own_device,
    use_threads,
)
from rlhf_core.editing.attributes import ATTRIBUTE_NAMES
from rlhf_core.errors import ConfigError, DataError
from rlhf_core.files import set_aside
from rlhf_core.reward.checkpoint import Reference, RewardCheckpoint, spread_within
from rlhf_core.reward.descriptors import TARGET_NAMES
from rlhf_core.reward.directions import directions_of
from rlhf_core.reward.learned_reward_integration import DEFAULT_CHECKPOINT
from rlhf_core.reward.model import RewardModelConfig
from rlhf_core.reward.own_library import songs_with_demo
from rlhf_core.reward.parallel import process_group, world
from rlhf_core.reward.posterior import HeadPrior
from rlhf_core.reward.resuming import EVERY, Keeper, identity_of
from rlhf_core.reward.synthetic import GROUP, Progress, SyntheticEdits, make_edits
from rlhf_core.reward.tastes import TasteFamily, draw_tastes, joined, stated_taste
from rlhf_core.reward.trunk import (
    PAIRS_PER_WINDOW,
    PretrainingSettings,
    Standard,
    Trunk,
    measure,
    pool_edits,
    train,
)
from rlhf_core.runs import RunFolder, running
from rlhf_core.types import AudioState, DoubleArray

PROGRESS: Final = "bootstrap_progress.pt"  # beside the checkpoint, while it is in the making
OUT_OF_MEMORY: Final = (
    "Lower --windows_per_step, or use --device cpu: it takes a few minutes on two cores."
)
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


def finish(
    trunk: Trunk, edits: SyntheticEdits, reference_edits: SyntheticEdits, standard: Standard
) -> dict[str, Any]:
    """Prior, posterior and frozen reward scales from the trunk as trained on `edits`."""
    pool = pool_edits(trunk.model, reference_edits).flatten(0, 1)
    with torch.no_grad():
        phi = trunk.model.mix(pool)
    window = torch.arange(len(reference_edits)).repeat_interleave(GROUP)
    dense = spread_within(reference_edits.dense.flatten().numpy(), window.numpy())
    reference = Reference(phi, window, *dense, pool)
    tastes: DoubleArray = trunk.taste_head.weight.detach().double().numpy()
    pairs = reference.pair_covariance()
    plain = standard.standardise(edits.attributes.flatten(0, 1).numpy())
    directions = directions_of(trunk.model, edits, plain.reshape(len(edits), GROUP, -1))
    prior = HeadPrior.build(tastes[1:], pairs, directions)
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
            "names": list(TARGET_NAMES),
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
    device: str = "cpu",
    keep_every: int = EVERY,
    resume: bool | None = None,
) -> dict[str, Any]:
    """Pretrain on synthetic edits of the songs, save the checkpoint, return its metrics.

    How far it is, is kept beside out_path every `keep_every` steps; for resume see `Keeper`.
    Raises DataError without a song. What stands at out_path is renamed.
    """
    if not states:
        raise DataError("pretraining needs at least one song")
    settings = settings or PretrainingSettings(bf16=native_bf16(device))
    config = config or RewardModelConfig()
    keeper = Keeper(
        out_path.parent / PROGRESS, identity_of(settings, config, states), keep_every, resume
    )
    started = time.monotonic()
    rng = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    fit_songs, held_songs, note = split_songs(states, rng)
    n_windows = math.ceil(settings.pairs / PAIRS_PER_WINDOW)
    edits = make_edits(fit_songs, n_windows, rng, lambda done, text: report(0.2 * done, text))
    held = make_edits(held_songs, settings.held_out_windows, rng)
    reference_edits = make_edits(states, settings.reference_windows, rng)
    standard = Standard(edits.attributes, family(rng))
    trunk = Trunk(config, len(TARGET_NAMES), N_TASTES + 1).to(device)
    steps = _train(trunk, edits.to(device), standard, settings, started, report, keeper)
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
        **finish(trunk, edits, reference_edits, standard),
    )
    if world()[0] == 0:
        set_aside(out_path)
        made.save(out_path)
    keeper.done()
    report(1.0, f"saved {out_path}")
    return metrics


def family(rng: np.random.Generator) -> TasteFamily:
    """The stated generic taste first, then `N_TASTES` random ones."""
    generic = stated_taste(TARGET_NAMES, GENERIC_TASTE, GENERIC_NEAR_MEAN)
    return joined(generic, draw_tastes(N_TASTES, len(TARGET_NAMES), rng, len(ATTRIBUTE_NAMES)))


def _train(
    trunk: Trunk,
    edits: SyntheticEdits,
    standard: Standard,
    settings: PretrainingSettings,
    started: float,
    report: Progress,
    keeper: Keeper,
) -> int:
    """Train within what is left of the time limit; returns the steps done."""
    # The end (measuring, reference edits, saving) takes a few seconds of the limit, too.
    limit = settings.time_limit
    deadline = None if limit is None else started + max(0.9 * limit - 3, 0.5 * limit)
    trunk.model.normaliser.fit(edits.windows.features, edits.windows.valid)
    targets = standard.targets(edits.attributes).to(str(trunk.model.normaliser.mean.device))
    steps = train(
        trunk,
        edits,
        targets,
        settings,
        deadline,
        lambda done, text: report(0.2 + 0.7 * done, text),
        keeper,
    )
    if not steps:
        raise ConfigError(
            f"a time limit of {limit} s left no time for training after the edits were drawn: "
            "raise --time_limit, or give fewer --pairs"
        )
    trunk.cpu().eval()
    return steps


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
    result.add_argument(
        "--demo_songs",
        type=int,
        default=0,
        help="so many synthesised songs beside your own: with few songs, many teach the trunk more "
        "(default 0; the shipped bootstrap is of 40)",
    )
    result.add_argument("--pairs", type=int, default=5000, help="synthetic pairs (default 5000)")
    result.add_argument("--steps", type=int, help="training steps; default: until the time limit")
    result.add_argument(
        "--time_limit", type=float, default=45.0, help="seconds in all, 0 = none (default 45)"
    )
    default = PretrainingSettings.windows_per_step
    result.add_argument(
        "--windows_per_step",
        type=int,
        default=default,
        help=f"batch size, {GROUP} edits each (default {default})",
    )
    result.add_argument("--threads", type=int, help="threads for torch (default: torch's choice)")
    result.add_argument("--device", default="cpu", help="cpu, cuda or cuda:0 (default cpu)")
    result.add_argument("--seed", type=int, default=0)
    result.add_argument(
        "--keep_every", type=int, default=EVERY, help=f"steps between savings (default {EVERY})"
    )
    how = result.add_mutually_exclusive_group()
    how.add_argument(
        "--resume",
        action="store_const",
        const=True,
        help="go on with a stopped run, or fail (default: go on if one with the same settings and "
        "songs is in OUTPUT_DIR)",
    )
    how.add_argument(
        "--fresh", dest="resume", action="store_const", const=False, help="start anew in any case"
    )
    return result


def _run(options: argparse.Namespace) -> None:
    options.device = check_device(own_device(options.device))
    settings = PretrainingSettings(
        pairs=options.pairs,
        steps=options.steps,
        time_limit=options.time_limit or None,
        seed=options.seed,
        windows_per_step=options.windows_per_step,
        bf16=native_bf16(options.device),
    )
    if options.threads:
        use_threads(options.threads)
    with process_group(backend(options.device)) as rank:
        if rank:  # the first process writes for all
            _make(options, settings, lambda done, message: None)
        else:
            _lead(options, settings)


def _make(
    options: argparse.Namespace, settings: PretrainingSettings, report: Progress
) -> dict[str, Any]:
    songs = songs_with_demo(
        options.data_dir,
        options.cache_dir,
        options.demo_songs,
        lambda done, text: report(0.0, f"{text} {done:.0%}"),
    )
    return bootstrap(
        [song.state for song in songs],
        options.output_dir / DEFAULT_CHECKPOINT,
        settings,
        report=report,
        device=options.device,
        keep_every=options.keep_every,
        resume=options.resume,
    )


def _lead(options: argparse.Namespace, settings: PretrainingSettings) -> None:
    """Train with a progress bar, write the run folder and say how it went."""
    config = {**asdict(settings), "demo_songs": options.demo_songs}
    run = RunFolder(options.output_dir, "bootstrap-reward", config)
    with running(run), tqdm(total=100, unit="%", disable=None) as bar:

        def report(done: float, message: str) -> None:
            bar.update(round(100 * done) - bar.n)
            bar.set_postfix_str(message)
            run.progress(done, message)

        path = options.output_dir / DEFAULT_CHECKPOINT
        metrics = _make(options, settings, report)
        run.finish({"checkpoint": str(path), "metrics": metrics})
    print(
        f"{path}: attribute R² median {metrics['attribute_r2_median']:.2f}, votes of random tastes "
        f"foreseen {metrics['taste_accuracy']:.0%} ({metrics['evaluated_on']}), "
        f"{metrics['steps']} steps in {metrics['seconds']:.0f} s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)

    def body() -> None:
        with advising(OUT_OF_MEMORY):
            _run(options)

    def stopped() -> str:
        kept = options.output_dir / DEFAULT_CHECKPOINT.parent / PROGRESS
        how = f"goes on from what is kept in {kept}" if kept.is_file() else "starts it anew"
        return f"stopped; the same command {how}"

    return guarded(body, stopped)


if __name__ == "__main__":
    sys.exit(main())
