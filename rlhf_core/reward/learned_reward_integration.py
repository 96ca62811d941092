"""The reward as policy training uses it: the learned score beside the dense one.

    learned = clamp(scale · (r − mu) / sigma + offset)          r = w·phi(edit)
    total   = learned_weight · learned + dense_weight · (d − mu_d) / sigma_d

mu and sigma of both terms come from fixed reference edits and are frozen with the checkpoint, so
that 0.8 / 0.2 means the same for every version. sigma is the deviation between edits of one
passage: what lies between passages is not identified by votes.

`score` gives the mean and the uncertainty of r, for choosing pairs and for the lower confidence
bound that policy training climbs. Given a reference (the parent policy's mean embedding on the same
passage) both are those of w·(phi(edit) − reference), in units of sigma.

A checkpoint that is missing, damaged or of another version raises CheckpointError; a reward is
never silently 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhf_core.editing.dynamics import PassageBatch, reward_inputs
from rlhf_core.errors import CheckpointError, ConfigError, DataError
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward, reward_from_content

LEARNED = ("lower-bound", "sampling")
DEFAULT_CHECKPOINT = Path("models/reward_model_v8_long/reward_model_final.pt")


@dataclass(frozen=True)
class LearnedRewardConfig:
    """How the two rewards are put together.

    lcb: how many posterior deviations below its mean a score counts in `RewardScores.lower`.
    learned: what policy training is paid: that lower bound, or by tastes drawn from the posterior
        ("sampling", which needs no lcb).
    checkpoint_path: None means the default place (see `find_default_checkpoint`).
    """

    learned_reward_weight: float = 0.8
    dense_reward_weight: float = 0.2
    clamp_reward: tuple[float, float] = (-10.0, 10.0)
    reward_scale: float = 1.0
    reward_offset: float = 0.0
    checkpoint_path: str | None = None
    device: str = "cpu"
    lcb: float = 1.0
    learned: str = LEARNED[0]

    def __post_init__(self) -> None:
        if self.learned not in LEARNED:
            raise ConfigError(f"learned is {self.learned!r}, must be one of {', '.join(LEARNED)}")
        numbers = (self.learned_reward_weight, self.dense_reward_weight, self.lcb)
        if not all(math.isfinite(x) and x >= 0 for x in numbers):
            raise ConfigError(f"reward weights and lcb must be finite and >= 0, got {self}")
        if not (math.isfinite(self.reward_offset) and 0 < self.reward_scale < math.inf):
            raise ConfigError(
                f"reward_scale must be finite and > 0 and reward_offset finite, got {self}; for no "
                "learned reward set its weight to 0"
            )
        if not self.clamp_reward[0] < self.clamp_reward[1]:
            raise ConfigError(f"clamp_reward must be (low, high), got {self.clamp_reward}")


class RewardBreakdown(NamedTuple):
    """Total reward and what it is made of; floats for one edit, tensors (B,) for a batch.

    learned, dense: normalised terms, before their weights. learned_raw, dense_raw: as measured.
    clamped: 1 where `clamp_reward` cut the learned term.
    """

    total: Any
    learned: Any
    dense: Any
    learned_raw: Any
    dense_raw: Any
    clamped: Any


@dataclass(frozen=True)
class RewardScores:
    """Scores of B edits. mean, std (B,) in units of sigma; raw (B,) w·phi in logits.

    lower: mean − lcb · std, the lower confidence bound.
    """

    mean: Tensor
    std: Tensor
    raw: Tensor
    lower: Tensor


def find_default_checkpoint(output_dir: Path) -> tuple[Path, str]:
    """The bootstrap or current reward model at its default place, and where it was found.

    Looks under `output_dir`, then in the current folder (the workspace of commands typed there),
    then in the package. Raises CheckpointError.
    """
    for workspace in (output_dir / DEFAULT_CHECKPOINT, Path(DEFAULT_CHECKPOINT)):
        if workspace.is_file():
            return workspace, f"the workspace ({workspace})"
    packaged = Path(str(resources.files("rlhf_core"))) / DEFAULT_CHECKPOINT
    if packaged.is_file():
        return packaged, f"the package ({packaged})"
    raise CheckpointError(
        f"no reward model at {workspace} nor in the package at {packaged}. Make one with "
        "`python -m rlhf_core.reward.pretraining --data_dir …`, or name one with --reward_model."
    )


class LearnedRewardIntegration:
    """Loads a reward model and scores edits with it. Call `load_model` first."""

    def __init__(self, config: LearnedRewardConfig | None = None) -> None:
        self.config = config or LearnedRewardConfig()
        self._checkpoint: RewardCheckpoint | None = None

    @property
    def checkpoint(self) -> RewardCheckpoint:
        if self._checkpoint is None:
            raise CheckpointError("no reward model is loaded: call load_model() first")
        return self._checkpoint

    def load_model(self, path: str | Path | None = None) -> Path:
        """Load a checkpoint: `path`, else the configured one, else the default. Returns its path.

        Raises CheckpointError when it is missing, damaged or of another version.
        """
        given = path or self.config.checkpoint_path
        found = Path(given) if given else find_default_checkpoint(Path())[0]
        self._checkpoint = load_reward(found, self.config.device)
        return found

    def embed(self, batch: PassageBatch, actions: Tensor) -> Tensor:
        """Embeddings phi of edits. Shape: actions (B, T) -> (B, D)."""
        device = self.config.device
        features, ids, valid = reward_inputs(batch.to(device), actions.to(device))
        with torch.no_grad():
            embedding: Tensor = self.checkpoint.model.embed(features, ids, valid)
        return embedding

    def score(
        self, batch: PassageBatch, actions: Tensor, reference: Tensor | None = None
    ) -> RewardScores:
        """Scores of edits with their uncertainty.

        Args: actions (B, T); reference (B, D) embeddings to compare with, such as the parent
        policy's mean embedding on each passage. Without it the mean is relative to mu, and std is
        that of w·phi itself, most of which is not identified by votes: use it with a reference.
        """
        return self.score_embeddings(self.embed(batch, actions), reference)

    def score_embeddings(self, phi: Tensor, reference: Tensor | None = None) -> RewardScores:
        """As `score`, from embeddings (B, D)."""
        made = self.checkpoint
        if reference is not None and reference.shape != phi.shape:
            raise DataError(f"embeddings {tuple(phi.shape)}, reference {tuple(reference.shape)}")
        raw = phi.double() @ made.mean.double()
        away = phi.double() if reference is None else phi.double() - reference.double()
        centre = made.mu if reference is None else 0.0
        mean = (away @ made.mean.double() - centre) / made.sigma
        variance = torch.einsum("bd,de,be->b", away, made.covariance.double(), away)
        std = variance.clamp(min=0).sqrt() / made.sigma
        scores = (mean, std, raw, mean - self.config.lcb * std)
        return RewardScores(*(values.float() for values in scores))

    def shape_learned(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        """clamp(scale · x + offset) (B,) of standardised scores, and where it was cut (B,) bool."""
        wanted = self.config.reward_scale * standardised + self.config.reward_offset
        learned = wanted.clamp(*self.config.clamp_reward)
        return learned, learned != wanted

    def normalise_dense(self, dense: Tensor) -> Tensor:
        """Dense rewards in [0, 1] as deviations from those of the reference edits."""
        reference = self.checkpoint.reference
        return (dense - reference.dense_mu) / reference.dense_sigma

    def combine(self, standardised: Tensor, raw: Tensor, dense: Tensor) -> RewardBreakdown:
        """Total reward (B,) from standardised learned scores, their raw values and dense rewards.

        For the lower bound pass `RewardScores.lower` as `standardised`.
        """
        learned, clamped = self.shape_learned(standardised)
        normal = self.normalise_dense(dense)
        total = (
            self.config.learned_reward_weight * learned + self.config.dense_reward_weight * normal
        )
        return RewardBreakdown(total, learned, normal, raw, dense, clamped.float())

    def _raw(self, features: Tensor, action_ids: Tensor, mask: Tensor | None) -> Tensor:
        """w·phi (B,) of (B, T, 125), or of one edit (T, 125) as a batch of one."""
        features, action_ids = torch.as_tensor(features), torch.as_tensor(action_ids)
        if action_ids.dtype == torch.bool or action_ids.is_floating_point():
            raise DataError(
                f"action ids are whole numbers, got {action_ids.dtype}: was the mask, or were "
                "features, passed in their place?"
            )
        valid = torch.ones_like(action_ids, dtype=torch.bool) if mask is None else mask
        if features.ndim == 2:
            features, action_ids, valid = features[None], action_ids[None], valid[None]
        device, made = self.config.device, self.checkpoint
        with torch.no_grad():
            phi = made.model.embed(
                features.to(device, torch.float32),
                action_ids.to(device, torch.int64),
                valid.to(device),
            )
        return (phi.double() @ made.mean.double()).float()

    def compute_learned_reward(
        self, features: Tensor, action_ids: Tensor, mask: Tensor | None = None
    ) -> float | Tensor:
        """Standardised and clamped learned reward: a float for (T, 125), (B,) for (B, T, 125).

        features: as `reward_inputs` gives them. mask: True on valid beats; None means all.
        """
        made = self.checkpoint
        raw = self._raw(features, action_ids, mask)
        learned, _ = self.shape_learned((raw - made.mu) / made.sigma)
        return float(learned) if features.ndim == 2 else learned

    def compute_trajectory_reward(
        self,
        features: Tensor,
        action_ids: Tensor,
        dense: float | Tensor,
        mask: Tensor | None = None,
    ) -> RewardBreakdown:
        """Learned and dense reward together; floats for one edit, tensors (B,) for a batch.

        dense: the environment's dense reward in [0, 1], a float or (B,).
        """
        made = self.checkpoint
        raw = self._raw(features, action_ids, mask)
        dense_raw = torch.as_tensor(dense, dtype=torch.float32).to(raw.device).reshape(-1)
        if dense_raw.shape != raw.shape:
            raise DataError(f"{len(raw)} edits but dense rewards {tuple(dense_raw.shape)}")
        parts = self.combine((raw - made.mu) / made.sigma, raw, dense_raw)
        return RewardBreakdown(*map(float, parts)) if features.ndim == 2 else parts

    def get_model_state(self) -> dict[str, Any]:
        """Everything needed to score again: plain values and tensors, to put in a checkpoint."""
        return self.checkpoint.content()

    def set_model_state(self, state: dict[str, Any]) -> None:
        """Take over the result of `get_model_state`. Raises CheckpointError when it is not one."""
        self._checkpoint = reward_from_content(state, "model state", self.config.device)
