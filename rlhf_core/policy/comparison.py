"""How a policy's edits compare with others' on passages that it was not trained on.

A contender is whoever makes edits: a policy, its parent, a heuristic preset, chance, or nobody
(keep everything). Every contender edits the same passages; what counts is then computed from the
edits of one passage at a time, and intervals come from a bootstrap over passages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf_core.editing.actions import ACTION_NAMES, Action
from rlhf_core.editing.dense_reward import DENSE_COMPONENTS, dense_components
from rlhf_core.editing.dynamics import PassageBatch, output_order
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit, random_edit
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.losses import kl_categorical, masked_mean
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.rollout import Rollout, collect, evaluate
from rlhf_core.types import DoubleArray

Score = Callable[[PassageBatch, Tensor], Tensor]
AT_ONCE = 64
RANDOM_RATE = 0.3
BOOTSTRAPS = 1000
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Edits:
    """A contender's edits: E of each of P passages, rows in the order passage 0 (E times), 1, …

    scores: (P, E) of the reward (NaN without one), or (P, E, K) under K tastes.
    actions: per row (T,) of its passage.
    components: (P, E, 4). rollouts: as acted, for a policy only.
    """

    scores: DoubleArray
    components: DoubleArray
    actions: list[Tensor]
    joins: DoubleArray
    duration_ratio: DoubleArray
    rollouts: list[Rollout]
    songs: tuple[str, ...]  # (P,) whose passages they are


def edits_of_agent(
    agent: Agent, items: Sequence[Item], per_passage: int, seed: int, score: Score | None
) -> Edits:
    """Sampled at temperature 1."""
    generator = torch.Generator().manual_seed(seed)
    rollouts = [
        collect(agent, PassageBatch.from_passages(chunk, agent.device), generator)
        for chunk in _chunks(items, per_passage)
    ]
    pairs = [(rollout.batch, rollout.actions) for rollout in rollouts]
    return _measured(pairs, per_passage, score, rollouts, songs_of(items))


def edits_by(
    make: Callable[[Item], Tensor], items: Sequence[Item], per_passage: int, score: Score | None
) -> Edits:
    """Of anyone who edits passage by passage."""
    pairs = []
    for chunk in _chunks(items, per_passage):
        batch = PassageBatch.from_passages(chunk)
        actions = torch.zeros(batch.valid.shape, dtype=torch.long)
        for row, item in enumerate(chunk):
            actions[row, : item[1].n_beats] = make(item)
        pairs.append((batch, actions))
    return _measured(pairs, per_passage, score, [], songs_of(items))


def baselines(seed: int) -> dict[str, Callable[[Item], Tensor]]:
    """Keep everything, chance, and each preset of the heuristic editor.

    Each draws from a generator of its own, so that they may edit side by side.
    """

    def preset(name: str, rng: np.random.Generator) -> Callable[[Item], Tensor]:
        return lambda item: torch.as_tensor(heuristic_edit(*item, name, rng))

    chance, *own = np.random.default_rng(seed).spawn(1 + len(PRESETS))
    return {
        "keep_all": lambda item: torch.zeros(item[1].n_beats, dtype=torch.long),
        "random": lambda item: torch.as_tensor(random_edit(*item, chance, RANDOM_RATE)),
        **{f"heuristic_{name}": preset(name, rng) for name, rng in zip(PRESETS, own, strict=True)},
    }


def _chunks(items: Sequence[Item], per_passage: int) -> list[list[Item]]:
    repeated = [item for item in items for _ in range(per_passage)]
    return [repeated[i : i + AT_ONCE] for i in range(0, len(repeated), AT_ONCE)]


def _measured(
    pairs: Sequence[tuple[PassageBatch, Tensor]],
    per_passage: int,
    score: Score | None,
    rollouts: list[Rollout],
    songs: tuple[str, ...],
) -> Edits:
    scores, components, actions, joins, ratios = [], [], [], [], []
    for batch, chosen in pairs:
        nothing = torch.full((batch.size,), float("nan"))
        scores.append(nothing if score is None else score(batch, chosen).cpu())
        components.append(dense_components(batch, chosen).cpu())
        actions += [row[:n].cpu() for row, n in zip(chosen, batch.lengths.tolist(), strict=True)]
        joined, ratio = _shape_of(batch, chosen)
        joins.append(joined.cpu())
        ratios.append(ratio.cpu())
    rows = (-1, per_passage)
    every = torch.cat(scores).double().numpy()
    return Edits(
        every.reshape(*rows, *every.shape[1:]),
        torch.cat(components).double().numpy().reshape(*rows, len(DENSE_COMPONENTS)),
        actions,
        torch.cat(joins).double().numpy().reshape(rows),
        torch.cat(ratios).double().numpy().reshape(rows),
        rollouts,
        songs,
    )


def songs_of(items: Sequence[Item]) -> tuple[str, ...]:
    """The song of each passage."""
    return tuple(state.song_id for state, _ in items)


def _shape_of(batch: PassageBatch, actions: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) joins (places where the output does not play straight on), and output / input time."""
    order = output_order(batch, actions)
    seconds = order.take(batch.durations).sum(1)
    return order.joins.sum(1), seconds / batch.durations.sum(1)


