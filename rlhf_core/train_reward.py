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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rlhf_core.audio.library import load_library
from rlhf_core.checkpoints import lineage
from rlhf_core.command_line import guarded
from rlhf_core.devices import advising, backend, check_device, own_device
from rlhf_core.errors import CheckpointError, ConfigError, DataError
from rlhf_core.files import set_aside
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.crossfit import Parent, Report
from rlhf_core.reward.dataset import PreferenceDataset, Vote, read_snapshot
from rlhf_core.reward.learned_reward_integration import find_default_checkpoint
from rlhf_core.reward.parallel import process_group, quietly_elsewhere
from rlhf_core.reward.report_text import report_text
from rlhf_core.reward.training import FittedReward, fit_checkpoint, fit_reward
from rlhf_core.reward.withholding import WITHHELD_SHARE, parts_of
from rlhf_core.runs import RunFolder, running
from rlhf_core.types import AudioState

OUTPUT = Path("models/reward_model_final.pt")
TRAINING_OUTPUT = Path("models/reward_model_training.pt")
OUT_OF_MEMORY = "Embedding edits is quick without one: use --device cpu."
STAGES = {"songs": 0.05, "embed": 0.3, "tune": 0.4, "fold": 0.5, "fit": 0.95}


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
    add(
        "--parent",
        type=Path,
        help="the version before: refitted on the same folds, it is what this one has to beat",
    )
    add(
        "--parent_preferences",
        type=Path,
        help="the snapshot that the parent was fitted to (default: all of these votes)",
    )
    add("--output_dir", type=Path, default=Path(), help="run folder (default: the current folder)")
    add("--device", default="cpu", help="where edits are embedded: cpu, cuda, cuda:0 (cpu)")
    add("--seed", type=int, default=0, help="folds and bootstrap intervals (default 0)")
    add(
        "--fine_tune",
        action="store_true",
        help="also train the trunk's last layers on the votes; kept only if log-loss on songs left "
        "out is lower by more than its standard error (the result says by how much)",
    )
    add(
        "--withheld_share",
        type=float,
        default=WITHHELD_SHARE,
        help="also write models/reward_model_training.pt, which has not seen this share of the "
        "votes (whole songs): train policies on it, so that `python -m rlhf_core.evaluation "
        f"--preferences` can judge them by the rest (default {WITHHELD_SHARE}; 0: do not)",
    )
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

    show = _shown(run, bar)
    show("songs", {})
    states = load_states(options)
    parent, unreadable = readable_parent(options)
    bootstrap.model.to(options.device)
    if parent is not None:
        parent.checkpoint.model.to(options.device)
    fitted = fit_reward(
        votes,
        states,
        bootstrap,
        made_from(options, dataset, votes, given),
        seed=options.seed,
        report=show,
        parent=parent,
        tune_trunk=options.fine_tune,
    )
    fitted.checkpoint.model.to("cpu")
    bootstrap.model.to("cpu")
    lineage_of_part = partial(made_from, options, dataset, given=given)
    fitted.metrics["withheld"] = write_training_reward(
        options, votes, states, bootstrap, lineage_of_part
    )
    if unreadable is not None:
        fitted.metrics["not_compared_with_parent"] = unreadable
    return fitted


def made_from(
    options: argparse.Namespace, dataset: PreferenceDataset, votes: Sequence[Vote], given: Path
) -> dict[str, Any]:
    """The lineage of a reward fitted to these votes of a snapshot."""
    return lineage(
        seed=options.seed,
        parent=given,
        snapshot=dataset.sha256,
        synthetic=all(vote.simulated for vote in votes),
        settings={"include_simulated": options.include_simulated, "votes": len(votes)},
    )


