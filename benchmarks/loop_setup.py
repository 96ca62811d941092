"""What the cells of `loop.py` are made with: settings, songs, first policy and bootstraps."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_core.evaluation import pick
from rlhf_core.judges import Judge
from rlhf_core.policy import comparison
from rlhf_core.policy.agent import Agent, load_policy, save_policy
from rlhf_core.policy.comparison import edits_by, edits_of_agent
from rlhf_core.policy.dpo import DPOConfig
from rlhf_core.policy.gate import gate_trunk
from rlhf_core.policy.imitation import imitate
from rlhf_core.policy.ppo import PPOConfig
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.songs import load_items
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.learned_reward_integration import (
    LearnedRewardConfig,
    find_default_checkpoint,
)
from rlhf_core.reward.withholding import WITHHELD_SHARE

GATE_PASSAGES, JUDGE_PASSAGES = 40, 60


@dataclass(frozen=True)
class Settings:
    """What makes a cell's figures; cells of other settings are other cells."""

    votes: int = 150
    rounds: int = 3
    steps: int = 102_400
    learned: str = "lower-bound"
    lcb: float = LearnedRewardConfig.lcb
    kl_target: float = PPOConfig.kl_target
    lr: float = PPOConfig.lr
    minibatch: int = PPOConfig.minibatch_episodes
    beta: float = DPOConfig.beta
    cross: int = 24  # of a round's votes, on pairs of the proposal and its parent
    withheld: float = WITHHELD_SHARE

    def marks(self) -> str:
        """The settings that are not the usual ones, as part of a folder's name."""
        changed = {k: v for k, v in asdict(self).items() if v != getattr(Settings(), k)}
        return "".join(f"-{name}{value}" for name, value in changed.items())


@dataclass(frozen=True)
class Setup:
    """What all cells share. gate and judge: unseen passages of different songs."""

    train: list[Item]
    gate: list[Item]
    judge: list[Item]
    first: Agent
    bootstrap: RewardCheckpoint
    trunk: RewardCheckpoint
    known: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, Any]:
        return {state.song_id: state for state, _ in self.train}

    def standards(self, judge: Judge) -> dict[str, NDArray[np.float64]]:
        """Scores (P, 4) of the first policy and of every preset, which no round changes."""
        if judge.name not in self.known:
            score = judge.score
            edits = {"first": edits_of_agent(self.first, self.judge, 4, 12, score)} | {
                name: edits_by(make, self.judge, 4, score)
                for name, make in comparison.baselines(0).items()
                if name.startswith("heuristic")
            }
            self.known[judge.name] = {name: made.scores for name, made in edits.items()}
        return self.known[judge.name]


def prepare(args: argparse.Namespace) -> Setup:
    """The songs' passages, the first policy (made once, by imitation) and the bootstraps."""
    train = load_items(args.train_dir, None, "train")
    unseen = load_items(args.test_dir, None, "train")
    songs = list(dict.fromkeys(state.song_id for state, _ in unseen))
    gate = set(songs[: len(songs) * 2 // 5])
    path = args.out / "policy_first.pt"
    if not path.is_file():
        agent, _ = imitate(train, 0)
        save_policy(path, agent)
    bootstrap = load_reward(args.reward_model or find_default_checkpoint(Path())[0])
    return Setup(
        train,
        pick([item for item in unseen if item[0].song_id in gate], GATE_PASSAGES, 0),
        pick([item for item in unseen if item[0].song_id not in gate], JUDGE_PASSAGES, 0),
        load_policy(path),
        bootstrap,
        load_reward(args.gate_trunk or gate_trunk()),
    )
