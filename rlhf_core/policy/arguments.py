"""Every setting of a policy training: its flags, what they mean, and the configs made of them.

A setting that is not given is taken from the checkpoint that is resumed, else from the defaults of
the config dataclasses.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rlhf_core.errors import CheckpointError
from rlhf_core.policy.commands import LOG_LEVELS
from rlhf_core.policy.dpo import LOSSES, DPOConfig
from rlhf_core.policy.ppo import PPOConfig
from rlhf_core.policy.songs import add_data_arguments
from rlhf_core.policy.trainer import ALGORITHMS, TrainingConfig
from rlhf_core.reward.learned_reward_integration import LEARNED, LearnedRewardConfig

EXAMPLES = """\
examples:
  the first training, reward model from its default place, first policy made on the spot
    python -m rlhf_core.train_rlhf --data_dir songs --total_steps 100000 --output_dir run1
  go on with it, further than was first asked for
    python -m rlhf_core.train_rlhf --data_dir songs --output_dir run1 \\
        --checkpoint run1/models/checkpoint_50000.pt --total_steps 200000
  a new version from an old one, with a retrained reward
    python -m rlhf_core.train_rlhf --data_dir songs --output_dir run2 \\
        --policy run1/models/policy_best.pt --reward_model reward/models/reward_model_final.pt
  straight from votes, without a reward model's say
    python -m rlhf_core.train_rlhf --data_dir songs --output_dir run3 --algorithm dpo \\
        --policy run1/models/policy_best.pt --preferences votes.parquet

what to turn when (logs/training.log and the plot show it):
  the reward hardly rises       more --total_steps; a higher --kl_target, or a lower --beta (DPO)
  edits are all alike           a lower --kl_target, a higher --entropy_target or --beta; the
                                gate says so too ("it repeats itself")
  the reward rises, listeners   the reward model is exploited: gather votes on pairs of this
  shrug                         version, --lcb 2, a lower --kl_target, fewer steps
  it forgets what it could      --dense_reward_weight up (both weights count in deviations)
  keep_ratio runs away          votes seldom compare edits of other lengths: generate "broad" pairs
  it stops and starts           --checkpoint goes on, bit for bit, from any checkpoint_N.pt

