"""Edits worth comparing: where the two sides of a pair come from.

    random   both from the policy
    broad    one from a heuristic preset, so that votes also see what the policy never does
    cross    the policy against another version
    chosen   of many candidates the two whose vote would teach the reward model most, which may be
             two presets: without such pairs three rounds learned less (docs/policy-learning.md)
    gold     the policy against an obviously broken edit: who prefers that was not listening

All randomness comes from the numpy generator of the pair; chosen pairs depend on those chosen
before them, too (see `Asked`). Two sides must differ in at least `MIN_DIFFERENT_BEATS` beats of
output; else new ones are drawn, hotter, then from the presets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import combinations

import numpy as np
import torch

from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit, random_edit
from rlhf_core.errors import EditError
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.rollout import collect
from rlhf_core.reward.learned_reward_integration import LearnedRewardIntegration
from rlhf_core.reward.selection import Asking
from rlhf_core.types import DoubleArray, IntArray

POOLS = ("random", "broad", "cross", "chosen", "gold")
MIN_DIFFERENT_BEATS = 4
ATTEMPTS = 8
HOTTER = 1.2
CHOSEN_FROM_POLICY, CHOSEN_FROM_PRESETS, CHOSEN_PAIRS = 8, 4, 24
BROKEN_RATE = 0.5


@dataclass(frozen=True)
class Candidate:
    """One edit and how it was made. preset is None for a policy's edit."""

    actions: IntArray
    policy: str
    preset: str | None
    temperature: float | None
    edl: EDL


@dataclass
class Asked:
    """What the votes on the pairs chosen so far will tell, whatever their answers.

    The reward posterior's covariance (D, D) shrinks with each pair chosen, so that later pairs of
    the same batch ask something else.
    """

    covariance: DoubleArray | None = None

    def best(self, reward: LearnedRewardIntegration, apart: DoubleArray) -> int:
        """Which of these phi(a) - phi(b) (pairs, D) to ask about (`reward.selection`): chosen."""
        mean, covariance = reward.checkpoint.belief()
        if self.covariance is None:
            self.covariance = covariance
        usual = reward.checkpoint.reference.pair_covariance()
        asking = Asking(apart, mean, self.covariance, usual)
        index = int(asking.worth().argmax())
        asking.ask(index)
        self.covariance = asking.covariance
        return index


