"""How good is a policy? On songs that it was not trained on, against baselines and its parent.

    python -m rlhf_core.evaluation --checkpoint run/models/policy_best.pt --test_dir test_audio

Writes OUTPUT_DIR/results.json, evaluation.png (win rates) and edits.png (what the edits are like),
renders a few passages by every contender to OUTPUT_DIR/examples, and prints a table. With --parent
it ends in a verdict (accept, doubtful, reject) and says why in words. A reward model is a proxy:
the verdict is advice for whoever listens, and human votes on pairs of both versions are the last
word.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhf_core.audio.library import Song, find_songs, load_library, load_song
from rlhf_core.command_line import guarded
from rlhf_core.devices import advising, check_device, use_threads
from rlhf_core.errors import ConfigError, CoreError, DataError
from rlhf_core.files import set_aside
from rlhf_core.plots import bars_figure, edits_figure, save_figure
from rlhf_core.policy import comparison
from rlhf_core.policy.agent import Agent, load_policy
from rlhf_core.policy.commands import start_logging, stopped
from rlhf_core.policy.comparison import Edits, Score
from rlhf_core.policy.examples import write_examples
from rlhf_core.policy.gate import gate_trunk, judging_reward, tastes, verdict
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.songs import passages_of
from rlhf_core.reward.checkpoint import load_reward
from rlhf_core.reward.dataset import read_snapshot
from rlhf_core.reward.learned_reward_integration import (
    LearnedRewardConfig,
    LearnedRewardIntegration,
    find_default_checkpoint,
)
from rlhf_core.reward.withholding import WITHHELD_SHARE, parts_of
from rlhf_core.runs import RunFolder, running

BASELINE_EDITS = 2  # of each passage, where policies make more: the presets take their time
VERDICTS = """\
With --parent the verdict is accept (better with a probability of 90 % or more, and nothing odd),
reject (10 % or less) or doubtful, with its reasons. Odd are: far from the parent, less variety,
other lengths, worse dense components. A reward that trained the policy must not judge it: give
--preferences, whose withheld votes then do.
"""
OUT_OF_MEMORY = "Use --device cpu, or end what else is on the GPU."
WORKERS = 2  # contenders that edit side by side: most of it runs outside the interpreter's lock
logger = logging.getLogger("rlhf_core.evaluation")  # also when run with -m


def test_songs(test_dir: Path, cache_dir: Path | None) -> list[Song]:
    """The usable audio files of a folder (or of its test/ folder, where it has one)."""
    folder = test_dir / "test" if (test_dir / "test").is_dir() else test_dir
    songs = []
    for path in find_songs(folder):
        try:
            songs.append(load_song(path, cache_dir or test_dir / ".cache", split="test"))
        except CoreError as error:
            logger.warning("left out: %s", error)
    if not songs:
        raise DataError(f"{folder}: holds no usable song to test on")
    return songs


def pick(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """At most `limit` passages, drawn without order's favour."""
    if len(items) <= limit:
        return list(items)
    chosen = np.random.default_rng(seed).permutation(len(items))[:limit]
    return [items[int(i)] for i in sorted(chosen)]


def scorer(integration: LearnedRewardIntegration | None, seed: int = 0) -> Score | None:
    """Scores under tastes drawn from the reward's posterior: what votes leave open stays open."""
    return None if integration is None else tastes(integration, seed)


def evaluate_policy(
    agent: Agent,
    items: Sequence[Item],
    *,
    parent: Agent | None = None,
    integration: LearnedRewardIntegration | None = None,
    judge: dict[str, Any] | None = None,
    per_passage: int = 4,
    seed: int = 0,
    baselines: bool = True,
) -> dict[str, Any]:
    """Everything that is known about a policy's edits, as plain values (`results.json`).

    judge: where the reward comes from, as the verdict's reasons and the results tell it.
    baselines: False compares with the parent alone, which is all that a verdict needs.
    """
    score = scorer(integration, seed)
    contenders = contend(agent, items, parent, score, per_passage, seed, baselines)
    return compare(agent, parent, items, contenders, judge)


