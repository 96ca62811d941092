"""The command that trains an editing policy by PPO or DPO.

    python -m rlhf_core.train_rlhf --data_dir songs --total_steps 100000

`rlhf_core.policy.arguments` is the whole list of settings; `run` puts the collaborators together
and lets `RLHFTrainer` work.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlhf_core.audio.library import find_songs
from rlhf_core.checkpoints import lineage, load_checkpoint
from rlhf_core.command_line import guarded
from rlhf_core.devices import advising, backend, check_device, own_device, use_threads
from rlhf_core.errors import CheckpointError, ConfigError, DataError
from rlhf_core.files import set_aside
from rlhf_core.history import rows
from rlhf_core.policy.agent import Agent, agent_from_content, load_policy
from rlhf_core.policy.arguments import Settings, build_parser, settings_of
from rlhf_core.policy.commands import OUT_OF_MEMORY, start_logging, stopped
from rlhf_core.policy.held_out import hold_out, shuffled, touches
from rlhf_core.policy.imitation import ImitationConfig, imitate
from rlhf_core.policy.rewards import Item, LearnedRewards, RewardSource, dense_only
from rlhf_core.policy.songs import load_items
from rlhf_core.policy.trainer import RLHFTrainer, copy_of
from rlhf_core.policy.votes import VotePairs
from rlhf_core.reward.dataset import Vote, read_snapshot
from rlhf_core.reward.learned_reward_integration import (
    LearnedRewardConfig,
    LearnedRewardIntegration,
    find_default_checkpoint,
)
from rlhf_core.reward.parallel import everyones, process_group, quietly_elsewhere
from rlhf_core.reward.withholding import parts_of
from rlhf_core.runs import RunFolder, running

__all__ = ["LearnedRewardConfig", "RLHFTrainer", "main"]

logger = logging.getLogger("rlhf_core.train_rlhf")  # also when run with -m

OLD_OUTPUTS = (
    "models/policy_best.pt",
    "models/policy_final.pt",
    "models/checkpoint_*.pt",
    "logs/training_history.json",
    "logs/training.log",
    "logs/training_progress.png",
    "logs/tensorboard",
    "config.json",
    "status.json",
    "metrics.jsonl",
    "results.json",
)


def _reward_source(
    settings: LearnedRewardConfig,
    args: argparse.Namespace,
    reference: Agent,
    seed: int,
    home: Path,
) -> tuple[RewardSource, LearnedRewardConfig]:
    """Where rewards come from, and its settings with the path that was taken.

    home: where the default reward model is looked for first.
    Training on votes needs no reward model; where none is found its reward is the dense one
    alone (only for watching), and that is said.
    """
    path = settings.checkpoint_path
    if path is None:
        try:
            found, where = find_default_checkpoint(home)
        except CheckpointError:
            if args.preferences is None:
                raise
            logger.warning("no reward model: the rewards shown are the dense ones alone")
            return dense_only, settings
        logger.info("reward model: the default one, from %s", where)
        path = str(found)
    else:
        logger.info("reward model: %s", path)
    settings = replace(settings, checkpoint_path=path)
    integration = LearnedRewardIntegration(settings)
    integration.load_model()
    return LearnedRewards(integration, reference, seed, settings.learned), settings


def _start(
    args: argparse.Namespace, content: dict[str, Any] | None, items: Sequence[Item], seed: int
) -> Agent:
    """The policy that training starts from."""
    if content is not None:
        return agent_from_content(args.checkpoint, content, args.device)
    if args.policy is not None:
        return load_policy(args.policy, args.device)
    config = ImitationConfig()
    logger.info("no --policy: imitating the heuristic editor first (%d steps)", config.steps)
    agent, losses = imitate(items, seed, config)
    logger.info("first policy ready: loss %.3f nats per decision", losses[-1])
    return agent.to(args.device)


def _reference(args: argparse.Namespace, content: dict[str, Any] | None, agent: Agent) -> Agent:
    """The frozen policy that training stays near: as it was, as it is given, or the start."""
    if content is not None:
        kept = agent_from_content(args.checkpoint, content["training"]["reference"], args.device)
        return kept.requires_grad_(False)
    if args.reference is not None:
        return load_policy(args.reference, args.device).requires_grad_(False)
    return copy_of(agent)


def _votes(
    args: argparse.Namespace, items: Sequence[Item], held_out: Sequence[Item]
) -> tuple[VotePairs | None, str | None]:
    """Votes to train on, none of them on a held-out passage, and the snapshot's SHA-256."""
    if args.preferences is None:
        return None, None
    dataset = read_snapshot(args.preferences)
    votes: Sequence[Vote] = dataset.usable(
        include_simulated=args.include_simulated, split=args.split
    )
    if args.withheld_share > 0:
        votes, _ = parts_of(votes, args.withheld_share)
    states = {state.song_id: state for state, _ in items}
    votes = [vote for vote in votes if not touches(vote, held_out)]
    logger.info("%d votes of %s", len(votes), args.preferences)
    return VotePairs(votes, states), dataset.sha256


def _check(args: argparse.Namespace) -> None:
    check_device(args.device)
    if args.checkpoint is not None and args.policy is not None:
        raise ConfigError("--checkpoint goes on with a training, --policy starts one: give one")
    if args.checkpoint is not None and args.reference is not None:
        raise ConfigError("a resumed training keeps its reference: leave --reference out")
    if not args.data_dir.is_dir():
        raise DataError(f"{args.data_dir}: no such folder. --data_dir holds train/ with audio.")


