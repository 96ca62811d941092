"""Comparisons with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rlhf_core.editing.actions import Action
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy import comparison, gate, settling
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.trainer import copy_of


def cuts(batch: PassageBatch, actions: Tensor) -> Tensor:
    return ((actions == Action.CUT) & batch.valid).sum(1).float()


def test_win_rate_by_hand() -> None:
    ours, theirs = np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([[2.0], [0.0]])
    rate = comparison.win_rate(ours, theirs)
    assert rate["mean"] == pytest.approx(0.5) and rate["low"] <= 0.5 <= rate["high"]
    sure = {"mean": 1.0, "low": 1.0, "high": 1.0, "better": 1.0}
    assert comparison.win_rate(ours + 10, theirs) == sure


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Means of 40 draws from N(0, 1): the true mean lies inside about 19 times in 20."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        value = comparison.bootstrap_mean(rng.standard_normal(40))
        inside += value["low"] <= 0 <= value["high"]
    assert 0.88 <= inside / 200 <= 0.99


def test_keep_all_and_a_known_edit(items: list[Item]) -> None:
    keep = comparison.edits_by(comparison.baselines(0)["keep_all"], items, 2, cuts)
    row = comparison.summary(keep)
    assert row["keep_ratio"] == 1 and row["joins_per_edit"] == 0 and row["diversity"] == 0
    assert row["dense_reward"]["mean"] == pytest.approx(1, abs=1e-5)

    def cut_a_bar(item: Item) -> Tensor:
        actions = torch.zeros(item[1].n_beats, dtype=torch.long)
        actions[4:8] = Action.CUT
        return actions

    row = comparison.summary(comparison.edits_by(cut_a_bar, items, 1, cuts))
    beats = sum(passage.n_beats for _, passage in items)
    assert row["joins_per_edit"] == 1 and row["learned_reward"]["mean"] == 4
    assert row["keep_ratio"] == pytest.approx(1 - 4 * len(items) / beats)
    assert sum(row["actions"].values()) == pytest.approx(1)


def test_an_agent_against_itself_and_against_a_cutter(
    small_agent: Agent, items: list[Item]
) -> None:
    cutter = copy_of(small_agent)
    cutter.action_head.bias.data[int(Action.CUT)] += 3
    ours = comparison.edits_of_agent(cutter, items, 4, 0, cuts)
    theirs = comparison.edits_of_agent(small_agent, items, 4, 1, cuts)
    assert comparison.win_rate(ours.scores, theirs.scores)["low"] > 0.8
    assert comparison.drift(small_agent, small_agent, theirs) == pytest.approx(0, abs=1e-6)
    assert comparison.drift(cutter, small_agent, ours) > 0.5


def results(**changes: Any) -> dict[str, Any]:
    def contender(**values: Any) -> dict[str, Any]:
        base = {"diversity": 0.4, "keep_ratio": 0.8, "dense_reward": {"mean": 0.6}}
        return {**base, "dense_components": {"energy_flow": 0.6}, **values}

    rate = changes.get("rate", (0.7, 0.6, 0.8, 0.99))
    return {
        "contenders": {
            "policy": contender(**changes.get("policy", {})),
            "parent": contender(dense_components={"energy_flow": 0.7}),
        },
        "win_rates": {"parent": dict(zip(("mean", "low", "high", "better"), rate, strict=True))},
        "kl_to_parent": changes.get("kl", 0.05),
        **changes.get("more", {}),
    }


@pytest.mark.parametrize(
    ("changes", "decision", "word"),
    [
        ({}, "accept", "better"),
        ({"rate": (0.55, 0.45, 0.65, 0.89)}, "doubtful", "luck"),
        ({"rate": (0.3, 0.2, 0.4, 0.01)}, "reject", "worse"),
        ({"kl": 0.9}, "doubtful", "nats"),
        ({"policy": {"diversity": 0.05}}, "doubtful", "repeats itself"),
        ({"policy": {"keep_ratio": 0.3}}, "doubtful", "keeps 30%"),
        ({"policy": {"dense_reward": {"mean": 0.3}}}, "doubtful", "dense"),
        ({"policy": {"dense_components": {"energy_flow": 0.4}}}, "doubtful", "energy flow fell"),
        ({"more": {"songs": 1}}, "doubtful", "only one unseen song"),
        ({"more": {"judged_by": {"seen_in_training": True}}}, "doubtful", "had also taught"),
    ],
)
def test_verdicts(changes: dict[str, Any], decision: str, word: str) -> None:
    verdict = gate.verdict(results(**changes))
    assert verdict["decision"] == decision
    assert any(word in reason for reason in verdict["reasons"])


@pytest.mark.parametrize(("wins", "losses", "before"), [(15, 7, 0.45), (8, 16, 0.95), (5, 5, 0.7)])
def test_votes_settle_a_verdict_by_bayes_rule(wins: int, losses: int, before: float) -> None:
    """Against incomplete beta functions of the unknown share of pairs won, 0.3 to 0.7."""
    judged = gate.verdict(results(rate=(0.5, 0.4, 0.6, before)))
    below, middle, above = stats.beta(wins + 1, losses + 1).cdf([0.3, 0.5, 0.7])
    up, down = before * (above - middle), (1 - before) * (middle - below)
    settled = settling.settle(judged, wins, losses)
    assert settled["better"] == pytest.approx(up / (up + down), abs=1e-4)


def test_where_the_gate_saw_odd_signs_its_good_opinion_does_not_count() -> None:
    odd = gate.verdict(results(rate=(0.7, 0.6, 0.8, 0.97), policy={"diversity": 0.0}))
    assert settling.settle(odd, 13, 10)["decision"] == "doubtful"
    assert settling.settle(odd, 17, 6)["decision"] == "accept"
    assert settling.settle(odd, 5, 17)["decision"] == "reject"
    assert settling.settle(gate.verdict(results()), 13, 10)["decision"] == "accept"
    bad = gate.verdict(results(rate=(0.3, 0.2, 0.4, 0.02), policy={"diversity": 0.0}))
    assert settling.settle(bad, 13, 10)["decision"] != "accept"


def test_a_handful_of_votes_settles_nothing_and_thousands_can_be_counted() -> None:
    for judged in (gate.verdict(results()), gate.verdict(results(rate=(0.5, 0.4, 0.6, 0.5)))):
        told = settling.settle(judged, 9, 0)
        assert (told["decision"], told["better"]) == (judged["decision"], judged["better"])
        assert "10 are needed" in told["reasons"][0]
    assert settling.settle({}, 4000, 3000)["better"] == pytest.approx(1)