outputs, under --output_dir: models/policy_best.pt (chosen on passages that are held out: those
of DATA/test, else one in eight; the version to use), models/policy_final.pt,
models/checkpoint_{N}.pt, logs/training_history.json, logs/training.log,
logs/training_progress.png (drawn again every --plot_every updates), with --tensorboard
logs/tensorboard, and metrics.jsonl, status.json, results.json for the app.
What is there already is renamed, unless --checkpoint goes on with it.
"""


def build_parser() -> argparse.ArgumentParser:
    """Every setting of a training."""
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.train_rlhf",
        description="Train an editing policy: PPO on learned and dense rewards, or DPO.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _where_arguments(parser.add_argument_group("what to train on and from"))
    _loop_arguments(parser.add_argument_group("the loop"))
    _reward_arguments(parser.add_argument_group("reward"))
    _algorithm_arguments(parser)
    return parser


def _where_arguments(where: argparse._ArgumentGroup) -> None:
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
    where.add_argument(
        "--withheld_share",
        type=float,
        default=0.0,
        help="with --preferences: leave out this share of the votes (whole songs), which the gate "
        "of `python -m rlhf_core.evaluation --preferences` will judge by; 0: none",
    )


def _loop_arguments(loop: argparse._ArgumentGroup) -> None:
    _number(loop, "--total_steps", int, TrainingConfig, "beats of edits, from the very beginning")
    _choice(loop, "--algorithm", ALGORITHMS, TrainingConfig.algorithm, "how it learns")
    _number(
        loop,
        "--n_steps",
        int,
        TrainingConfig,
        "steps that an update learns from, at least (DPO: then new pairs)",
    )
    _number(loop, "--edits", int, TrainingConfig, "edits of a passage that an update compares")
    _number(loop, "--save_interval", int, TrainingConfig, "steps between checkpoints")
    _number(loop, "--log_every", int, TrainingConfig, "updates between lines of the log")
    _number(loop, "--plot_every", int, TrainingConfig, "updates between plots")
    _number(loop, "--seed", int, TrainingConfig, "same seed, same data, same weights")
    loop.add_argument(
        "--device", default="cpu", help="cpu or cuda:0 (cpu); under torchrun cuda: each its own"
    )
    loop.add_argument(
        "--bf16",
        action="store_true",
        default=None,
        help="encode passages in bfloat16: where matrix products are what takes the time (GPUs)",
    )
    loop.add_argument(
        "--threads", type=int, default=1, help="threads of torch (1; on small batches more cost)"
    )
    loop.add_argument(
        "--tensorboard", action="store_true", help="TensorBoard event files in logs/tensorboard"
    )
    loop.add_argument(
        "--log_level",
        default="INFO",
        type=str.upper,
        choices=LOG_LEVELS,
        help="how much the terminal shows (INFO)",
    )


def _reward_arguments(group: argparse._ArgumentGroup) -> None:
    config = LearnedRewardConfig
    _number(group, "--learned_reward_weight", float, config, "weight of what votes taught")
    _number(group, "--dense_reward_weight", float, config, "weight of the four plain rules")
    _number(group, "--reward_scale", float, config, "times the learned reward")
    _number(group, "--reward_offset", float, config, "plus the learned reward")
    _choice(group, "--learned", LEARNED, config.learned, "what is paid where votes leave doubt")
    _number(group, "--lcb", float, config, "lower-bound: posterior deviations below the mean")
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
    both.add_argument(
        "--minibatch",
        type=int,
        help=f"episodes ({PPOConfig.minibatch_episodes}), or pairs ({DPOConfig.minibatch_pairs}), "
        "of an optimiser step",
    )
    _number(both, "--max_grad_norm", float, PPOConfig, "gradients longer than this are shortened")
    _ppo_arguments(parser.add_argument_group("PPO"))
    dpo = parser.add_argument_group("DPO")
    _number(dpo, "--beta", float, DPOConfig, "how dearly leaving the reference is paid")
    _choice(dpo, "--loss", LOSSES, DPOConfig.loss, "of a pair")
    _number(dpo, "--label_smoothing", float, DPOConfig, "chance that a vote is wrong")
    _number(dpo, "--strength_margin", float, DPOConfig, "margin for each step of a vote's strength")
    dpo.add_argument(
        "--length_normalise", action="store_true", default=None, help="mean log-probabilities"
    )


def _ppo_arguments(ppo: argparse._ArgumentGroup) -> None:
    _number(ppo, "--clip", float, PPOConfig, "limit of the probability ratio's change")
    _number(ppo, "--gamma", float, PPOConfig, "discount per beat; the reward comes at the end")
    _number(ppo, "--gae_lambda", float, PPOConfig, "1: full returns; lower: trust the value more")
    _number(ppo, "--entropy_weight", float, PPOConfig, "least reward for staying varied")
    _number(
        ppo,
        "--entropy_target",
        float,
        PPOConfig,
        "nats per decision below which that reward grows",
    )
    ppo.add_argument(
        "--no_group_baseline",
        dest="group_baseline",
        action="store_false",
        default=None,
        help="rewards as they are, not less the mean of the other edits of their passage",
    )
    _number(ppo, "--value_weight", float, PPOConfig, "weight of the value loss")
    _number(ppo, "--update_kl", float, PPOConfig, "end an update's epochs beyond this KL")
    _number(ppo, "--kl_target", float, PPOConfig, "KL to the reference, nats per decision")
    _number(ppo, "--kl_weight", float, PPOConfig, "where the KL penalty begins; 0: none")


def _number(group: Any, flag: str, kind: type, config: type, what: str) -> None:
    group.add_argument(flag, type=kind, help=f"{what} ({getattr(config, flag[2:])})")


def _choice(group: Any, flag: str, choices: Sequence[str], default: str, what: str) -> None:
    group.add_argument(flag, choices=choices, help=f"{what} ({default})")


@dataclass(frozen=True)
class Settings:
    """The configs of one training, as given, resumed or by default."""

    training: TrainingConfig
    reward: LearnedRewardConfig
    ppo: PPOConfig
    dpo: DPOConfig


def settings_of(args: argparse.Namespace, resumed: dict[str, Any] | None) -> Settings:
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
    return Settings(
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