def contend(
    agent: Agent,
    items: Sequence[Item],
    parent: Agent | None,
    score: Score | None,
    per_passage: int,
    seed: int,
    baselines: bool = True,
) -> dict[str, Edits]:
    """The edits of policy, parent and baselines, by name; a core each, where there are two."""
    if per_passage < 1:
        raise ConfigError(f"edits per passage must be at least 1, got {per_passage}")
    jobs: dict[str, Callable[[], Edits]] = {
        "policy": lambda: comparison.edits_of_agent(agent, items, per_passage, seed, score)
    }
    if parent is not None:
        jobs["parent"] = lambda: comparison.edits_of_agent(
            parent, items, per_passage, seed + 1, score
        )
    for name, make in comparison.baselines(seed).items() if baselines else ():
        fewer = min(per_passage, BASELINE_EDITS)
        jobs[name] = partial(comparison.edits_by, make, items, fewer, score)
    with ThreadPoolExecutor(WORKERS) as pool:
        made = {name: pool.submit(_without_gradients, job) for name, job in jobs.items()}
        return {name: future.result() for name, future in made.items()}


def _without_gradients(job: Callable[[], Edits]) -> Edits:
    with torch.no_grad():  # torch keeps this switch per thread
        return job()


def compare(
    agent: Agent,
    parent: Agent | None,
    items: Sequence[Item],
    contenders: dict[str, Edits],
    judge: dict[str, Any] | None,
) -> dict[str, Any]:
    """What the edits say: `evaluate_policy`'s results."""
    scored = bool(np.isfinite(contenders["policy"].scores).all())
    results: dict[str, Any] = {
        "passages": len(items),
        "songs": len({state.song_id for state, _ in items}),
        "edits_per_passage": contenders["policy"].scores.shape[1],
        "judged_by": judge,
        "contenders": {name: comparison.summary(edits) for name, edits in contenders.items()},
        "win_rates": _win_rates(contenders) if scored else None,
    }
    if parent is not None:
        results["kl_to_parent"] = comparison.drift(agent, parent, contenders["policy"])
        results["verdict"] = verdict(results)
    return results


def _win_rates(contenders: dict[str, Edits]) -> dict[str, dict[str, float]]:
    ours = contenders["policy"]
    return {
        name: comparison.win_rate(ours.scores, edits.scores, ours.songs)
        for name, edits in contenders.items()
        if name != "policy"
    }


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
    lines += _made_of(results["contenders"])
    if "verdict" in results:
        lines.append(f"KL to parent {results['kl_to_parent']:.3f} nats per decision")
        lines.append(f"verdict: {results['verdict']['decision']}")
        lines += [f"  - {reason}" for reason in results["verdict"]["reasons"]]
    return "\n".join(lines)


def _made_of(contenders: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each contender's dense components, and its share of beats by action (KEEP is the rest)."""
    lines = []
    for key, form in (("dense_components", ".2f"), ("actions", ".0%")):
        names = [name for name in next(iter(contenders.values()))[key] if name != "KEEP"]
        titles = [f"  {name.replace('_', ' ').lower()}" for name in names]
        lines += ["", f"{'':22s}" + "".join(titles)]
        for who, row in contenders.items():
            cells = zip(names, titles, strict=True)
            lines.append(f"{who:22s}" + "".join(f"{row[key][n]:{len(t)}{form}}" for n, t in cells))
    return [*lines, ""]


def _interval(value: dict[str, float] | None, form: str) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:{form}} ({value['low']:{form}}, {value['high']:{form}})"


