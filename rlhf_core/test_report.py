"""Is this checkpoint fit for use?

    python -m rlhf_core.test_report models/reward_model_final.pt --plot reliability.png

prints integrity, configuration, all figures (of a reward fitted to votes: the whole report with a
reliability diagram), weights and a try-out on made-up beats for a reward or a policy checkpoint;
exits with 1 when a check fails and 2 when it cannot be read. (A command, not a test module: pytest
collects from tests/ only.)
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf_core.audio.feature_table import BEAT_FEATURES, FEATURE_VERSION
from rlhf_core.checkpoints import load_checkpoint
from rlhf_core.command_line import guarded
from rlhf_core.editing import dynamics
from rlhf_core.editing.actions import ACTION_NAMES, N_ACTIONS, Action
from rlhf_core.errors import CheckpointError, ConfigError
from rlhf_core.files import sha256_of
from rlhf_core.plots import reliability_figure, save_figure
from rlhf_core.reward.checkpoint import KIND, RewardCheckpoint, load_reward
from rlhf_core.reward.metrics import wilson_interval
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.report_text import metrics_text, values_text
from rlhf_core.types import AudioState, BeatGrid, Passage

TOLERANCE = 1e-3
N_BEATS, PADDING = 32, 8
KINDS = (KIND, "policy")

Check = tuple[str, bool, str]  # what, whether it holds, detail


def kind_of(path: Path) -> tuple[str, dict[str, Any]]:
    """The checkpoint's kind and content, or the CheckpointError of why it cannot be read."""
    for kind in KINDS:
        try:
            return kind, load_checkpoint(path, kind)
        except CheckpointError as error:
            if "was asked for" not in str(error) or kind == KINDS[-1]:
                raise
    raise CheckpointError(f"{path}: neither a reward model nor a policy")


