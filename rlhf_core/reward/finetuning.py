"""Fine-tuning of the trunk's last layers on votes, kept only when it foresees votes on other songs.

What is trained is `LearnedRewardModel.mix`: all that lies between the pooled beats of an edit and
phi. The head stays as the votes on the bootstrap's phi have it (fitted anew on the tuned phi it
learned the same votes twice: less accurate, overconfident); the layers' weights theta maximise

    sum_i log p(vote_i | w·(phi_theta(a) - phi_theta(b)))  -  ||theta - theta_0||² / (2 s²)

with theta_0 the bootstrap's (L2-SP: Li, Grandvalet, Davoine 2018, arXiv:1802.01483), by L-BFGS from
theta_0 with all votes at once: nothing is random. s is such that a typical pair's logit moves by
`REACH` a priori.

The gate: both ways are fitted on the same folds and judged on songs left out. The tuned trunk is
taken when its log-loss there is lower by more than the standard error of the difference over
songs; otherwise the bootstrap's trunk stays. The posterior is that of the head given the trunk.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rlhf_core.errors import ConfigError
from rlhf_core.reward.checkpoint import RewardCheckpoint
from rlhf_core.reward.dataset import EditKey, Vote
from rlhf_core.reward.measured import where
from rlhf_core.reward.metrics import evaluation_votes, folds_by_song
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.posterior import HeadPosterior, HeadPrior, Votes, fit_head
from rlhf_core.types import BoolArray, DoubleArray, IntArray

REACH: Final = 0.2  # logits
STEPS: Final = 25  # L-BFGS iterations
LAYERS: Final = ("pooled", "moments", "levels", "refine")  # what `mix` is made of
MARGIN: Final = 1.0  # standard errors by which the tuned trunk must be better


@dataclass(frozen=True)
class Pooled:
    """Votes before the last layers: a, b (n, P) `LearnedRewardModel.pool` of both edits."""

    a: Tensor
    b: Tensor

    @classmethod
    def of(cls, votes: Sequence[Vote], pools: dict[EditKey, Tensor]) -> Pooled:
        return cls(
            torch.stack([pools[vote.edit_a] for vote in votes]),
            torch.stack([pools[vote.edit_b] for vote in votes]),
        )

    def select(self, index: IntArray) -> Pooled:
        rows = torch.from_numpy(index)
        return Pooled(self.a[rows], self.b[rows])

    def differences(self, model: LearnedRewardModel) -> DoubleArray:
        """phi(a) - phi(b) (n, D)."""
        with torch.no_grad():
            apart = model.mix(self.a) - model.mix(self.b)
        return np.asarray(apart.double().cpu().numpy())


@dataclass(frozen=True)
class Verdict:
    """What the gate found. p_a (n,) of each vote by the tuned way, its song left out.

    log_loss, tuned_log_loss: of the votes that count; gain: the former less the latter, and its
    standard error over songs.
    """

    accepted: bool
    log_loss: float
    tuned_log_loss: float
    gain: float
    standard_error: float
    p_a: DoubleArray

    def as_metrics(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "log_loss_frozen": self.log_loss,
            "log_loss_tuned": self.tuned_log_loss,
            "gain": self.gain,
            "standard_error": self.standard_error,
            "what": "last layers of the trunk" if self.accepted else "none: the trunk stays",
        }


def tune(
    model: LearnedRewardModel, pooled: Pooled, votes: Votes, head: HeadPosterior, reach: float
) -> LearnedRewardModel:
    """A copy of the model with its last layers trained on the votes; `head` was fitted to them."""
    tuned = copy.deepcopy(model)
    layers = [getattr(tuned, name) for name in LAYERS]
    weights = [weight for layer in layers for weight in layer.parameters()]
    start = [weight.detach().clone() for weight in weights]
    w = torch.from_numpy(head.mean).float().to(pooled.a.device)
    apart = (pooled.a - pooled.b).square().sum(1).mean().sqrt()
    stiffness = float((w.norm() * apart / reach) ** 2)
    loss_of = partial(vote_loss, votes=votes, head=head)
    for weight in weights:
        weight.requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        weights, max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = (tuned.mix(pooled.a) - tuned.mix(pooled.b)) @ w
        moved = torch.stack(
            [(new - old).square().sum() for new, old in zip(weights, start, strict=True)]
        ).sum()
        total = loss_of(logits) + 0.5 * stiffness * moved
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return tuned.requires_grad_(False)


def vote_loss(logits: Tensor, votes: Votes, head: HeadPosterior) -> Tensor:
    """-log likelihood of the votes (see `posterior`) at these w·x (n,), nuisances as fitted."""
    beta, bias, weight = (
        torch.as_tensor(values).to(logits)
        for values in (
            head.reliability[votes.annotator],
            head.side_bias[votes.annotator] * votes.side,
            votes.weight,
        )
    )
    m = beta * logits + bias
    tie = float("-inf") if head.tie is None else float(np.log(head.tie))
    energies = torch.stack([m / 2, -m / 2, torch.full_like(m, tie)], dim=1)
    outcome = torch.as_tensor(np.select([votes.outcome > 0, votes.outcome < 0], [0, 1], 2))
    losses = F.cross_entropy(energies, outcome.to(m.device), reduction="none")
    return weight @ losses


def gate(
    model: LearnedRewardModel,
    pooled: Pooled,
    votes: Votes,
    prior: HeadPrior,
    folds: IntArray,
    counted: BoolArray,
    songs: Sequence[str],
    reach: float = REACH,
) -> Verdict:
    """Cross-fit both ways. folds, counted (n,): as the report's; songs: of each vote."""
    frozen, tuned = np.full(len(votes), np.nan), np.full(len(votes), np.nan)
    for fold in range(int(folds.max()) + 1):
        test, rest = folds == fold, np.flatnonzero(folds != fold)
        learned, given = votes.select(rest), pooled.select(rest)
        head = fit_head(learned, prior)
        frozen[test] = head.probability(votes.differences[test])
        moved = tune(model, given, learned, head, reach)
        held = pooled.select(np.flatnonzero(test))
        tuned[test] = head.probability(held.differences(moved))
    losses = [_log_loss(p[counted], votes.outcome[counted]) for p in (frozen, tuned)]
    more = losses[0] - losses[1]
    kept = [song for song, use in zip(songs, counted, strict=True) if use]
    error = song_error(more, kept)
    gain, before, after = (float(x.mean()) for x in (more, *losses))
    return Verdict(gain > MARGIN * error, before, after, gain, error, tuned)