def _plot(folder: Path, results: dict[str, Any]) -> None:
    """Win rates where there is a reward model, dense rewards where there is none; the edits."""
    rows = results["contenders"]
    if results["win_rates"] is not None:
        chosen, label, line = results["win_rates"], "win rate of the policy against", 0.5
    else:
        chosen, label, line = {n: row["dense_reward"] for n, row in rows.items()}, "dense", None
    values, low, high = ([row[key] for row in chosen.values()] for key in ("mean", "low", "high"))
    figure = bars_figure(list(chosen), values, low, high, label=label, reference=line)
    save_figure(figure, folder / "evaluation.png")
    save_figure(edits_figure(rows), folder / "edits.png")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.evaluation",
        description="Compare a policy with baselines, and with its parent, on unseen songs.",
        epilog=VERDICTS,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="policy to evaluate")
    parser.add_argument("--test_dir", type=Path, required=True, help="folder of songs to test on")
    parser.add_argument("--cache_dir", type=Path, help="analysed songs (in the test folder)")
    _judging_arguments(parser)
    parser.add_argument("--output_dir", type=Path, default=Path("evaluation"), help="run's folder")
    parser.add_argument("--edits", type=int, default=4, help="edits of each passage")
    parser.add_argument("--max_passages", type=int, default=96, help="passages at most")
    parser.add_argument(
        "--examples", type=int, default=3, help="passages to render, to listen to; 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser


def _judging_arguments(parser: argparse.ArgumentParser) -> None:
    """The parent, and by which reward both are judged."""
    parser.add_argument("--parent", type=Path, help="policy that it came from: asks for a verdict")
    parser.add_argument("--reward_model", type=Path, help="reward checkpoint (looked up)")
    parser.add_argument(
        "--preferences",
        type=Path,
        help="snapshot of votes: judge by a reward fitted on the withheld ones alone",
    )
    parser.add_argument(
        "--data_dir", type=Path, help="with --preferences: folder whose train/ was voted on"
    )
    parser.add_argument(
        "--gate_trunk",
        type=Path,
        help="with --preferences: bootstrap of another seed to fit them on (the package's own)",
    )
    parser.add_argument(
        "--withheld_share", type=float, default=WITHHELD_SHARE, help="of the votes, whole songs"
    )
    parser.add_argument(
        "--include_simulated", action="store_true", help="with --preferences: simulated votes too"
    )
    parser.add_argument("--no_reward", action="store_true", help="dense reward alone")


def _integration(
    args: argparse.Namespace,
) -> tuple[LearnedRewardIntegration | None, dict[str, Any] | None]:
    """The reward that judges, and where it comes from."""
    if args.no_reward:
        return None, None
    path = args.reward_model
    if path is None:
        path, where = find_default_checkpoint(Path())
        logger.info("reward model: the default one, from %s", where)
    if args.preferences is not None:
        return _withheld_reward(args, path)
    integration = LearnedRewardIntegration(LearnedRewardConfig(device=args.device))
    integration.load_model(path)
    return integration, {"reward_model": str(path), "withheld_votes": None}


def _withheld_reward(
    args: argparse.Namespace, path: Path
) -> tuple[LearnedRewardIntegration, dict[str, Any]]:
    """A reward of the withheld votes; says so where the training's reward saw them too.

    The reward at `path` is the one that the policy was trained on."""
    if args.data_dir is None:
        raise ConfigError("--preferences needs --data_dir, the folder with the songs voted on")
    dataset = read_snapshot(args.preferences)
    votes = dataset.usable(include_simulated=args.include_simulated)
    learned, withheld = parts_of(votes, args.withheld_share)
    songs = load_library(args.data_dir, args.cache_dir)
    states = {song.state.song_id: song.state for song in songs}
    own = args.gate_trunk or gate_trunk()
    settings = load_reward(path).lineage.get("settings") or {}
    seen = settings.get("votes", 0) > len(learned)
    return judging_reward(withheld, states, load_reward(own), args.seed), {
        "reward_model": str(own),
        "withheld_votes": len(withheld),
        "seen_in_training": seen,
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate as the arguments say; the results."""
    check_device(args.device)
    use_threads(args.threads)
    agent = load_policy(args.checkpoint, args.device)
    parent = None if args.parent is None else load_policy(args.parent, args.device)
    integration, judge = _integration(args)
    for name in ("results.json", "evaluation.png", "edits.png", "examples"):
        set_aside(args.output_dir / name)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    folder = RunFolder(args.output_dir, "evaluate", settings)
    with running(folder), torch.no_grad():
        songs = test_songs(args.test_dir, args.cache_dir)
        items = pick(passages_of(songs), args.max_passages, args.seed)
        folder.status("running", 0.2, f"editing {len(items)} passages")
        score = scorer(integration, args.seed)
        contenders = contend(agent, items, parent, score, args.edits, args.seed)
        results = compare(agent, parent, items, contenders, judge)
        _plot(args.output_dir, results)
        folder.status("running", 0.8, "rendering examples")
        paths = {song.song_id: song.path for song in songs}
        results["examples"] = write_examples(
            args.output_dir / "examples", items, paths, _heard(contenders), args.examples
        )
        folder.finish({"checkpoint": str(args.checkpoint), **results})
    return results


def _heard(contenders: dict[str, Edits]) -> dict[str, Edits]:
    """Whose edits are rendered: not those of keep_all, which is the original."""
    return {name: edits for name, edits in contenders.items() if name != "keep_all"}


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)

    def body() -> None:
        start_logging()
        with advising(OUT_OF_MEMORY):
            results = run(args)
        print(table(results))
        if results["examples"]:
            print(f"to listen to: {args.output_dir / 'examples'}")

    return guarded(body, stopped)


if __name__ == "__main__":
    sys.exit(main())
