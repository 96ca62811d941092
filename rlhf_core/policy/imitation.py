"""The first policy: it imitates a heuristic editor, so that the very first pairs are worth hearing.

    python -m rlhf_core.policy.imitation --data_dir songs --output_dir run

Edits of every passage by a mixture of the heuristic's presets are replayed, and the policy learns
to give the editor's decisions a high probability (behavioural cloning, Pomerleau 1988). Since the
presets disagree, what it learns is a spread of tastes, and its sampled edits vary.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rlhf_core.checkpoints import lineage
from rlhf_core.command_line import guarded
from rlhf_core.devices import use_threads
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit
from rlhf_core.errors import ConfigError
from rlhf_core.files import set_aside
from rlhf_core.policy.agent import Agent, AgentConfig, save_policy
from rlhf_core.policy.commands import start_logging, stopped
from rlhf_core.policy.losses import masked_mean
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.rollout import Rollout, evaluate, from_actions, taken
from rlhf_core.policy.songs import add_data_arguments, load_items
from rlhf_core.runs import RunFolder, running

logger = logging.getLogger("rlhf_core.policy.imitation")


@dataclass(frozen=True)
class ImitationConfig:
    """edits: how many heuristic edits are made; steps of `batch` edits each are learned from."""

    edits: int = 768
    steps: int = 220
    batch: int = 24
    lr: float = 2e-3
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if min(self.edits, self.steps, self.batch, self.lr, self.max_grad_norm) <= 0:
            raise ConfigError(f"imitation settings must be positive: {self}")


def mean_and_deviation(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Feature statistics (121,) over the beats of each song once: the agent's normaliser."""
    songs = {state.song_id: state for state, _ in items}
    beats = torch.cat([torch.as_tensor(state.features) for state in songs.values()]).double()
    return beats.mean(0).float(), beats.std(0, correction=0).float()


def demonstrations(items: Sequence[Item], count: int, seed: int) -> tuple[list[int], list[Tensor]]:
    """`count` heuristic edits: the passage that each is of (an index), and its actions.

    Passages and presets take turns in shuffled order, so that all are seen equally often.
    """
    rng = np.random.default_rng(seed)
    presets = list(PRESETS)
    passages = [int(i) for _ in range(-(-count // len(items))) for i in rng.permutation(len(items))]
    names = [
        presets[int(i)]
        for _ in range(-(-count // len(presets)))
        for i in rng.permutation(len(presets))
    ]
    edits = [
        torch.as_tensor(heuristic_edit(*items[passage], name, rng))
        for passage, name in zip(passages[:count], names, strict=False)
    ]
    return passages[:count], edits


def imitate(
    items: Sequence[Item],
    seed: int = 0,
    config: ImitationConfig | None = None,
    agent_config: AgentConfig | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[Agent, list[float]]:
    """Train a first policy. Returns it and the loss (nats per decision) of every step."""
    config = config or ImitationConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = Agent(agent_config)
    agent.set_normaliser(*mean_and_deviation(items))
    passages, edits = demonstrations(items, config.edits, seed)
    optimizer = torch.optim.Adam(agent.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.steps, pct_start=0.15
    )
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    order: list[int] = []
    for step in range(config.steps):
        while len(order) < config.batch:
            order += torch.randperm(len(edits), generator=generator).tolist()
        rows, order = order[: config.batch], order[config.batch :]
        loss = _cloning_loss(agent, _replayed(items, passages, edits, rows))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(agent.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(step + 1, config.steps, losses[-1])
    return agent.eval(), losses


def _replayed(
    items: Sequence[Item], passages: Sequence[int], edits: Sequence[Tensor], rows: Sequence[int]
) -> Rollout:
    batch = PassageBatch.from_passages([items[passages[row]] for row in rows])
    actions = torch.zeros(batch.valid.shape, dtype=torch.long)
    for i, row in enumerate(rows):
        actions[i, : len(edits[row])] = edits[row]
    return from_actions(batch, actions)


def _cloning_loss(agent: Agent, demonstrated: Rollout) -> Tensor:
    """Mean negative log-probability of the editor's free decisions."""
    log_probs, _ = evaluate(agent, demonstrated)
    return -masked_mean(taken(log_probs, demonstrated.actions), demonstrated.free)


def first_policy_lineage(seed: int, config: ImitationConfig, songs: int) -> dict[str, object]:
    """Where a first policy came from."""
    settings = {"imitation": asdict(config), "presets": list(PRESETS), "songs": songs}
    return lineage(seed=seed, settings=settings)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.policy.imitation",
        description="Make the first policy by imitating a heuristic editor on your songs.",
        epilog="The policy is written to OUTPUT_DIR/models/policy_final.pt.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_data_arguments(parser)
    parser.add_argument("--output_dir", type=Path, default=Path(), help="the run's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=ImitationConfig.steps, help="optimiser steps")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return guarded(lambda: _run(args), stopped)


def _run(args: argparse.Namespace) -> None:
    start_logging()
    use_threads(args.threads)
    config = ImitationConfig(steps=args.steps)
    for name in ("models/policy_final.pt", "results.json", "metrics.jsonl"):
        set_aside(args.output_dir / name)
    run = RunFolder(args.output_dir, "imitate", {**asdict(config), "seed": args.seed})
    with running(run), tqdm(total=config.steps, unit="step", disable=None) as bar:
        items = load_items(args.data_dir, args.cache_dir, args.split)

        def progress(step: int, total: int, loss: float) -> None:
            bar.update(1)
            run.metric(step=step, loss=loss)
            run.progress(step / total, f"imitating: loss {loss:.3f} nats per decision")

        agent, losses = imitate(items, args.seed, config, progress=progress)
        songs = len({state.song_id for state, _ in items})
        path = args.output_dir / "models" / "policy_final.pt"
        save_policy(
            path, agent, lineage=first_policy_lineage(args.seed, config, songs), step=0, episode=0
        )
        tail = losses[-20:]
        metrics = {"loss": sum(tail) / len(tail), "songs": songs, "passages": len(items)}
        run.finish({"checkpoint": str(path), "steps": config.steps, "metrics": metrics})
    logger.info("first policy: %s", path)


if __name__ == "__main__":
    sys.exit(main())
