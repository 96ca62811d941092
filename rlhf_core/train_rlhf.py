"""The command that trains an editing policy by PPO or DPO.

    python -m rlhf_core.train_rlhf --data_dir songs --total_steps 100000

`build_parser` is the whole list of settings; `run` puts the collaborators together and lets
`RLHFTrainer` work. A setting that is not given is taken from the checkpoint that is resumed, else
from the defaults of the config dataclasses.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from rlhf_core.checkpoints import lineage, load_checkpoint
from rlhf_core.errors import CheckpointError, ConfigError, DataError
from rlhf_core.files import set_aside
from rlhf_core.history import rows
from rlhf_core.policy.agent import Agent, agent_from_content, load_policy
from rlhf_core.policy.commands import (
    LOG_LEVELS,
    OUT_OF_MEMORY,
    check_device,
    guarded,
    start_logging,
    use_threads,
)
from rlhf_core.policy.dpo import LOSSES, DPOConfig
from rlhf_core.policy.imitation import ImitationConfig, imitate
from rlhf_core.policy.ppo import PPOConfig
from rlhf_core.policy.rewards import Item, LearnedRewards, RewardSource, dense_only
from rlhf_core.policy.songs import add_data_arguments, load_items
from rlhf_core.policy.trainer import ALGORITHMS, RLHFTrainer, TrainingConfig, copy_of
from rlhf_core.policy.votes import VotePairs
from rlhf_core.reward.dataset import read_snapshot
from rlhf_core.reward.learned_reward_integration import (
    LearnedRewardConfig,
    LearnedRewardIntegration,
    find_default_checkpoint,
)
from rlhf_core.runs import RunFolder, running

__all__ = ["LearnedRewardConfig", "RLHFTrainer", "main"]

logger = logging.getLogger("rlhf_core.train_rlhf")  # also when run with -m

EXAMPLES = """\
examples:
  the first training, reward model from its default place, first policy made on the spot
    python -m rlhf_core.train_rlhf --data_dir songs --total_steps 100000 --output_dir run1
  go on with it, further than was first asked for
    python -m rlhf_core.train_rlhf --data_dir songs --output_dir run1 \\
        --checkpoint run1/models/checkpoint_50000.pt --total_steps 200000
  a new version from an old one, with a retrained reward
    python -m rlhf_core.train_rlhf --data_dir songs --output_dir run2 \\
        --policy run1/models/policy_final.pt --reward_model reward/models/reward_model_final.pt
  straight from votes, without a reward model's say
    python -m rlhf_core.train_rlhf --data_dir songs --output_dir run3 --algorithm dpo \\
        --policy run1/models/policy_final.pt --preferences votes.parquet

