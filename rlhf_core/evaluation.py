"""How good is a policy? On songs that it was not trained on, against baselines and its parent.

    python -m rlhf_core.evaluation --checkpoint run/models/policy_best.pt --test_dir test_audio

Writes OUTPUT_DIR/results.json and evaluation.png and prints a table. With --parent it ends in a
verdict (accept, doubtful, reject) and says why in words. A reward model is a proxy: the verdict is
advice for whoever listens, and human votes on pairs of both versions are the last word.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf_core.audio.library import find_songs, load_song
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import ConfigError, CoreError, DataError
from rlhf_core.files import set_aside
from rlhf_core.plots import bars_figure, save_figure
from rlhf_core.policy import comparison
from rlhf_core.policy.agent import Agent, load_policy
from rlhf_core.policy.commands import check_device, guarded, start_logging, use_threads
from rlhf_core.policy.comparison import Edits, Score
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.songs import passages_of
from rlhf_core.reward.learned_reward_integration import (
    LearnedRewardConfig,
    LearnedRewardIntegration,
    find_default_checkpoint,
)
from rlhf_core.runs import RunFolder, running

logger = logging.getLogger("rlhf_core.evaluation")  # also when run with -m

MAX_DRIFT = 0.3  # nats per decision: beyond that, a reward model is asked about unknown edits
MIN_DIVERSITY = 0.3  # of the parent's
MAX_KEEP_CHANGE = 0.3
MAX_DENSE_DROP = 0.15


def test_items(test_dir: Path, cache_dir: Path | None) -> list[Item]:
    """Every passage of the audio files of a folder (or of its test/ folder, where it has one)."""
    folder = test_dir / "test" if (test_dir / "test").is_dir() else test_dir
    songs = []
    for path in find_songs(folder):
        try:
            songs.append(load_song(path, cache_dir or test_dir / ".cache", split="test"))
        except CoreError as error:
            logger.warning("left out: %s", error)
    if not songs:
        raise DataError(f"{folder}: holds no usable song to test on")
    return passages_of(songs)


def pick(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """At most `limit` passages, drawn without order's favour."""
    if len(items) <= limit:
        return list(items)
    chosen = np.random.default_rng(seed).permutation(len(items))[:limit]
    return [items[int(i)] for i in sorted(chosen)]


def scorer(integration: LearnedRewardIntegration | None) -> Score | None:
    """The reward's mean, in deviations between edits of one passage."""
    if integration is None:
        return None

    def score(batch: PassageBatch, actions: Tensor) -> Tensor:
        return integration.score(batch, actions).mean

    return score


def evaluate_policy(
    agent: Agent,
    items: Sequence[Item],
    *,
    parent: Agent | None = None,
    integration: LearnedRewardIntegration | None = None,
    per_passage: int = 4,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is known about a policy's edits, as plain values (`results.json`)."""
    if per_passage < 1:
        raise ConfigError(f"edits per passage must be at least 1, got {per_passage}")
    score = scorer(integration)
    contenders = {"policy": comparison.edits_of_agent(agent, items, per_passage, seed, score)}
    if parent is not None:
        contenders["parent"] = comparison.edits_of_agent(
            parent, items, per_passage, seed + 1, score
        )
    for name, make in comparison.baselines(seed).items():
        contenders[name] = comparison.edits_by(make, items, per_passage, score)
    results: dict[str, Any] = {
        "passages": len(items),
        "songs": len({state.song_id for state, _ in items}),
        "edits_per_passage": per_passage,
        "contenders": {name: comparison.summary(edits) for name, edits in contenders.items()},
        "win_rates": _win_rates(contenders) if score is not None else None,
    }
    if parent is not None:
        results["kl_to_parent"] = comparison.drift(agent, parent, contenders["policy"])
        results["verdict"] = verdict(results)
    return results


def _win_rates(contenders: dict[str, Edits]) -> dict[str, dict[str, float]]:
    ours = contenders["policy"].scores
    return {
        name: comparison.win_rate(ours, edits.scores)
        for name, edits in contenders.items()
        if name != "policy"
    }


def verdict(results: dict[str, Any]) -> dict[str, Any]:
    """accept, doubtful or reject, and the reasons in words."""
    against: list[str] = []
    doubts = _doubts(results)
    rates = results["win_rates"]
    if rates is None:
        doubts.append("there was no reward model, so nobody compared it with its parent")
    else:
        rate = rates["parent"]
        text = (
            f"it wins {rate['mean']:.0%} against its parent "
            f"(95 % interval {rate['low']:.0%} to {rate['high']:.0%})"
        )
        if rate["high"] < 0.5:
            against.append(text + ": it is worse")
        elif rate["low"] <= 0.5:
            doubts.append(text + ": that may be luck")
        else:
            text += ": it is better"
            return {
                "decision": "doubtful" if doubts else "accept",
                "reasons": [text, *doubts],
            }
    decision = "reject" if against else "doubtful"
    return {"decision": decision, "reasons": [*against, *doubts]}


def _doubts(results: dict[str, Any]) -> list[str]:
    """Signs that the gain may be the reward model's weakness and not the listener's pleasure."""
    ours, parent = results["contenders"]["policy"], results["contenders"]["parent"]
    doubts = []
    if results["kl_to_parent"] > MAX_DRIFT:
        doubts.append(
            f"it moved {results['kl_to_parent']:.2f} nats per decision from its parent, "
            f"beyond {MAX_DRIFT}: the reward model may know little about such edits"
        )
    if parent["diversity"] > 0 and ours["diversity"] < MIN_DIVERSITY * parent["diversity"]:
        doubts.append(
            f"its edits of a passage differ in {ours['diversity']:.0%} of beats, its parent's in "
            f"{parent['diversity']:.0%}: it repeats itself"
        )
    if abs(ours["keep_ratio"] - parent["keep_ratio"]) > MAX_KEEP_CHANGE:
        doubts.append(
            f"it keeps {ours['keep_ratio']:.0%} of beats, its parent {parent['keep_ratio']:.0%}"
        )
    drop = parent["dense_reward"]["mean"] - ours["dense_reward"]["mean"]
    if drop > MAX_DENSE_DROP:
        doubts.append(f"the dense reward fell by {drop:.2f}")
    return doubts


def table(results: dict[str, Any]) -> str:
    """Contenders as lines of text."""
    head = f"{'':22s}{'reward':>22s}{'policy wins':>20s}{'dense':>8s}{'keep':>7s}{'joins':>7s}"
    lines = [head + f"{'length':>8s}{'variety':>9s}"]
    for name, row in results["contenders"].items():
        reward, rate = row["learned_reward"], (results["win_rates"] or {}).get(name)
        lines.append(
            f"{name:22s}{_interval(reward, '.2f'):>22s}{_interval(rate, '.0%'):>20s}"
            f"{row['dense_reward']['mean']:8.2f}{row['keep_ratio']:7.0%}"
            f"{row['joins_per_edit']:7.1f}{row['duration_ratio']:8.2f}{row['diversity']:9.0%}"
        )
    if "verdict" in results:
        lines.append(f"KL to parent {results['kl_to_parent']:.3f} nats per decision")
        lines.append(f"verdict: {results['verdict']['decision']}")
        lines += [f"  - {reason}" for reason in results["verdict"]["reasons"]]
    return "\n".join(lines)


def _interval(value: dict[str, float] | None, form: str) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:{form}} ({value['low']:{form}}, {value['high']:{form}})"