def write_training_reward(
    options: argparse.Namespace,
    votes: Sequence[Vote],
    states: dict[str, AudioState],
    bootstrap: RewardCheckpoint,
    lineage_of: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    """Fit and write the reward for training policies; what was withheld from it, or why nothing."""
    path = options.output_dir / TRAINING_OUTPUT
    set_aside(path)
    if options.withheld_share == 0:
        return {"checkpoint": None, "why_not": "--withheld_share 0"}
    try:
        learned, withheld = parts_of(votes, options.withheld_share)
    except DataError as error:
        return {"checkpoint": None, "why_not": str(error)}
    fit_checkpoint(learned, states, bootstrap, lineage_of(votes=learned)).save(path)
    return {
        "checkpoint": str(path),
        "votes": len(withheld),
        "songs": len({vote.song_id for vote in withheld}),
    }


def _shown(run: RunFolder, bar: tqdm[Any]) -> Report:
    """Says how far a fit is, in the run's folder and on the bar."""

    def show(stage: str, values: dict[str, Any]) -> None:
        done = STAGES[stage]
        if stage == "fold":
            run.metric(**values)
            done += 0.4 * values["step"] / values["folds"]
        bar.update(round(100 * done) - bar.n)
        bar.set_postfix_str(stage)
        run.progress(done, stage)

    return show


def readable_parent(options: argparse.Namespace) -> tuple[Parent | None, str | None]:
    """The version before, or why it cannot be compared with; told, and kept in the report.

    It teaches the new version nothing, so a damaged one, or one for other features, must not keep
    people from a new one. Raises CheckpointError where there is no such file.
    """
    try:
        return parent_of(options), None
    except CheckpointError as error:
        if not options.parent.is_file():
            raise
        print(f"warning: not compared with its parent: {error}", file=sys.stderr)
        return None, str(error)


def parent_of(options: argparse.Namespace) -> Parent | None:
    """The version before and its votes, as far as they were given.

    Raises ConfigError for votes without a parent, DataError where they are not that parent's.
    """
    if options.parent is None:
        if options.parent_preferences is not None:
            raise ConfigError("--parent_preferences needs --parent: whose votes are they?")
        return None
    checkpoint = load_reward(options.parent)
    if options.parent_preferences is None:
        return Parent(checkpoint, None, str(options.parent))
    theirs = read_snapshot(options.parent_preferences)
    if theirs.sha256 != checkpoint.lineage.get("snapshot"):
        raise DataError(
            f"{options.parent_preferences} is not the snapshot that {options.parent} was fitted to "
            f"(that one's sha256 is {checkpoint.lineage.get('snapshot')}). Name that one, or leave "
            "--parent_preferences out."
        )
    return Parent(checkpoint, frozenset(vote.vote_id for vote in theirs.votes), str(options.parent))


def _run(options: argparse.Namespace) -> None:
    options.device = check_device(own_device(options.device))
    with process_group(backend(options.device)) as rank:
        if rank == 0:
            _train(options)
            return
        with quietly_elsewhere() as options.output_dir:
            _train(options)


def _train(options: argparse.Namespace) -> None:
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
    """The result for a person."""
    head = f"{path}: fitted to {metrics['n_votes']} votes on {metrics['n_songs']} songs"
    apart = withheld_text(metrics["withheld"])
    return "\n".join(
        [head, *tuning_text(metrics.get("fine_tuning")), *apart, *report_text(metrics)]
    )


def withheld_text(apart: dict[str, Any]) -> list[str]:
    """Whether there is a reward that has not seen all votes."""
    if apart["checkpoint"] is None:
        return [f"  no reward for training policies apart: {apart['why_not']}"]
    return [
        f"  {apart['checkpoint']}: for training policies; {apart['votes']} votes on "
        f"{apart['songs']} song(s) were withheld from it, to judge them by"
    ]


def tuning_text(found: dict[str, Any] | None) -> list[str]:
    """What fine-tuning did, by how much log-loss on songs left out; nothing if it was not asked."""
    if found is None:
        return []
    if "gain" not in found:
        return [f"  fine-tuned: {found['what']}"]
    return [
        f"  fine-tuned: {found['what']} (log-loss on songs left out {found['log_loss_frozen']:.4f} "
        f"frozen, {found['log_loss_tuned']:.4f} tuned: gain {found['gain']:+.4f}, standard error "
        f"{found['standard_error']:.4f})"
    ]


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    def body() -> None:
        with advising(OUT_OF_MEMORY):
            _run(parser().parse_args(argv))

    return guarded(body)


if __name__ == "__main__":
    sys.exit(main())