def bootstrap_mean(
    values: DoubleArray, songs: Sequence[str] | None = None, seed: int = 0
) -> dict[str, float]:
    """Mean over passages, values (P,) or (P, K), with its 95 % interval. {mean, low, high}"""
    low, high = np.percentile(resampled_means(values, songs, seed), INTERVAL)
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def resampled_means(
    values: DoubleArray, songs: Sequence[str] | None = None, seed: int = 0
) -> DoubleArray:
    """Means (BOOTSTRAPS,) as they might have come out.

    songs: (P,) whose passages they are. Passages of one song resemble each other, so whole songs
    are resampled; without `songs`, or where there is only one, passages are. Of K tastes each
    draw takes one, so that the interval covers them too.
    """
    names = list(dict.fromkeys(songs or ()))
    group = [names.index(song) for song in songs] if songs and len(names) > 1 else None
    of = np.eye(len(values)) if group is None else np.eye(len(names))[group]
    table = values[:, None] if values.ndim == 1 else values
    sums, counts = of.T @ table, of.sum(0)
    rng = np.random.default_rng(seed)
    size = len(counts)
    picked = rng.multinomial(size, np.full(size, 1 / size), size=BOOTSTRAPS)
    taste = rng.integers(table.shape[1], size=BOOTSTRAPS)
    draws: DoubleArray = (picked * sums[:, taste].T).sum(1) / (picked * counts).sum(1)
    return draws


def win_rate(
    ours: DoubleArray, theirs: DoubleArray, songs: Sequence[str] | None = None
) -> dict[str, float]:
    """How often one of our edits (P, E) scores above one of theirs (P, F) of the same passage.

    Equal scores count half. With an interval over songs; with scores (P, E, K) under K tastes,
    over tastes as well. better: the probability that it is above one half. {…, better}
    """
    above = ours[:, :, None] > theirs[:, None, :]
    equal = ours[:, :, None] == theirs[:, None, :]
    rates = (above + 0.5 * equal).mean((1, 2))
    draws = resampled_means(rates, songs)
    better = float((draws > 0.5).mean() + 0.5 * (draws == 0.5).mean())
    return {**bootstrap_mean(rates, songs), "better": better}


def summary(edits: Edits) -> dict[str, Any]:
    """What a contender's edits are like."""
    everything = torch.cat(edits.actions)
    counts = torch.bincount(everything, minlength=len(ACTION_NAMES)).double()
    has_scores = bool(np.isfinite(edits.scores).all())
    dense = edits.components.mean((1, 2))
    return {
        "learned_reward": bootstrap_mean(edits.scores.mean(1), edits.songs) if has_scores else None,
        "dense_reward": bootstrap_mean(dense, edits.songs),
        "dense_components": dict(
            zip(DENSE_COMPONENTS, edits.components.mean((0, 1)).tolist(), strict=True)
        ),
        "keep_ratio": float((everything != Action.CUT).double().mean()),
        "joins_per_edit": float(edits.joins.mean()),
        "duration_ratio": float(edits.duration_ratio.mean()),
        "actions": dict(zip(ACTION_NAMES, (counts / counts.sum()).tolist(), strict=True)),
        "diversity": diversity(edits),
    }


def diversity(edits: Edits) -> float:
    """Share of beats on which two edits of one passage differ, averaged over all pairs."""
    per_passage = edits.scores.shape[1]
    if per_passage < 2:
        return float("nan")
    shares = []
    for start in range(0, len(edits.actions), per_passage):
        group = torch.stack(edits.actions[start : start + per_passage])
        differs = (group[:, None] != group[None]).double().mean(-1)
        shares.append(float(differs.sum()) / (per_passage * (per_passage - 1)))
    return float(np.mean(shares))


@torch.no_grad()
def drift(agent: Agent, other: Agent, edits: Edits) -> float:
    """KL(agent || other) in nats per free decision, on the agent's own edits."""
    total = weight = 0.0
    for rollout in edits.rollouts:
        count = float(rollout.free.sum())
        ours, _ = evaluate(agent, rollout)
        theirs, _ = evaluate(other, rollout)
        total += count * float(masked_mean(kl_categorical(ours, theirs), rollout.free))
        weight += count
    return total / max(weight, 1.0)
