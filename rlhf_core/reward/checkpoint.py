"""What a reward checkpoint holds beside the weights, and reading and writing it.

    config        sizes of the network           model      its weights, normaliser included
    posterior     mean and covariance of w       prior      what the bootstrap says before any vote
    reference     fixed edits before and after the last layers; mu, sigma of both reward terms
    attributes    names, mean and deviation of the attributes that the trunk was trained to predict
    metrics       figures measured when it was made

Trunk, prior and reference edits come from the bootstrap and are handed on unchanged, so a reward
fitted later starts from the same prior and its mu and sigma come from the same edits. Only where
votes moved the trunk (`finetuning`; lineage "fine_tuned") are the same edits embedded anew; such a
version is never built upon, or its votes would count twice.
Votes identify differences within a passage only, so sigma is the deviation within passages.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf_core.checkpoints import load_checkpoint, save_checkpoint
from rlhf_core.errors import CheckpointError, ConfigError
from rlhf_core.reward.model import LearnedRewardModel, RewardModelConfig
from rlhf_core.reward.posterior import HeadPrior
from rlhf_core.types import DoubleArray, IntArray

KIND = "reward_model"


@dataclass(frozen=True)
class Reference:
    """The fixed reference edits. embeddings (R, D) float32; passage (R,) which passage each is of.

    inputs: (R, P) `LearnedRewardModel.pool` of the edits, from which a fine-tuned trunk embeds them
    anew; None in checkpoints made before there was fine-tuning.
    dense_mu, dense_sigma: mean, and deviation within passages, of the dense reward of those edits.
    """

    embeddings: Tensor
    passage: Tensor
    dense_mu: float
    dense_sigma: float
    inputs: Tensor | None = None

    def scale_of(self, weights: Tensor) -> tuple[float, float]:
        """Mean, and deviation within passages, of w·phi over the reference edits."""
        scores = (self.embeddings.double() @ weights.double()).cpu().numpy()
        return spread_within(scores, self.passage.cpu().numpy())

    def pair_covariance(self) -> DoubleArray:
        """Covariance (D, D) of phi(a) - phi(b), a and b two reference edits of one passage."""
        centred = centre_within(self.embeddings.double().cpu().numpy(), self.passage.cpu().numpy())
        groups = len(np.unique(self.passage.cpu().numpy()))
        covariance: DoubleArray = 2 * centred.T @ centred / (len(centred) - groups)
        return covariance


@dataclass(frozen=True)
class RewardCheckpoint:
    """A reward model version in memory. mean (D,), covariance (D, D) of w; mu, sigma of w·phi."""

    model: LearnedRewardModel
    mean: Tensor
    covariance: Tensor
    prior: HeadPrior
    reference: Reference
    mu: float
    sigma: float
    attributes: dict[str, Any]
    metrics: dict[str, Any]
    lineage: dict[str, Any]

    def belief(self) -> tuple[DoubleArray, DoubleArray]:
        """Mean (D,) and covariance (D, D) of w, from which pairs are chosen.

        Before any vote the mean is 0: the bootstrap's own is a stated taste, nobody's, and pairs
        chosen as if it were known ask for less than they could.
        """
        mean = self.mean.double().cpu().numpy()
        known = bool(self.metrics.get("n_votes"))
        return mean if known else np.zeros_like(mean), self.covariance.double().cpu().numpy()

    def content(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {
            "config": asdict(self.model.config),
            "model": self.model.state_dict(),
            "posterior": {"mean": self.mean, "covariance": self.covariance},
            "prior": {
                "family": torch.from_numpy(self.prior.family),
                "isotropic": torch.from_numpy(self.prior.isotropic),
                "directions": None
                if self.prior.directions is None
                else torch.from_numpy(self.prior.directions),
            },
            "reference": {
                "embeddings": self.reference.embeddings,
                "passage": self.reference.passage,
                "mu": self.mu,
                "sigma": self.sigma,
                "dense_mu": self.reference.dense_mu,
                "dense_sigma": self.reference.dense_sigma,
                "inputs": self.reference.inputs,
            },
            "attributes": self.attributes,
            "metrics": self.metrics,
            "lineage": self.lineage,
        }

    def save(self, path: Path) -> None:
        save_checkpoint(path, KIND, self.content())


def centre_within(values: DoubleArray, passage: IntArray) -> DoubleArray:
    """Values (R, …) less the mean of those of the same passage (R,)."""
    _, index, counts = np.unique(passage, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, index, values)
    means = sums / counts.reshape(-1, *[1] * (values.ndim - 1))
    return values - means[index]


def spread_within(values: DoubleArray, passage: IntArray) -> tuple[float, float]:
    """Mean of values (R,), and their pooled standard deviation within passages."""
    groups = len(np.unique(passage))
    if len(values) <= groups:
        raise ConfigError("reference edits need at least two edits of a passage")
    centred = centre_within(values, passage)
    return float(values.mean()), float(np.sqrt((centred**2).sum() / (len(values) - groups)))


def load_reward(path: Path, device: str = "cpu") -> RewardCheckpoint:
    """Read a reward checkpoint. Raises CheckpointError when it is not whole or not usable."""
    return reward_from_content(load_checkpoint(path, KIND, device), str(path), device)


def reward_from_content(data: dict[str, Any], name: str, device: str = "cpu") -> RewardCheckpoint:
    """Rebuild a version from `RewardCheckpoint.content`. name: what to call it in errors."""
    try:
        known = {field.name for field in fields(RewardModelConfig)}
        if set(data["config"]) != known:
            raise CheckpointError(f"{name}: its configuration {data['config']} is of another kind")
        model = LearnedRewardModel(RewardModelConfig(**data["config"])).to(device)
        model.load_state_dict(data["model"])
        reference, posterior = data["reference"], data["posterior"]
        checkpoint = RewardCheckpoint(
            model=model.eval().requires_grad_(False),
            mean=posterior["mean"].to(device),
            covariance=posterior["covariance"].to(device),
            prior=_prior(data["prior"]),
            reference=Reference(
                reference["embeddings"],
                reference["passage"],
                float(reference["dense_mu"]),
                float(reference["dense_sigma"]),
                reference.get("inputs"),
            ),
            mu=float(reference["mu"]),
            sigma=float(reference["sigma"]),
            attributes=dict(data["attributes"]),
            metrics=dict(data["metrics"]),
            lineage=dict(data["lineage"]),
        )
        _check(checkpoint, name)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
        # Of a wrong shape, torch names the tensor on the second line.
        first = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise CheckpointError(
            f"{name}: the reward checkpoint is not whole ({type(error).__name__}: {first}). "
            "Restore it from a backup or train again."
        ) from error
    return checkpoint


def _prior(data: dict[str, Any]) -> HeadPrior:
    """directions: absent from checkpoints made before there were any; their prior is Gaussian."""
    directions = data.get("directions")
    return HeadPrior(
        data["family"].cpu().numpy(),
        data["isotropic"].cpu().numpy(),
        None if directions is None else directions.cpu().numpy(),
    )


def _check(checkpoint: RewardCheckpoint, name: str) -> None:
    width, reference, prior = (
        checkpoint.model.config.embedding,
        checkpoint.reference,
        checkpoint.prior,
    )
    square = (width, width)
    shapes = (tuple(checkpoint.mean.shape), tuple(checkpoint.covariance.shape))
    if shapes != ((width,), square):
        raise CheckpointError(f"{name}: posterior of shapes {shapes} for {width} dimensions")
    if (prior.family.shape, prior.isotropic.shape) != (square, square):
        raise CheckpointError(f"{name}: its prior is of another width than its {width} dimensions")
    known = (len(reference.passage), width)
    if tuple(reference.embeddings.shape) != known:
        raise CheckpointError(
            f"{name}: reference edits of shape {tuple(reference.embeddings.shape)}, not {known}"
        )
    tensors = [checkpoint.mean, checkpoint.covariance, *checkpoint.model.state_dict().values()]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise CheckpointError(f"{name}: holds weights that are not finite. Train it again.")
    arrays = [prior.family, prior.isotropic, reference.embeddings.cpu().numpy()]
    arrays += [] if prior.directions is None else [prior.directions]
    if not all(bool(np.isfinite(array).all()) for array in arrays):
        raise CheckpointError(f"{name}: its prior or its reference edits are not finite")
    _check_scales(checkpoint, name)


def _check_scales(checkpoint: RewardCheckpoint, name: str) -> None:
    """An infinite sigma would make every reward 0, a mu that is none every reward none."""
    reference = checkpoint.reference
    scales = (checkpoint.mu, checkpoint.sigma, reference.dense_mu, reference.dense_sigma)
    if not all(map(math.isfinite, scales)):
        raise CheckpointError(f"{name}: scales {scales} must be finite numbers. Train it again.")
    if not (checkpoint.sigma > 0 and reference.dense_sigma > 0):
        raise CheckpointError(
            f"{name}: sigma {checkpoint.sigma} and {reference.dense_sigma} must be "
            "positive: the reward would not tell edits apart. Train it again."
        )