outputs, under --output_dir: models/policy_best.pt, models/policy_final.pt,
models/checkpoint_{N}.pt, logs/training_history.json, logs/training.log,
logs/training_progress.png, and metrics.jsonl, status.json, results.json for the app.
What is there already is renamed, unless --checkpoint goes on with it.
"""
OLD_OUTPUTS = (
    "models/policy_best.pt",
    "models/policy_final.pt",
    "models/checkpoint_*.pt",
    "logs/training_history.json",
    "logs/training.log",
    "logs/training_progress.png",
    "config.json",
    "status.json",
    "metrics.jsonl",
    "results.json",
)


def build_parser() -> argparse.ArgumentParser:
    """Every setting of a training."""
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.train_rlhf",
        description="Train an editing policy: PPO on learned and dense rewards, or DPO.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_argument_group("what to train on and from")
    add_data_arguments(where)
    where.add_argument("--output_dir", type=Path, default=Path(), help="the run's folder (here)")
    where.add_argument(
        "--checkpoint", type=Path, help="go on exactly where this checkpoint of a training stopped"
    )
    where.add_argument(
        "--policy", type=Path, help="start from these weights (default: imitate the heuristic)"
    )
    where.add_argument(
        "--reference", type=Path, help="policy to stay near (default: what training starts from)"
    )
    where.add_argument("--reward_model", type=Path, help="reward checkpoint (default: looked up)")
    where.add_argument("--preferences", type=Path, help="DPO on the votes of this snapshot")
    where.add_argument(
        "--include_simulated", action="store_true", help="with --preferences: simulated votes too"
    )
    loop = parser.add_argument_group("the loop")
    _number(loop, "--total_steps", int, TrainingConfig, "beats of edits, from the very beginning")
    _choice(loop, "--algorithm", ALGORITHMS, TrainingConfig.algorithm)
    _number(loop, "--n_steps", int, TrainingConfig, "steps that one update learns from, at least")
    _number(loop, "--save_interval", int, TrainingConfig, "steps between checkpoints")
    _number(loop, "--log_every", int, TrainingConfig, "updates between lines of the log")
    _number(loop, "--seed", int, TrainingConfig, "same seed, same data, same weights")
    loop.add_argument("--device", default="cpu", help="cpu or cuda:0 (cpu)")
    loop.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads of torch (1; on these small batches more help little, and cost much "
        "where another process wants the cores)",
    )
    loop.add_argument("--log_level", default="INFO", type=str.upper, choices=LOG_LEVELS)
    _reward_arguments(parser.add_argument_group("reward"))
    _algorithm_arguments(parser)
    return parser


def _reward_arguments(group: argparse._ArgumentGroup) -> None:
    config = LearnedRewardConfig
    _number(group, "--learned_reward_weight", float, config, "weight of what votes taught")
    _number(group, "--dense_reward_weight", float, config, "weight of the four plain rules")
    _number(group, "--reward_scale", float, config, "times the learned reward")
    _number(group, "--reward_offset", float, config, "plus the learned reward")
    _number(group, "--lcb", float, config, "posterior deviations taken off the learned reward")
    group.add_argument(
        "--clamp_reward",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="limits of the learned reward (-10 10)",
    )


def _algorithm_arguments(parser: argparse.ArgumentParser) -> None:
    both = parser.add_argument_group("PPO and DPO")
    both.add_argument("--lr", type=float, help=f"learning rate ({PPOConfig.lr}, {DPOConfig.lr})")
    both.add_argument(
        "--epochs", type=int, help=f"passes over an update ({PPOConfig.epochs}, {DPOConfig.epochs})"
    )
    both.add_argument("--minibatch", type=int, help="episodes, or pairs, of an optimiser step (8)")
    ppo = parser.add_argument_group("PPO")
    _number(ppo, "--clip", float, PPOConfig, "limit of the probability ratio's change")
    _number(ppo, "--gae_lambda", float, PPOConfig, "1: full returns; lower: trust the value more")
    _number(ppo, "--entropy_weight", float, PPOConfig, "reward for staying varied")
    _number(ppo, "--value_weight", float, PPOConfig, "weight of the value loss")
    _number(ppo, "--update_kl", float, PPOConfig, "end an update's epochs beyond this KL")
    _number(ppo, "--kl_target", float, PPOConfig, "KL to the reference, nats per decision")
    _number(ppo, "--kl_weight", float, PPOConfig, "where the KL penalty begins; 0: none")
    dpo = parser.add_argument_group("DPO")
    _number(dpo, "--beta", float, DPOConfig, "how dearly leaving the reference is paid")
    _choice(dpo, "--loss", LOSSES, DPOConfig.loss)
    _number(dpo, "--label_smoothing", float, DPOConfig, "chance that a vote is wrong")
    dpo.add_argument(
        "--length_normalise", action="store_true", default=None, help="mean log-probabilities"
    )


def _number(group: Any, flag: str, kind: type, config: type, what: str) -> None:
    group.add_argument(flag, type=kind, help=f"{what} ({getattr(config, flag[2:])})")


def _choice(group: Any, flag: str, choices: Sequence[str], default: str) -> None:
    group.add_argument(flag, choices=choices, help=f"({default})")


@dataclass(frozen=True)
class _Settings:
    """The configs of one training, as given, resumed or by default."""

    training: TrainingConfig
    reward: LearnedRewardConfig
    ppo: PPOConfig
    dpo: DPOConfig


def _settings(args: argparse.Namespace, resumed: dict[str, Any] | None) -> _Settings:
    """Given beats resumed beats default."""
    old = resumed or {}
    given = {name: value for name, value in vars(args).items() if value is not None}
    if "minibatch" in given:
        given |= {"minibatch_episodes": given["minibatch"], "minibatch_pairs": given["minibatch"]}
    if "clamp_reward" in given:
        given["clamp_reward"] = tuple(given["clamp_reward"])
    own = old.get("algorithm_config", {})
    algorithm = old.get("algorithm")
    reward = dict(old.get("reward_config", {}))
    if "clamp_reward" in reward:
        reward["clamp_reward"] = tuple(reward["clamp_reward"])
    if args.reward_model is not None:
        given["checkpoint_path"] = str(args.reward_model)
    return _Settings(
        _build(TrainingConfig, old.get("config", {}), given),
        _build(LearnedRewardConfig, reward, given),
        _build(PPOConfig, own if algorithm == "ppo" else {}, given),
        _build(DPOConfig, own if algorithm == "dpo" else {}, given),
    )


def _build(kind: type, old: dict[str, Any], given: dict[str, Any]) -> Any:
    names = {field.name for field in fields(kind)}
    merged = {**old, **{name: value for name, value in given.items() if name in names}}
    unknown = set(merged) - names
    if unknown:
        raise CheckpointError(f"the checkpoint holds settings unknown here: {sorted(unknown)}")
    return kind(**merged)


def _reward_source(
    settings: LearnedRewardConfig, args: argparse.Namespace, reference: Agent, seed: int
) -> tuple[RewardSource, LearnedRewardConfig]:
    """Where rewards come from, and its settings with the path that was taken.

    Training on votes needs no reward model; where none is found its reward is the dense one
    alone (only for watching), and that is said.
    """
    path = settings.checkpoint_path
    if path is None:
        try:
            found, where = find_default_checkpoint(args.output_dir)
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
    return LearnedRewards(integration, reference, seed), settings


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


def _votes(args: argparse.Namespace, items: Sequence[Item]) -> tuple[VotePairs | None, str | None]:
    if args.preferences is None:
        return None, None
    dataset = read_snapshot(args.preferences)
    votes = dataset.usable(include_simulated=args.include_simulated, split=args.split)
    states = {state.song_id: state for state, _ in items}
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


def _make_room(output_dir: Path, resuming: bool) -> None:
    """Rename what an older run left; a resumed one goes on with its own files."""
    for pattern in ("results.json",) if resuming else OLD_OUTPUTS:
        for path in sorted(output_dir.glob(pattern)):
            moved = set_aside(path)
            logger.info("%s was there already and is now %s", path, moved)


def _rewrite_metrics(run: RunFolder, trainer: RLHFTrainer) -> None:
    """Lines written after the checkpoint that is resumed are about a future that is undone."""
    set_aside(run.path / "metrics.jsonl")
    for row in rows(trainer.columns):
        run.metric(**row)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train as the arguments say; the results."""
    _check(args)
    content = _resumed(args.checkpoint)
    settings = _settings(args, content["training"] if content else None)
    if args.preferences is not None and settings.training.algorithm != "dpo":
        raise ConfigError("--preferences is for --algorithm dpo; PPO learns from a reward model")
    use_threads(args.threads)
    _make_room(args.output_dir, content is not None)
    folder = RunFolder(args.output_dir, "train-policy", _plain(settings, args))
    with running(folder):
        folder.status("running", 0.0, "loading songs")
        items = load_items(args.data_dir, args.cache_dir, args.split)
        trainer = _trainer(args, content, settings, items, folder)
        if content is not None:
            trainer.restore(args.checkpoint, content["training"])
            _rewrite_metrics(folder, trainer)
        results = trainer.train()
        folder.finish(results, f"trained to step {results['steps']}")
    return results