def _plot(path: Path, results: dict[str, Any]) -> None:
    """Win rates where there is a reward model, dense rewards where there is none."""
    if results["win_rates"] is not None:
        chosen, label, line = results["win_rates"], "win rate of the policy against", 0.5
    else:
        rows = results["contenders"].items()
        chosen, label, line = {n: row["dense_reward"] for n, row in rows}, "dense reward", None
    values, low, high = ([row[key] for row in chosen.values()] for key in ("mean", "low", "high"))
    save_figure(bars_figure(list(chosen), values, low, high, label=label, reference=line), path)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.evaluation",
        description="Compare a policy with baselines, and with its parent, on unseen songs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="policy to evaluate")
    parser.add_argument("--test_dir", type=Path, required=True, help="folder of songs to test on")
    parser.add_argument("--cache_dir", type=Path, help="analysed songs (in the test folder)")
    parser.add_argument("--parent", type=Path, help="policy that it came from: asks for a verdict")
    parser.add_argument("--reward_model", type=Path, help="reward checkpoint (looked up)")
    parser.add_argument("--no_reward", action="store_true", help="dense reward alone")
    parser.add_argument("--output_dir", type=Path, default=Path("evaluation"), help="run's folder")
    parser.add_argument("--edits", type=int, default=4, help="edits of each passage")
    parser.add_argument("--max_passages", type=int, default=96, help="passages at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser


def _integration(args: argparse.Namespace) -> LearnedRewardIntegration | None:
    if args.no_reward:
        return None
    path = args.reward_model
    if path is None:
        path, where = find_default_checkpoint(Path())
        logger.info("reward model: the default one, from %s", where)
    integration = LearnedRewardIntegration(LearnedRewardConfig(device=args.device))
    integration.load_model(path)
    return integration


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate as the arguments say; the results."""
    check_device(args.device)
    use_threads(args.threads)
    agent = load_policy(args.checkpoint, args.device)
    parent = None if args.parent is None else load_policy(args.parent, args.device)
    integration = _integration(args)
    for name in ("results.json", "evaluation.png"):
        set_aside(args.output_dir / name)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    folder = RunFolder(args.output_dir, "evaluate", settings)
    with running(folder), torch.no_grad():
        items = pick(test_items(args.test_dir, args.cache_dir), args.max_passages, args.seed)
        folder.status("running", 0.2, f"editing {len(items)} passages")
        results = evaluate_policy(
            agent,
            items,
            parent=parent,
            integration=integration,
            per_passage=args.edits,
            seed=args.seed,
        )
        _plot(args.output_dir / "evaluation.png", results)
        folder.finish({"checkpoint": str(args.checkpoint), **results})
    return results


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)

    def body() -> None:
        start_logging()
        print(table(run(args)))

    return guarded(body)


if __name__ == "__main__":
    sys.exit(main())