def _log_loss(p_a: DoubleArray, outcome: IntArray) -> DoubleArray:
    chosen = np.clip(np.where(outcome > 0, p_a, 1 - p_a), 1e-12, None)
    return np.asarray(-np.log(chosen))


def song_error(values: DoubleArray, songs: Sequence[str]) -> float:
    """Standard error of the mean of values (n,), votes on one song being alike (cluster-robust)."""
    _, index = np.unique(np.asarray(songs), return_inverse=True)
    sums = np.bincount(index, weights=values - values.mean())
    n = len(sums)
    return float(np.sqrt((sums**2).sum() * n / max(n - 1, 1)) / len(values))


@dataclass(frozen=True)
class Tuning:
    """What came of it. checkpoint: the bootstrap, on the tuned trunk where the gate took it.

    p_a: of each vote by heads on trunks tuned without its song; None where the trunk stays.
    """

    checkpoint: RewardCheckpoint
    p_a: DoubleArray | None
    metrics: dict[str, Any]


def fine_tune(
    votes: Sequence[Vote],
    data: Votes,
    pools: dict[EditKey, Tensor],
    bootstrap: RewardCheckpoint,
    head: HeadPosterior,
    seed: int,
) -> Tuning:
    """Tune the trunk's last layers on the votes if the gate agrees.

    Args: data: the votes as numbers on the bootstrap's phi; pools: of every edit; head: fitted to
    data; seed: of the folds, as in the report.
    """
    songs = [vote.song_id for vote in votes]
    counted, words = evaluation_votes(votes)
    if len(set(songs)) < 2 or not counted.any():
        reason = "none: it takes decisive votes on at least two songs to judge"
        return Tuning(bootstrap, None, {"accepted": False, "what": reason})
    pooled = Pooled.of(votes, pools)
    folds = folds_by_song(songs, seed)
    verdict = gate(bootstrap.model, pooled, data, bootstrap.prior, folds, counted, songs)
    metrics = {**verdict.as_metrics(), "judged_by": words}
    if not verdict.accepted:
        return Tuning(bootstrap, None, metrics)
    tuned = tune(bootstrap.model, pooled, data, head, REACH)
    return Tuning(with_tuned_trunk(bootstrap, tuned), verdict.p_a, metrics)


def with_tuned_trunk(bootstrap: RewardCheckpoint, model: LearnedRewardModel) -> RewardCheckpoint:
    """The bootstrap on another trunk: reference edits embedded anew; the prior stays as it was."""
    inputs = reference_inputs(bootstrap)
    known = bootstrap.reference
    with torch.no_grad():
        phi = model.mix(inputs.to(where(model))).to(known.embeddings.device)
    return replace(bootstrap, model=model, reference=replace(known, embeddings=phi))


def reference_inputs(bootstrap: RewardCheckpoint) -> Tensor:
    """The reference edits before the last layers, or ConfigError of why there are none."""
    if bootstrap.reference.inputs is None:
        raise ConfigError(
            "this bootstrap keeps no reference edits, only their embeddings, so its trunk cannot "
            "be fine-tuned: make it again (python -m rlhf_core.reward.pretraining), or leave out "
            "--fine_tune"
        )
    return bootstrap.reference.inputs