def tensors_of(data: Any) -> Iterable[Tensor]:
    """All tensors in nested dictionaries and lists."""
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from tensors_of(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from tensors_of(value)


def weight_checks(weights: Mapping[str, Tensor]) -> list[Check]:
    tensors = list(tensors_of(weights))
    count = sum(tensor.numel() for tensor in tensors)
    bad = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    still = [n for n, t in weights.items() if n.endswith("weight") and t.numel() and not t.any()]
    return [
        ("there are weights", count > 0, f"{count:,} values in {len(tensors)} tensors"),
        ("all finite", not bad, ", ".join(bad) or "yes"),
        ("no weight matrix is all zero", not still, ", ".join(still) or "yes"),
    ]


def made_up_passage(normaliser: tuple[Tensor, Tensor], seed: int = 0) -> dynamics.PassageBatch:
    """A passage of synthetic beats that are usual for the checkpoint's songs."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((N_BEATS, BEAT_FEATURES))
    mean, std = (x.double().cpu().numpy() for x in normaliser)
    grid = BeatGrid(
        np.linspace(0.0, N_BEATS / 2, N_BEATS + 1), np.arange(N_BEATS) % 4, 120.0, source="known"
    )
    state = AudioState("synthetic", grid, (mean + std * noise).astype(np.float32))
    return dynamics.PassageBatch.from_passages([(state, Passage(0, N_BEATS))])


def padded(batch: dynamics.PassageBatch) -> dynamics.PassageBatch:
    """The same passage with room behind it, filled with what must not matter."""
    room = torch.zeros(1, PADDING)
    return dynamics.PassageBatch(
        torch.cat([batch.features, torch.full((1, PADDING, BEAT_FEATURES), 7.0)], 1),
        torch.cat([batch.durations, room], 1),
        torch.cat([batch.bar_phase, room.long()], 1),
        batch.beats_per_bar,
        batch.lengths,
    )


def scores_of_actions(model: LearnedRewardModel, batch: dynamics.PassageBatch) -> Tensor:
    """(N_ACTIONS,) scores of a passage's edits in which one beat has each action, all others KEEP.

    The first is KEEP: the passage as it is.
    """
    edits = torch.zeros(N_ACTIONS, N_BEATS, dtype=torch.long)
    edits[torch.arange(N_ACTIONS), 8] = torch.arange(N_ACTIONS)
    same = torch.zeros(N_ACTIONS, dtype=torch.long)
    with torch.no_grad():
        scores: Tensor = model(*dynamics.reward_inputs(batch.select(same), edits))
    return scores


def moved_by_padding(model: LearnedRewardModel, batch: dynamics.PassageBatch) -> float:
    """By how much room behind the passage, with cuts in it, changes the score of the passage."""
    plain = torch.zeros(1, N_BEATS, dtype=torch.long)
    beyond = torch.full((1, PADDING), int(Action.CUT))
    features, ids, valid = dynamics.reward_inputs(padded(batch), torch.cat([plain, beyond], 1))
    ids = torch.where(valid, ids, int(Action.CUT))
    with torch.no_grad():
        alone = model(*dynamics.reward_inputs(batch, plain))
        return float((model(features, ids, valid) - alone).abs())


def reward_checks(checkpoint: RewardCheckpoint) -> list[Check]:
    """Scores are finite, do not hear padding, and hear every action and the song."""
    model = checkpoint.model
    normaliser = (model.normaliser.mean, model.normaliser.std)
    batch, another = (made_up_passage(normaliser, seed) for seed in (0, 1))
    scores, elsewhere = scores_of_actions(model, batch), scores_of_actions(model, another)
    # What is identified are differences within a passage: on other beats those are others.
    apart = float(((scores - scores[0]) - (elsewhere - elsewhere[0])).abs().max())
    moved = moved_by_padding(model, batch)
    spread = max(checkpoint.sigma, 1e-9)
    deaf = [ACTION_NAMES[i] for i in range(1, N_ACTIONS) if scores[i] == scores[0]]
    mean = checkpoint.mean.double()
    agrees = torch.allclose(model.head.weight[0].double(), mean, atol=1e-5, rtol=1e-4)
    eigenvalues = torch.linalg.eigvalsh(checkpoint.covariance.double())
    scales = (checkpoint.mu, checkpoint.sigma)
    return [
        ("scores are finite", bool(torch.isfinite(scores).all()), f"{float(scores[0]):.4f}"),
        ("padding changes nothing", moved < TOLERANCE * spread, f"moved by {moved:.2e}"),
        ("every action changes the score", not deaf, ", ".join(deaf) or "yes"),
        ("what sounds changes the score", apart > TOLERANCE * spread, f"by {apart:.2e}"),
        ("the head is the posterior's mean", agrees, "yes" if agrees else "no"),
        (
            "the covariance is one",
            bool(eigenvalues[0] > -1e-6 * eigenvalues[-1].abs()),
            f"smallest eigenvalue {float(eigenvalues[0]):.2e}",
        ),
        (
            "mu and sigma are those of the reference edits",
            bool(np.allclose(scales, checkpoint.reference.scale_of(mean), rtol=1e-4, atol=1e-6)),
            f"mu {checkpoint.mu:.3f}, sigma {checkpoint.sigma:.3f}, dense "
            f"{checkpoint.reference.dense_mu:.3f}, {checkpoint.reference.dense_sigma:.3f}",
        ),
    ]


def policy_checks(path: Path, content: dict[str, Any]) -> list[Check]:
    """Decisions are finite, legal, do not hear padding, and can be repeated."""
    from rlhf_core.policy.agent import agent_from_content
    from rlhf_core.policy.rollout import collect

    agent = agent_from_content(path, content).eval()
    batch = made_up_passage((agent.feature_mean, agent.feature_std))
    with torch.no_grad():
        first, again = (
            collect(agent, batch, torch.Generator().manual_seed(0)).actions for _ in range(2)
        )
        replay = dynamics.replay(batch, first)
        logits, value = agent.decide_all(agent.encode(batch), replay.last_kept, replay.history)
        moved = (agent.encode(padded(batch))[:, :N_BEATS] - agent.encode(batch)).abs().max()
    finite = bool(torch.isfinite(logits).all()) and bool(torch.isfinite(value).all())
    kept = float((first != Action.CUT).float().mean())
    return [
        ("decisions are finite", finite, f"value {float(value[0, 0]):.3f}"),
        ("edits are legal", bool((replay.actions == first).all()), f"keeps {kept:.0%}"),
        ("padding changes nothing", float(moved) < TOLERANCE, f"moved by {float(moved):.2e}"),
        ("the same seed, the same edit", bool((first == again).all()), "yes"),
    ]


def _show(title: str, lines: Iterable[str]) -> None:
    print(f"\n{title}")
    for line in lines:
        print(line)


def _judge(title: str, checks: list[Check]) -> bool:
    print(f"\n{title}")
    for what, holds, detail in checks:
        print(f"  {'ok  ' if holds else 'FAIL'} {what}: {detail}")
    return all(holds for _, holds, _ in checks)


def metric_checks(metrics: Mapping[str, Any]) -> list[Check]:
    odd = list(_not_finite(metrics))
    return [("figures are finite", not odd, ", ".join(odd) or "yes")]


def _not_finite(values: Mapping[str, Any], inside: str = "") -> Iterable[str]:
    """Names of numbers that are none, however deep."""
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{inside}{name}"
        elif isinstance(value, Mapping):
            yield from _not_finite(value, f"{inside}{name}.")
        elif isinstance(value, (list, tuple)):
            listed = {str(place): item for place, item in enumerate(value)}
            yield from _not_finite(listed, f"{inside}{name}.")


def inference_checks(path: Path, kind: str, content: dict[str, Any]) -> list[Check]:
    """The try-out; a checkpoint that cannot be set up fails one check that says why."""
    try:
        return reward_checks(load_reward(path)) if kind == KIND else policy_checks(path, content)
    except CheckpointError as error:
        return [("it can be set up", False, str(error))]


def report(path: Path, plot: Path | None = None) -> bool:
    """Print the whole report; True when every check holds. plot: where the reliability plot goes.

    Raises CheckpointError if it is unreadable, ConfigError when there is nothing to plot.
    """
    kind, content = kind_of(path)
    print(f"{path}: a {kind.replace('_', ' ')}")
    lineage = content.get("lineage", {})
    integrity = {
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "checksums": "all records have theirs",
        "feature version": FEATURE_VERSION,
        "lineage": lineage,
    }
    _show("Integrity", values_text(integrity))
    if lineage.get("synthetic"):
        print("  note: SYNTHETIC: made without any human vote")
    reward = kind == KIND
    _show("Configuration", values_text(content.get("config" if reward else "agent_config", {})))
    metrics = content.get("metrics", {})
    _show("Figures", metrics_text(metrics) or ["  none"])
    weights = content.get("model" if reward else "state_dict", {})
    results = [
        _judge("Weights", [*weight_checks(weights), *metric_checks(metrics)]),
        _judge("Inference", inference_checks(path, kind, content)),
    ]
    print("\nfit for use" if all(results) else "\nNOT fit for use: see FAIL above")
    if plot is not None:
        save_plot(plot, path, metrics)
    return all(results)


def save_plot(target: Path, path: Path, metrics: Mapping[str, Any]) -> None:
    """The reliability diagram as a PNG file. Raises ConfigError without its figures."""
    bins = metrics.get("reliability")
    if not bins:
        raise ConfigError(
            f"{path}: no plot, for it has no reliability figures: only a reward fitted to decisive "
            "votes on at least two songs has"
        )
    between = [wilson_interval(round(b["observed"] * b["votes"]), b["votes"]) for b in bins]
    save_figure(
        reliability_figure(
            [b["stated"] for b in bins],
            [b["observed"] for b in bins],
            [low for low, _ in between],
            [high for _, high in between],
            [b["votes"] for b in bins],
            f"calibration error {metrics['ece']:.3f}; {metrics['n_votes']} votes",
        ),
        target,
    )
    print(f"reliability plot: {target}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.test_report",
        description="Check a reward or policy checkpoint: integrity, configuration, metrics, "
        "weights, and inference on made-up beats. Exit status 0: fit for use; 1: a check failed; "
        "2: it cannot be read.",
    )
    parser.add_argument("checkpoint", type=Path, help="a .pt file of this project")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw how calibrated it is")
    args = parser.parse_args(argv)
    return guarded(lambda: 0 if report(args.checkpoint, args.plot) else 1)


if __name__ == "__main__":
    sys.exit(main())