def _resumed(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    content = load_checkpoint(path, "policy")
    if "training" not in content:
        raise CheckpointError(
            f"{path}: holds a policy but not the state of a training. Start a new one from it "
            "with --policy, or go on from a checkpoint_N.pt or policy_final.pt."
        )
    return content


def _make_room(args: argparse.Namespace) -> None:
    """Rename what an older training left in --output_dir, unless that is the one that goes on.

    Where --policy or --reference is among it, its new name is taken, by all processes.
    """
    models: Path = args.output_dir / "models"
    goes_on = args.checkpoint is not None and args.checkpoint.resolve().parent == models.resolve()
    for pattern in ("results.json",) if goes_on else OLD_OUTPUTS:
        for path in sorted(args.output_dir.glob(pattern)):
            was = path.resolve()
            moved = set_aside(path)
            logger.info("%s was there already and is now %s", path, moved)
            for name in ("policy", "reference"):
                given = getattr(args, name)
                if given is not None and given.resolve() == was:
                    setattr(args, name, moved)
    args.policy, args.reference = everyones((args.policy, args.reference))[0]


def _rewrite_metrics(run: RunFolder, trainer: RLHFTrainer) -> None:
    """Lines written after the checkpoint that is resumed are about a future that is undone."""
    set_aside(run.path / "metrics.jsonl")
    for row in rows(trainer.columns):
        run.metric(**row)


def run(args: argparse.Namespace, home: Path | None = None) -> dict[str, Any]:
    """Train as the arguments say; the results. home: as `_reward_source` says (--output_dir)."""
    home = home or args.output_dir
    _check(args)
    content = _resumed(args.checkpoint)
    settings = settings_of(args, content["training"] if content else None)
    if args.preferences is not None and settings.training.algorithm != "dpo":
        raise ConfigError("--preferences is for --algorithm dpo; PPO learns from a reward model")
    use_threads(args.threads)
    _make_room(args)
    folder = RunFolder(args.output_dir, "train-policy", _plain(settings, args))
    with running(folder):
        folder.status("running", 0.0, "loading songs")
        items = load_items(args.data_dir, args.cache_dir, args.split)
        trainer = _trainer(args, content, settings, items, folder, home)
        if content is not None:
            trainer.restore(args.checkpoint, content["training"])
            _rewrite_metrics(folder, trainer)
        results = trainer.train()
        folder.finish(
            results,
            f"trained to step {results['steps']}; the best is that of {results['best_step']}",
        )
    return results


def _held_out(args: argparse.Namespace, items: Sequence[Item]) -> tuple[Sequence[Item], list[Item]]:
    """Passages to train on, and those that choose the best checkpoint, which never are.

    The latter are of the data folder's test/, where it has one, else some of the passages.
    """
    test = args.data_dir / "test"
    if args.split != "test" and test.is_dir() and find_songs(test):
        return items, shuffled(load_items(args.data_dir, args.cache_dir, "test"))
    trained_on, held_out = hold_out(items)
    if held_out:
        logger.info("no test/ folder: %d of %d passages are held out", len(held_out), len(items))
    return trained_on, held_out


def _trainer(
    args: argparse.Namespace,
    content: dict[str, Any] | None,
    settings: Settings,
    items: Sequence[Item],
    folder: RunFolder,
    home: Path,
) -> RLHFTrainer:
    seed = settings.training.seed
    trained_on, held_out = _held_out(args, items)
    agent = _start(args, content, trained_on, seed)
    reference = _reference(args, content, agent)
    reward, reward_config = _reward_source(
        replace(settings.reward, device=args.device), args, reference, seed, home
    )
    votes, snapshot = _votes(args, items, held_out)
    made_from = lineage(
        seed=seed,
        parent=args.checkpoint or args.policy,
        snapshot=snapshot,
        settings=_plain(settings, args) | {"reward_model": reward_config.checkpoint_path},
    )
    return RLHFTrainer(
        agent,
        trained_on,
        reward,
        args.output_dir,
        settings.training,
        ppo=settings.ppo,
        dpo=settings.dpo,
        reference=reference,
        votes=votes,
        held_out=held_out,
        held_out_reward=reward.steady() if isinstance(reward, LearnedRewards) else reward,
        events=args.output_dir / "logs/tensorboard" if args.tensorboard else None,
        lineage=made_from,
        reward_config=asdict(reward_config),
        run=folder,
    )


def _plain(settings: Settings, args: argparse.Namespace) -> dict[str, Any]:
    """Settings as JSON values."""
    paths = {name: str(value) for name, value in vars(args).items() if isinstance(value, Path)}
    return {**paths, "device": args.device, "threads": args.threads, **asdict(settings)}


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)

    def body() -> None:
        args.device = own_device(args.device)
        with advising(OUT_OF_MEMORY), process_group(backend(args.device)) as rank:
            start_logging(args.log_level if rank == 0 else "ERROR")
            if rank == 0:
                run(args)
                return
            home = args.output_dir
            with quietly_elsewhere() as folder:  # the others only lend their hands
                args.output_dir = folder
                run(args, home)

    return guarded(body, stopped)


if __name__ == "__main__":
    sys.exit(main())
