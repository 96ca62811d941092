"""Fitting a reward to votes: embeddings from the bootstrap's trunk, then the head's posterior.

The trunk stays as it is, unless it is asked to be fine-tuned and that helps on songs left out
(`finetuning`); a fit is embedding the edits once and a head (`posterior`), seconds for hundreds of
votes. The prior is always the bootstrap's: a snapshot holds all votes so far, so
starting from an earlier posterior would count them twice. The same snapshot, bootstrap and seed
give the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rlhf_core.errors import ConfigError
from rlhf_core.reward.checkpoint import RewardCheckpoint
from rlhf_core.reward.crossfit import Parent, Report, evaluate, same_trunk
from rlhf_core.reward.dataset import Vote, check_songs
from rlhf_core.reward.finetuning import Tuning, fine_tune, reference_inputs
from rlhf_core.reward.measured import (
    States,
    as_numbers,
    edits_of,
    embed_in_chunks,
    embed_plainly,
    pool_plainly,
)
from rlhf_core.reward.posterior import HeadPosterior, fit_head


@dataclass(frozen=True)
class FittedReward:
    """A new reward version and what the fit says of it."""

    checkpoint: RewardCheckpoint
    posterior: HeadPosterior
    metrics: dict[str, Any]


def fit_reward(
    votes: Sequence[Vote],
    states: States,
    bootstrap: RewardCheckpoint,
    lineage: dict[str, Any],
    *,
    seed: int = 0,
    report: Report = lambda stage, values: None,
    parent: Parent | None = None,
    tune_trunk: bool = False,
) -> FittedReward:
    """Fit the head to votes and measure it on songs left out.

    Args:
        votes: usable ones (`PreferenceDataset.usable`); states: songs by id.
        report: called as report("embed" | "tune" | "fold" | "fit", figures so far).
        parent: the version before, to be refitted on the same folds for the report.
        tune_trunk: also fine-tune the trunk's last layers, if the gate of `finetuning` agrees.
    Raises DataError when a vote's song is missing, ConfigError for a bootstrap that votes moved, or
    one that cannot be tuned.
    """
    check_songs(votes, states)
    if bootstrap.lineage.get("fine_tuned"):
        raise ConfigError(
            "this reward model's trunk was fine-tuned on votes: built upon, they would count "
            "twice. Name the bootstrap that it was made from."
        )
    edits = edits_of(votes)
    report("embed", {"n_edits": len(set(edits))})
    measured = embed_in_chunks(bootstrap.model, edits, states, seed)
    theirs = None
    if parent is not None and not same_trunk(bootstrap.model, parent.checkpoint.model):
        theirs = embed_plainly(parent.checkpoint.model, edits, states)
    data = as_numbers(votes, measured.phi)
    posterior = fit_head(data, bootstrap.prior)
    tuning = Tuning(bootstrap, None, {})
    if tune_trunk:
        reference_inputs(bootstrap)
        report("tune", {})
        pools = pool_plainly(bootstrap.model, edits, states)
        tuning = fine_tune(votes, data, pools, bootstrap, posterior, seed)
        lineage = {**lineage, "fine_tuned": tuning.metrics["accepted"]}
    metrics = evaluate(votes, measured, bootstrap, seed, report, parent, theirs, tuning.p_a)
    metrics["head"] = describe(posterior, votes)
    metrics["fine_tuning"] = tuning.metrics or None
    report("fit", metrics["head"])
    made = _with_head(tuning.checkpoint, posterior, metrics, lineage)
    return FittedReward(made, posterior, metrics)


def fit_checkpoint(
    votes: Sequence[Vote],
    states: States,
    bootstrap: RewardCheckpoint,
    lineage: dict[str, Any],
) -> RewardCheckpoint:
    """The head fitted to votes on the bootstrap's own trunk, without a report on songs left out.

    Raises DataError when a vote's song is missing.
    """
    check_songs(votes, states)
    phi = embed_plainly(bootstrap.model, edits_of(votes), states)
    posterior = fit_head(as_numbers(votes, phi), bootstrap.prior)
    return _with_head(bootstrap, posterior, {"n_votes": len(votes)}, lineage)


def describe(posterior: HeadPosterior, votes: Sequence[Vote]) -> dict[str, Any]:
    """The head's hyper-parameters and nuisances, by annotator."""
    names = sorted({vote.annotator for vote in votes})
    return {
        "prior_scale": posterior.scale,
        "isotropic_share": posterior.share,
        "tie": posterior.tie,
        "log_evidence": posterior.log_evidence,
        "reliability": dict(zip(names, posterior.reliability.tolist(), strict=True)),
        "side_bias": dict(zip(names, posterior.side_bias.tolist(), strict=True)),
    }


def _with_head(
    bootstrap: RewardCheckpoint,
    posterior: HeadPosterior,
    metrics: dict[str, Any],
    lineage: dict[str, Any],
) -> RewardCheckpoint:
    mean = torch.from_numpy(posterior.mean)
    model = copy.deepcopy(bootstrap.model)
    model.head.weight.data.copy_(mean[None])
    mu, sigma = bootstrap.reference.scale_of(mean)
    return replace(
        bootstrap,
        model=model,
        mean=mean,
        covariance=torch.from_numpy(posterior.covariance),
        mu=mu,
        sigma=sigma,
        metrics=metrics,
        lineage=lineage,
    )
