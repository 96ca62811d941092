"""Fit a reward model to the votes of a snapshot.

    python -m rlhf_core.train_reward --preferences votes.parquet --data_dir training_data \
        --output_dir runs/reward-1

writes models/reward_model_final.pt and results.json under --output_dir (the run folder; its
config.json, status.json and metrics.jsonl say how far it is). Seconds for hundreds of votes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rlhf_core.audio.library import load_library
from rlhf_core.checkpoints import lineage
from rlhf_core.errors import CoreError
from rlhf_core.files import set_aside
from rlhf_core.reward.checkpoint import load_reward
from rlhf_core.reward.dataset import PreferenceDataset, read_snapshot
from rlhf_core.reward.learned_reward_integration import find_default_checkpoint
from rlhf_core.reward.training import FittedReward, fit_reward
from rlhf_core.runs import RunFolder, running
from rlhf_core.types import AudioState

OUTPUT = Path("models/reward_model_final.pt")
STAGES = {"songs": 0.05, "embed": 0.3, "fold": 0.5, "fit": 0.95}


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m rlhf_core.train_reward",
        description=(
            "Fit a reward model to people's votes. Reads a snapshot of votes (Parquet, exported by "
            "the app), embeds the edits with the bootstrap's trunk and fits a Bayesian head: "
            "seconds for hundreds of votes. Accuracy is measured on songs left out of the fit."
        ),
        epilog=(
            "Afterwards: `python -m rlhf_core.test_report OUTPUT_DIR/models/reward_model_final.pt` "
            "checks the file; pass it to `python -m rlhf_core.train_rlhf --reward_model`."
        ),
    )
    add = result.add_argument
    add("--preferences", type=Path, required=True, help="snapshot of votes, one row per vote")
    add("--data_dir", type=Path, required=True, help="folder with train/ (the songs voted on)")
    add("--cache_dir", type=Path, help="analysed songs (default: DATA_DIR/.cache)")
    add(
        "--reward_model",
        type=Path,
        help="bootstrap to build on: its trunk and prior are used, not its votes (default: "
        "models/reward_model_v8_long/reward_model_final.pt here, then in the package)",
    )
    add("--output_dir", type=Path, default=Path(), help="run folder (default: the current folder)")
    add("--seed", type=int, default=0, help="folds and bootstrap intervals (default 0)")
    add(
        "--include_simulated",
        action="store_true",
        help="also learn from simulated judges' votes: for dry runs only",
    )
    return result


def load_states(options: argparse.Namespace) -> dict[str, AudioState]:
    """The library's songs by id."""
    songs = load_library(options.data_dir, options.cache_dir)
    return {song.state.song_id: song.state for song in songs}


def _fit(
    options: argparse.Namespace, dataset: PreferenceDataset, run: RunFolder, bar: tqdm[Any]
) -> FittedReward:
    votes = dataset.usable(include_simulated=options.include_simulated)
    given, where = options.reward_model, "--reward_model"
    if given is None:
        given, where = find_default_checkpoint(options.output_dir)
    bootstrap = load_reward(given)
    print(f"{len(votes)} votes; building on {given} ({where})", file=sys.stderr)

    def show(stage: str, values: dict[str, Any]) -> None:
        done = STAGES[stage]
        if stage == "fold":
            run.metric(**values)
            done += 0.4 * values["step"] / values["folds"]
        bar.update(round(100 * done) - bar.n)
        bar.set_postfix_str(stage)
        run.progress(done, stage)

    show("songs", {})
    made_from = lineage(
        seed=options.seed,
        parent=given,
        snapshot=dataset.sha256,
        synthetic=all(vote.simulated for vote in votes),
        settings={"include_simulated": options.include_simulated, "votes": len(votes)},
    )
    return fit_reward(
        votes, load_states(options), bootstrap, made_from, seed=options.seed, report=show
    )


def _run(options: argparse.Namespace) -> None:
    settings = {key: str(value) for key, value in vars(options).items()}
    run = RunFolder(options.output_dir, "train-reward", settings)
    torch.manual_seed(options.seed)
    with running(run), tqdm(total=100, unit="%", disable=None) as bar:
        dataset = read_snapshot(options.preferences)
        fitted = _fit(options, dataset, run, bar)
        path = options.output_dir / OUTPUT
        set_aside(path)
        fitted.checkpoint.save(path)
        run.finish({"checkpoint": str(path), "metrics": fitted.metrics, "snapshot": dataset.sha256})
        bar.update(100 - bar.n)
    print(told(path, fitted.metrics))


def told(path: Path, metrics: dict[str, Any]) -> str:
    """The result in a few lines for a person."""
    head = f"{path}: fitted to {metrics['n_votes']} votes on {metrics['n_songs']} songs"
    if metrics["accuracy"] is None:
        return f"{head}\naccuracy: not measured ({metrics['evaluated_on']})"
    lines = [
        head,
        f"accuracy {metrics['accuracy']:.1%} (95 % interval {metrics['accuracy_low']:.1%} to "
        f"{metrics['accuracy_high']:.1%}), log-loss {metrics['log_loss']:.3f} (knowing nothing: "
        f"{metrics['log_loss_of_knowing_nothing']:.3f}), calibration error {metrics['ece']:.3f}",
        f"measured on {metrics['evaluated_on']}",
    ]
    for name, values in metrics["baselines"].items():
        lines.append(f"  baseline {name.replace('_', ' ')}: {values['accuracy']:.1%}")
    if metrics["ceiling"] is not None:
        lines.append(f"  ceiling (the annotators' own consistency): {metrics['ceiling']:.1%}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
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