def _trainer(
    args: argparse.Namespace,
    content: dict[str, Any] | None,
    settings: _Settings,
    items: Sequence[Item],
    folder: RunFolder,
) -> RLHFTrainer:
    seed = settings.training.seed
    agent = _start(args, content, items, seed)
    if content is not None:
        reference = agent_from_content(
            args.checkpoint, content["training"]["reference"], args.device
        )
    elif args.reference is not None:
        reference = load_policy(args.reference, args.device)
    else:
        reference = copy_of(agent)
    reference.requires_grad_(False)
    reward, reward_config = _reward_source(
        replace(settings.reward, device=args.device), args, reference, seed
    )
    votes, snapshot = _votes(args, items)
    made_from = lineage(
        seed=seed,
        parent=args.checkpoint or args.policy,
        snapshot=snapshot,
        settings=_plain(settings, args) | {"reward_model": reward_config.checkpoint_path},
    )
    return RLHFTrainer(
        agent,
        items,
        reward,
        args.output_dir,
        settings.training,
        ppo=settings.ppo,
        dpo=settings.dpo,
        reference=reference,
        votes=votes,
        lineage=made_from,
        reward_config=asdict(reward_config),
        run=folder,
    )


def _plain(settings: _Settings, args: argparse.Namespace) -> dict[str, Any]:
    """Settings as JSON values."""
    paths = {name: str(value) for name, value in vars(args).items() if isinstance(value, Path)}
    return {**paths, "device": args.device, "threads": args.threads, **asdict(settings)}


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)

    def body() -> None:
        start_logging(args.log_level)
        try:
            run(args)
        except torch.cuda.OutOfMemoryError as error:
            raise ConfigError(OUT_OF_MEMORY) from error

    return guarded(body)


if __name__ == "__main__":
    sys.exit(main())
