"""The training loop: roll out, pay, update, record, save, and resume as if never stopped.

    output_dir/models/policy_best.pt, policy_final.pt, checkpoint_{N}.pt
    output_dir/logs/training_history.json, training.log, training_progress.png
    output_dir/metrics.jsonl, status.json …   (see `rlhf_core.runs`)

checkpoint_{N}.pt is written after the first update that reaches the multiple N of the save
interval; it and policy_final.pt hold all that a resumed run needs (weights, optimiser, reference
policy, random state, history, true step). Nothing in them depends on total_steps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rlhf_core import history
from rlhf_core.checkpoints import save_checkpoint
from rlhf_core.editing.actions import Action
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import CheckpointError, ConfigError, DataError
from rlhf_core.plots import save_training_plot
from rlhf_core.policy.agent import Agent, agent_content, agent_from_content, save_policy
from rlhf_core.policy.commands import log_file, stop_request
from rlhf_core.policy.dpo import DPOConfig, DPOTrainer, PairBatch, ranked_pairs
from rlhf_core.policy.event_file import EventFile
from rlhf_core.policy.held_out import HeldOut
from rlhf_core.policy.ppo import PPOConfig, PPOTrainer
from rlhf_core.policy.rewards import EditRewards, Item, RewardSource
from rlhf_core.policy.rollout import Rollout, collect
from rlhf_core.policy.shares import anyone
from rlhf_core.policy.votes import VotePairs
from rlhf_core.runs import RunFolder

ALGORITHMS = ("ppo", "dpo")
SUMMED_UP = 5  # updates over which a result's figures are averaged: one is mostly luck
MONITOR_EPISODES = 16
HELD_OUT_EVERY = 5  # updates
LOGGED = (  # in lines of the log; the history has all
    "total_reward",
    "learned_reward",
    "dense_reward",
    "policy_loss",
    "value_loss",
    "accuracy",
    "margin",
    "kl_reference",
    "entropy",
    "keep_ratio",
)
NEWER = {"ppo": ("held_out_reward", "entropy_weight"), "dpo": ("held_out_reward",)}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingConfig:
    """What the loop itself needs to know; the algorithms have configs of their own.

    total_steps counts beats of edits, decided or forced; n_steps is how many an update learns
    from at least (whole episodes). edits: how many edits of a passage a roll-out holds; they
    share its encoding, which is most of the work, so more are faster and see fewer passages.
    bf16: encode in bfloat16 (autocast): for GPUs, and CPUs that have it, with larger networks.
    """

    algorithm: str = "ppo"
    total_steps: int = 100_000
    n_steps: int = 2048
    edits: int = 8
    save_interval: int = 10_000
    log_every: int = 10
    plot_every: int = 20
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm {self.algorithm!r} is not one of {', '.join(ALGORITHMS)}")
        counts = (self.total_steps, self.n_steps, self.edits, self.save_interval, self.log_every)
        if min(*counts, self.plot_every) < 1:
            raise ConfigError(f"step counts and intervals must be positive: {self}")
        if self.algorithm == "dpo" and self.edits < 2:
            raise ConfigError("DPO compares edits of a passage: --edits must be at least 2")


class RLHFTrainer:
    """Trains `agent` on passages with a reward; holds it near `reference` (default: its start).

    votes: for DPO on human votes; without them DPO ranks pairs of the policy's own edits.
    held_out: passages never trained on, whose reward chooses policy_best.pt (`policy.held_out`);
        without them it is the last one. held_out_reward pays them (default: `reward`).
    events: where TensorBoard event files go, None for none.
    lineage, reward_config: plain values that go into every checkpoint.
    """

    def __init__(
        self,
        agent: Agent,
        items: Sequence[Item],
        reward: RewardSource,
        output_dir: Path,
        config: TrainingConfig | None = None,
        *,
        ppo: PPOConfig | None = None,
        dpo: DPOConfig | None = None,
        reference: Agent | None = None,
        votes: VotePairs | None = None,
        held_out: Sequence[Item] = (),
        held_out_reward: RewardSource | None = None,
        events: Path | None = None,
        lineage: dict[str, Any] | None = None,
        reward_config: dict[str, Any] | None = None,
        run: RunFolder | None = None,
    ) -> None:
        if not items:
            raise DataError("there is no passage to train on")
        self.agent, self.items, self.reward = agent, list(items), reward
        self.config, self.run, self.lineage = config or TrainingConfig(), run, lineage or {}
        self.reference = reference if reference is not None else copy_of(agent)
        self.agent.bf16 = self.reference.bf16 = self.config.bf16
        self.votes, self.reward_config = votes, reward_config or {}
        self.held_out = HeldOut(held_out, held_out_reward or reward, self.config.seed)
        self.events = None if events is None else EventFile(events)
        self.algorithm: PPOTrainer | DPOTrainer = (
            PPOTrainer(agent, self.reference, ppo)
            if self.config.algorithm == "ppo"
            else DPOTrainer(agent, self.reference, dpo)
        )
        self.models, self.logs = output_dir / "models", output_dir / "logs"
        self.generator = torch.Generator().manual_seed(self.config.seed)
        self.columns: history.Columns = {}
        self.step, self.episode = 0, 0

    # ---- the loop

    def train(self) -> dict[str, Any]:
        """Train to total_steps. On Ctrl-C or SIGTERM: finish the update, save, and raise."""
        self.models.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        total, begun = self.config.total_steps, self.step
        with (
            log_file(self.logs / "training.log"),
            stop_request() as stop,
            tqdm(total=total, initial=begun, unit="step", disable=None, dynamic_ncols=True) as bar,
        ):
            logger.info(
                "%s from step %d to %d on %d passages",
                self.config.algorithm,
                begun,
                total,
                len(self.items),
            )
            stopping = False
            while self.step < total and not (stopping := anyone(stop.is_set())):
                before = self.step
                row = self._update()
                self._record(row)
                self._save_if_due(before)
                bar.update(self.step - before)
                bar.set_postfix(
                    reward=f"{row['total_reward']:+.3f}", kl=f"{row['kl_reference']:.3f}"
                )
            if stopping:
                self._interrupted()
            return self._finish()

    def _update(self) -> dict[str, Any]:
        """One update; the row it adds to the history."""
        unseen = self._keep_best()
        if isinstance(self.algorithm, PPOTrainer):
            rollout, rewards = self._collect_rollouts_with_learned_rewards()
            logs = self.algorithm.update(rollout, rewards.total, self.generator)
            steps, extra = rollout.steps, {}
        else:
            rollout, rewards, pairs = self._preference_pairs()
            logs = self.algorithm.update(pairs, self.generator)
            steps, extra = pairs.steps, {"value_loss": None, "approx_kl": None}
        keep = (rollout.actions != Action.CUT)[rollout.batch.valid].float().mean()
        row = {"episode": self.episode, "step": self.step, **rewards.means(), **logs, **extra}
        self.step += steps
        self.episode += 1
        return {**row, "keep_ratio": float(keep), "held_out_reward": unseen}

    # ---- data

    def _passages(self, steps: int) -> list[int]:
        """Indices of passages with at least `steps` beats in all; each once before any twice."""
        chosen: list[int] = []
        beats = 0
        while True:
            for index in torch.randperm(len(self.items), generator=self.generator).tolist():
                chosen.append(index)
                beats += self.items[index][1].n_beats
                if beats >= steps:
                    return chosen

    def _collect_rollouts_with_learned_rewards(
        self, n_steps: int | None = None, edits: int | None = None
    ) -> tuple[Rollout, EditRewards]:
        """Whole episodes of at least n_steps in all, `edits` per passage, and what they earn."""
        wanted = n_steps or self.config.n_steps
        edits = edits or self.config.edits
        items = [self.items[i] for i in self._passages(-(-wanted // edits))]
        passages = PassageBatch.from_passages(items, self.agent.device)
        rollout = collect(self.agent, passages, self.generator, edits=edits)
        with torch.no_grad():
            return rollout, self.reward(rollout.batch, rollout.actions, items * edits)

    def _preference_pairs(self) -> tuple[Rollout, EditRewards, PairBatch]:
        """Pairs to learn from: votes, or the policy's own edits of now ranked by the reward."""
        if self.votes is not None:
            pairs = self.votes.draw(self.config.n_steps, self.generator, self.agent.device)
            beats = MONITOR_EPISODES * self.items[0][1].n_beats
            rollout, rewards = self._collect_rollouts_with_learned_rewards(beats, edits=1)
            return rollout, rewards, pairs
        rollout, rewards = self._collect_rollouts_with_learned_rewards()
        better, worse = ranked_pairs(rewards.total, rollout.passage)
        label = 0.5 + 0.5 * torch.sign(rewards.total[better] - rewards.total[worse])
        pairs = PairBatch(
            rollout.batch.select(better), rollout.actions[better], rollout.actions[worse], label
        )
        return rollout, rewards, pairs

    # ---- what is written

    def _record(self, row: dict[str, Any]) -> None:
        history.append(self.columns, row)
        if self.events is not None:
            self.events.scalars(row["step"], row)
        if self.run is not None:
            self.run.metric(**row)
            share = min(1.0, self.step / self.config.total_steps)
            self.run.progress(share, f"step {self.step} of {self.config.total_steps}")
        level = logging.INFO if row["episode"] % self.config.log_every == 0 else logging.DEBUG
        text = "  ".join(f"{k} {row[k]:.4f}" for k in LOGGED if row.get(k) is not None)
        logger.log(level, "episode %d  step %d  %s", row["episode"], row["step"], text)
        if (row["episode"] + 1) % self.config.plot_every == 0:
            self._write_history()

    def _write_history(self) -> None:
        self.save_training_history()
        save_training_plot(self.logs / "training_progress.png", self.columns)

    def save_training_history(self, path: Path | None = None) -> Path:
        """Write the history (default: logs/training_history.json)."""
        path = path or self.logs / "training_history.json"
        history.save(path, self.columns)
        return path

    def load_training_history(self, path: Path | None = None) -> history.Columns:
        """Read a history (default: logs/training_history.json) and go on with it."""
        self.columns = history.load(path or self.logs / "training_history.json")
        return self.columns

    def _keep_best(self) -> float | None:
        """Save the weights when they are the best so far. The held-out reward, where measured.

        Called before an update, so the weights are those that the row's other rewards came from.
        """
        if not self.held_out or self.episode % HELD_OUT_EVERY:
            return None
        now = self.held_out.measure(self.agent, **self._origin())
        if self.held_out.is_best(now):
            self.held_out.take(now)
            save_checkpoint(self.best_path, "policy", now.content)
        return now.mean

    def _save_if_due(self, before: int) -> None:
        interval = self.config.save_interval
        reached = self.step // interval
        if reached > before // interval:
            self._save(f"checkpoint_{reached * interval}.pt")
            self.save_training_history()

    def _save(self, name: str, resumable: bool = True) -> Path:
        path = self.models / name
        more = {"training": self.state()} if resumable else {}
        save_policy(path, self.agent, **self._origin(), **more)
        return path

    def _origin(self) -> dict[str, Any]:
        """What every checkpoint tells beside its weights."""
        return {"lineage": self.lineage, "step": self.step, "episode": self.episode}

    @property
    def best_path(self) -> Path:
        return self.models / "policy_best.pt"

    def _interrupted(self) -> None:
        path = self._save(f"checkpoint_{self.step}.pt")
        self._write_history()
        logger.warning(
            "stopped at step %d. To go on, give the same command with --checkpoint %s, "
            "without --policy and --reference",
            self.step,
            path,
        )
        raise KeyboardInterrupt

    def _finish(self) -> dict[str, Any]:
        final = self._save("policy_final.pt")
        best_step = self._write_best()
        self._write_history()
        logger.info("finished at step %d: %s", self.step, final)
        logger.info(
            "the best on held-out passages is that of step %d: %s", best_step, self.best_path
        )
        if best_step == 0:
            logger.warning("on held-out passages nothing was better than what training began with")
        metrics = {name: _last(values) for name, values in self.columns.items()}
        return {
            "checkpoint": str(final),
            "best_checkpoint": str(self.best_path),
            "best_step": best_step,
            "steps": self.step,
            "metrics": metrics,
        }

    def _write_best(self) -> int:
        """Write the best checkpoint, the last one among those that may be it; its step.

        What resuming starts from does not change: that must not depend on where a run ended.
        """
        best = self.held_out.best
        if self.held_out:
            last = self.held_out.measure(self.agent, **self._origin())
            best = last if self.held_out.is_best(last) else best
        if best is None:
            self._save(self.best_path.name, resumable=False)
            return self.step
        save_checkpoint(self.best_path, "policy", best.content)
        return int(best.content["step"])

    # ---- resuming

    def state(self) -> dict[str, Any]:
        """All that going on needs beside the weights."""
        return {
            "algorithm": self.config.algorithm,
            "config": asdict(self.config),
            "algorithm_config": asdict(self.algorithm.config),
            "reward_config": self.reward_config,
            "optimisation": self.algorithm.state_dict(),
            "reference": agent_content(self.reference),
            "generator": self.generator.get_state(),
            "history": {name: list(values) for name, values in self.columns.items()},
            "step": self.step,
            "episode": self.episode,
            "held_out": self.held_out.state(),
        }

    def restore(self, path: Path, state: dict[str, Any]) -> None:
        """Go on from the "training" part of a checkpoint (the agent holds its weights already)."""
        if state["algorithm"] != self.config.algorithm:
            raise CheckpointError(
                f"{path}: was training by {state['algorithm']}, not {self.config.algorithm}. "
                "Resume with the same --algorithm, or start anew from it with --policy."
            )
        self.algorithm.load_state_dict(state["optimisation"])
        self.reference.load_state_dict(agent_from_content(path, state["reference"]).state_dict())
        self.generator.set_state(state["generator"].cpu())
        self.columns = history.validate(
            {name: list(values) for name, values in state["history"].items()}, str(path)
        )
        if self.columns:  # trainings of before these columns were
            for name in NEWER[self.config.algorithm]:
                self.columns.setdefault(name, [None] * len(self.columns["step"]))
        self.held_out.restore(state.get("held_out"))
        self.step, self.episode = state["step"], state["episode"]
        if self.events is not None:
            self.events.resumed(self.step)


def copy_of(agent: Agent) -> Agent:
    """A frozen twin."""
    twin = Agent(agent.config).to(agent.device)
    twin.load_state_dict(agent.state_dict())
    return twin.requires_grad_(False).eval()


def _last(values: Sequence[history.Value]) -> history.Value:
    """Mean of the last few known values: what a result is summed up by."""
    known = [v for v in values[-SUMMED_UP:] if v is not None]
    return sum(known) / len(known) if known else None
