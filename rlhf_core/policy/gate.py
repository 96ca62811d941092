"""The gate: may a proposed policy take its parent's place?

A policy that climbs a reward finds the reward's mistakes as well as the listener's pleasure, so
whoever judges it must not share those mistakes. The gate's reward is fitted on votes that were
withheld from the training's reward (`reward.withholding`: whole songs), on a trunk of its own
(`gate_trunk`), and it judges edits of songs that nobody trained on.
What few withheld votes leave open counts: tastes are drawn from the reward's posterior, songs are
resampled, and the interval of the win rate covers both.

The answer is accept, doubtful or reject, with reasons in words. It is advice: votes on pairs of
both versions are the last word, and `settling` says what they make of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rlhf_core.checkpoints import lineage
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import CheckpointError
from rlhf_core.policy.comparison import Score
from rlhf_core.policy.rewards import taste_weights
from rlhf_core.policy.settling import SURE
from rlhf_core.reward.checkpoint import RewardCheckpoint
from rlhf_core.reward.dataset import Vote
from rlhf_core.reward.learned_reward_integration import (
    LearnedRewardConfig,
    LearnedRewardIntegration,
)
from rlhf_core.reward.training import fit_checkpoint
from rlhf_core.types import AudioState

GATE_TRUNK = "models/gate_trunk/gate_trunk.pt"
TASTES = 200  # draws from the posterior

MAX_DRIFT = 0.3  # nats per decision: beyond that, a reward model is asked about unknown edits
MIN_DIVERSITY = 0.3  # of the parent's
MAX_KEEP_CHANGE = 0.3
MAX_DENSE_DROP = 0.15
MAX_COMPONENT_DROP = 0.25


def gate_trunk() -> Path:
    """The bootstrap that judges: of another seed and other songs than the one rewards start from.

    Raises CheckpointError where the package lacks it.
    """
    path = Path(str(resources.files("rlhf_core"))) / GATE_TRUNK
    if not path.is_file():
        raise CheckpointError(f"the gate's bootstrap is not at {path}; install the package anew")
    return path


def judging_reward(
    withheld: Sequence[Vote], states: Mapping[str, AudioState], trunk: RewardCheckpoint, seed: int
) -> LearnedRewardIntegration:
    """A reward that has seen the withheld votes alone."""
    made_from = lineage(seed=seed, settings={"withheld_votes": len(withheld)})
    return integration_of(fit_checkpoint(withheld, states, trunk, made_from))


def integration_of(checkpoint: RewardCheckpoint, device: str = "cpu") -> LearnedRewardIntegration:
    """A loaded reward from a checkpoint in memory."""
    integration = LearnedRewardIntegration(LearnedRewardConfig(device=device))
    integration.set_model_state(checkpoint.content())
    return integration


def tastes(integration: LearnedRewardIntegration, seed: int, count: int = TASTES) -> Score:
    """Scores (B, count), in sigmas, of edits under tastes drawn from a reward's posterior."""
    made = integration.checkpoint
    weights = taste_weights(made, count, np.random.default_rng(seed))

    def draw(batch: PassageBatch, actions: Tensor) -> Tensor:
        raw: Tensor = integration.embed(batch, actions).double().cpu() @ weights
        return (raw - made.mu) / made.sigma

    return draw


def verdict(results: Mapping[str, Any]) -> dict[str, Any]:
    """accept, doubtful or reject, and the reasons in words.

    Returns: decision; reasons; odd: whether there are signs of an exploited reward; better: the
    probability that it is better than its parent, None where nobody compared them.
    """
    doubts = _doubts(results)
    known = {"odd": bool(doubts), "better": None}
    rates = results["win_rates"]
    if rates is None:
        reason = "there was no reward model, so nobody compared it with its parent"
        return {"decision": "doubtful", "reasons": [reason, *doubts], **known}
    rate = rates["parent"]
    text = (
        f"it wins {rate['mean']:.0%} against its parent "
        f"(95 % interval {rate['low']:.0%} to {rate['high']:.0%}; better with a probability of "
        f"{rate['better']:.0%})"
    )
    known["better"] = rate["better"]
    if rate["better"] <= 1 - SURE:
        return {"decision": "reject", "reasons": [f"{text}: it is worse", *doubts], **known}
    if rate["better"] < SURE:
        reasons = [f"{text}: that may be luck", *doubts]
        return {"decision": "doubtful", "reasons": reasons, **known}
    decision = "doubtful" if doubts else "accept"
    return {"decision": decision, "reasons": [f"{text}: it is better", *doubts], **known}


def _doubts(results: Mapping[str, Any]) -> list[str]:
    """Signs that the gain may be the reward model's weakness and not the listener's pleasure."""
    ours, parent = results["contenders"]["policy"], results["contenders"]["parent"]
    doubts = []
    if results.get("songs", 2) < 2:
        doubts.append("only one unseen song was heard: its interval says nothing about others")
    if (results.get("judged_by") or {}).get("seen_in_training"):
        doubts.append("the votes that judged it had also taught the reward that trained it")
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
    return doubts + _dense_doubts(ours, parent)


def _dense_doubts(ours: Mapping[str, Any], parent: Mapping[str, Any]) -> list[str]:
    doubts = []
    drop = parent["dense_reward"]["mean"] - ours["dense_reward"]["mean"]
    if drop > MAX_DENSE_DROP:
        doubts.append(f"the dense reward fell by {drop:.2f}")
    for name, before in parent.get("dense_components", {}).items():
        fall = before - ours["dense_components"][name]
        if fall > MAX_COMPONENT_DROP:
            doubts.append(f"its {name.replace('_', ' ')} fell by {fall:.2f}")
    return doubts