@dataclass(frozen=True)
class Maker:
    """Draws edits. versus and reward are needed by the pools "cross" and "chosen" only."""

    agent: Agent
    name: str
    temperature: float = 1.0
    versus: Agent | None = None
    versus_name: str | None = None
    reward: LearnedRewardIntegration | None = None
    asked: Asked = field(default_factory=Asked)

    def pair(self, pool: str, item: Item, rng: np.random.Generator) -> tuple[Candidate, Candidate]:
        """Two edits of a passage that really differ. Raises EditError where none can be found."""
        if pool == "chosen":
            return self._chosen(item, rng)
        first = self._policy(item, rng, 0)
        for attempt in range(3 * ATTEMPTS):
            second = self._other_side(pool, item, rng, attempt)
            if different_beats(first.edl, second.edl) >= MIN_DIFFERENT_BEATS:
                swap = pool != "gold" and rng.random() < 0.5
                return (second, first) if swap else (first, second)
            if attempt % 2 == 1:  # perhaps it is the first that is odd
                first = self._policy(item, rng, attempt)
        state, passage = item
        raise EditError(
            f"song {state.song_id}, beats {passage.start_beat}..{passage.end_beat}: no two edits "
            f"differ in {MIN_DIFFERENT_BEATS} beats or more. The passage may be too short: choose "
            "longer songs, or raise --temperature."
        )

    def _other_side(
        self, pool: str, item: Item, rng: np.random.Generator, attempt: int
    ) -> Candidate:
        if pool == "gold":
            return self._broken(item, rng)
        if pool == "broad" or attempt >= ATTEMPTS:
            return self._preset(item, rng)
        if pool == "cross":
            if self.versus is None:
                raise EditError("a cross pair needs --versus, another policy to compare with")
            return self._from(self.versus, self.versus_name or "versus", item, rng, attempt)
        return self._policy(item, rng, attempt)

    def _policy(self, item: Item, rng: np.random.Generator, attempt: int) -> Candidate:
        return self._from(self.agent, self.name, item, rng, attempt)

    def _from(
        self, agent: Agent, name: str, item: Item, rng: np.random.Generator, attempt: int
    ) -> Candidate:
        temperature = self.temperature * HOTTER ** (attempt // 2)
        actions = sample(agent, item, rng, 1, temperature)[0]
        return candidate(item, actions, name, None, temperature)

    def _preset(self, item: Item, rng: np.random.Generator) -> Candidate:
        preset = list(PRESETS)[int(rng.integers(len(PRESETS)))]
        return candidate(item, heuristic_edit(*item, preset, rng), "heuristic", preset, None)

    def _broken(self, item: Item, rng: np.random.Generator) -> Candidate:
        return candidate(item, random_edit(*item, rng, BROKEN_RATE), "gold", "broken", None)

    def _chosen(self, item: Item, rng: np.random.Generator) -> tuple[Candidate, Candidate]:
        """The pair of many whose vote is expected to teach most (`reward.selection`)."""
        if self.reward is None:
            raise EditError("choosing pairs by information needs --reward_model")
        edits = [
            candidate(item, actions, self.name, None, self.temperature)
            for actions in sample(self.agent, item, rng, CHOSEN_FROM_POLICY, self.temperature)
        ]
        edits += [self._preset(item, rng) for _ in range(CHOSEN_FROM_PRESETS)]
        possible = list(combinations(range(len(edits)), 2))
        pairs: list[tuple[int, int]] = []
        for index in rng.permutation(len(possible)):  # comparing two edits is what takes time
            a, b = possible[int(index)]
            if different_beats(edits[a].edl, edits[b].edl) >= MIN_DIFFERENT_BEATS:
                pairs.append((a, b))
                if len(pairs) == CHOSEN_PAIRS:
                    break
        if not pairs:
            return self.pair("broad", item, rng)
        apart = _differences(self.reward, item, edits, pairs)
        a, b = pairs[self.asked.best(self.reward, apart)]
        return (edits[a], edits[b]) if rng.random() < 0.5 else (edits[b], edits[a])


def candidate(
    item: Item, actions: IntArray, policy: str, preset: str | None, temperature: float | None
) -> Candidate:
    state, passage = item
    return Candidate(actions, policy, preset, temperature, build_edl(actions, state.grid, passage))


def sample(
    agent: Agent, item: Item, rng: np.random.Generator, count: int, temperature: float
) -> list[IntArray]:
    """`count` edits of one passage by a policy."""
    batch = PassageBatch.from_passages([item], agent.device).select(
        torch.zeros(count, dtype=torch.long, device=agent.device)
    )
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    actions = collect(agent, batch, generator, temperature).actions
    return [row.cpu().numpy().astype(np.int64) for row in actions]


def different_beats(edl_a: EDL, edl_b: EDL) -> int:
    """Beats of output, on the side that has more of them, without a counterpart on the other."""
    matcher = SequenceMatcher(None, edl_a.beats, edl_b.beats, autojunk=False)
    return sum(
        max(a1 - a0, b1 - b0) for tag, a0, a1, b0, b1 in matcher.get_opcodes() if tag != "equal"
    )


def _differences(
    reward: LearnedRewardIntegration,
    item: Item,
    edits: list[Candidate],
    pairs: list[tuple[int, int]],
) -> DoubleArray:
    """(pairs, D): how far apart the two sides of each pair are embedded."""
    rows = torch.zeros(len(edits), dtype=torch.long)
    batch = PassageBatch.from_passages([item]).select(rows)
    phi = reward.embed(batch, torch.as_tensor(np.stack([edit.actions for edit in edits])))
    a, b = (torch.tensor(side) for side in zip(*pairs, strict=True))
    return np.asarray((phi[a] - phi[b]).double().cpu().numpy())


def plan_pools(count: int, shares: dict[str, float], rng: np.random.Generator) -> list[str]:
    """The pool of each of `count` pairs: shares kept as nearly as whole pairs allow, shuffled.

    What the shares leave over is "random".
    """
    left = 1 - sum(shares.values())
    if left < -1e-9 or min(shares.values(), default=0.0) < 0:
        raise EditError(f"the shares of pairs must be 0 or more and add up to at most 1: {shares}")
    wanted = {**shares, "random": max(0.0, left)}
    counts = {pool: int(share * count) for pool, share in wanted.items()}
    rest = sorted(wanted, key=lambda pool: counts[pool] - wanted[pool] * count)
    for pool in rest[: count - sum(counts.values())]:
        counts[pool] += 1
    pools = [pool for pool, number in counts.items() for _ in range(number)]
    return [pools[int(i)] for i in rng.permutation(len(pools))]
