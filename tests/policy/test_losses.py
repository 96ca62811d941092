"""The mathematics against answers known by hand, closed forms and stable-baselines3."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from rlhf_core.policy import losses


def test_gae_by_hand() -> None:
    """lambda .5, gamma 1, reward 1 at the end: deltas .1, .2, .4 add up backwards by halves."""
    values = torch.tensor([[0.3, 0.4, 0.6, 9.0]])
    rewards = torch.tensor([[0.0, 0.0, 1.0, 7.0]])
    valid = torch.tensor([[True, True, True, False]])
    advantages, returns = losses.gae(rewards, values, valid, 1.0, 0.5)
    expected = torch.tensor([[0.1 + 0.5 * 0.4, 0.2 + 0.5 * 0.4, 0.4, 0.0]])
    assert torch.allclose(advantages, expected)
    assert torch.allclose(returns, torch.tensor([[0.6, 0.8, 1.0, 0.0]]))


def test_gae_with_lambda_one_is_return_minus_value() -> None:
    values = torch.randn(3, 7)
    rewards = torch.zeros(3, 7)
    rewards[:, -1] = torch.tensor([1.0, -2.0, 0.5])
    advantages, _ = losses.gae(rewards, values, torch.ones(3, 7, dtype=torch.bool), 1.0, 1.0)
    assert torch.allclose(advantages, rewards[:, -1:] - values, atol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_gae_agrees_with_stable_baselines3(gamma: float) -> None:
    """Two episodes one after the other in their buffer are two rows here."""
    rng = np.random.default_rng(0)
    lengths = (5, 3)
    buffer = RolloutBuffer(
        8, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), "cpu", gae_lambda=0.95, gamma=gamma
    )
    rewards, values = torch.zeros(2, 5), torch.zeros(2, 5)
    for row, length in enumerate(lengths):
        for step in range(length):
            reward, value = rng.normal(), rng.normal()
            rewards[row, step], values[row, step] = reward, value
            buffer.add(
                np.zeros((1, 1), np.float32), np.zeros((1, 1)), np.array([reward]),
                np.array([step == 0]), torch.tensor([value]), torch.tensor([0.0]),
            )  # fmt: skip
    buffer.compute_returns_and_advantage(torch.tensor([123.0]), np.array([True]))
    valid = torch.arange(5) < torch.tensor(lengths)[:, None]
    advantages, returns = losses.gae(rewards, values, valid, gamma, 0.95)
    assert np.allclose(advantages[valid], buffer.advantages[:, 0], atol=1e-5)
    assert np.allclose(returns[valid], buffer.returns[:, 0], atol=1e-5)


def test_masked_categoricals() -> None:
    logits = torch.zeros(2, 10, requires_grad=True)
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[0, :4] = True  # the second row has nothing legal: it counts as KEEP only
    log_probs = losses.masked_log_probs(logits, mask)
    assert torch.allclose(log_probs[0, :4], torch.full((4,), -math.log(4)))
    assert torch.equal(log_probs.exp()[0, 4:], torch.zeros(6))
    assert torch.equal(log_probs.exp()[1], torch.eye(10)[0])
    spread = losses.entropy(log_probs)
    assert spread[0].item() == pytest.approx(math.log(4)) and spread[1].item() == 0
    (spread.sum() + losses.kl_categorical(log_probs, log_probs.detach()).sum()).backward()
    assert torch.isfinite(logits.grad).all()


def test_kl_closed_form() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert losses.kl_categorical(p.log(), q.log()).item() == pytest.approx(expected)


def test_clipped_objective_by_hand() -> None:
    """Ratios 2 and .5 with clip .2: gains stop at 1.2, losses are taken whole."""
    old = torch.zeros(1, 4)
    new = torch.tensor([[2.0, 2.0, 0.5, 0.5]]).log()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    where = torch.ones(1, 4, dtype=torch.bool)
    loss, approx_kl, clipped = losses.clipped_objective(new, old, advantages, where, 0.2)
    assert loss.item() == pytest.approx(-(1.2 - 2.0 + 0.5 - 0.8) / 4)
    assert clipped.item() == 1.0
    expected = ((2 - 1 - math.log(2)) * 2 + (0.5 - 1 - math.log(0.5)) * 2) / 4
    assert approx_kl.item() == pytest.approx(expected)


def test_gradient_at_ratio_one_is_the_policy_gradient() -> None:
    new = torch.zeros(1, 3, requires_grad=True)
    advantages = torch.tensor([[1.0, -2.0, 5.0]])
    where = torch.tensor([[True, True, False]])
    loss, _, _ = losses.clipped_objective(new, torch.zeros(1, 3), advantages, where, 0.2)
    loss.backward()
    assert torch.allclose(new.grad, torch.tensor([[-0.5, 1.0, 0.0]]))


def test_normalise_only_where_asked() -> None:
    values = torch.tensor([[1.0, 3.0, 100.0]])
    where = torch.tensor([[True, True, False]])
    assert torch.allclose(losses.normalise(values, where), torch.tensor([[-1.0, 1.0, 0.0]]))


def test_less_group_mean_by_hand() -> None:
    """Groups 0 and 2 have two members; the one of group 1 is alone and keeps its value."""
    values, group = torch.tensor([1.0, 3.0, 7.0, 10.0, 20.0]), torch.tensor([0, 0, 1, 2, 2])
    assert losses.less_group_mean(values, group).tolist() == [-1.0, 1.0, 7.0, -5.0, 5.0]


def test_explained_variance() -> None:
    where = torch.ones(4, dtype=torch.bool)
    returns = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert losses.explained_variance(returns, returns, where) == pytest.approx(1.0)
    assert losses.explained_variance(torch.zeros(4), returns, where) == pytest.approx(0.0)
    assert math.isnan(losses.explained_variance(returns, torch.ones(4), where))


def test_preference_losses_closed_forms() -> None:
    margin = torch.tensor([0.0, 3.0])
    ones = torch.ones(2)
    dpo = losses.preference_loss(margin, ones, beta=0.5)
    assert dpo[0].item() == pytest.approx(math.log(2))
    assert dpo[1].item() == pytest.approx(math.log(1 + math.exp(-1.5)))
    ipo = losses.preference_loss(torch.tensor([5.0, 0.0]), ones, beta=0.1, kind="ipo")
    assert ipo.tolist() == pytest.approx([0.0, 25.0])
    with pytest.raises(ValueError, match="hinge"):
        losses.preference_loss(margin, ones, beta=0.1, kind="hinge")


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_a_tie_pulls_the_margin_to_zero_and_sides_are_alike(kind: str) -> None:
    margin = torch.tensor([2.0, -2.0], requires_grad=True)
    loss = losses.preference_loss(margin, torch.full((2,), 0.5), beta=0.3, kind=kind)
    assert loss[0].item() == pytest.approx(loss[1].item())
    loss.sum().backward()
    assert margin.grad[0] > 0 > margin.grad[1]
    a = losses.preference_loss(margin, torch.ones(2), beta=0.3, kind=kind)
    b = losses.preference_loss(-margin, torch.zeros(2), beta=0.3, kind=kind)
    assert torch.allclose(a, b)


def test_a_strong_vote_asks_for_a_lead_and_a_tie_for_none() -> None:
    """The gradient is that of a plain pair whose implicit reward is less by the lead."""
    lead, margin = torch.tensor([0.5, 0.5]), torch.tensor([2.0, 2.0], requires_grad=True)
    first = losses.preference_loss(margin, torch.tensor([1.0, 0.5]), beta=0.25, lead=lead)
    assert first[0].item() == pytest.approx(math.log(2))  # .25 * 2 - .5 = 0
    assert first[1].item() == pytest.approx(math.log(2 * math.cosh(0.25)))
    b_wins = losses.preference_loss(-margin[:1], torch.zeros(1), beta=0.25, lead=lead[:1])
    assert b_wins.item() == pytest.approx(first[0].item())
    ipo = {"beta": 0.25, "kind": "ipo", "lead": lead}
    aim = (0.5 + 0.5) / 0.25
    there = losses.preference_loss(torch.tensor([aim, -aim]), torch.tensor([1.0, 0.0]), **ipo)
    assert there.tolist() == pytest.approx([0.0, 0.0])


def test_label_smoothing_has_its_best_margin_where_the_odds_are() -> None:
    """With a tenth of votes flipped, the best beta * margin is ln 9."""
    margin = torch.linspace(0, 6, 6001)
    loss = losses.preference_loss(margin, torch.ones(6001), beta=1.0, label_smoothing=0.1)
    assert margin[loss.argmin()].item() == pytest.approx(math.log(9), abs=2e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_dpo_agrees_with_trl_s_formula_on_random_pairs(smoothing: float) -> None:
    """trl 0.x `dpo_loss`, "sigmoid": -(1 - e) ln s(b d) - e ln s(-b d), in plain numpy."""
    rng = np.random.default_rng(0)
    chosen, rejected, ref_chosen, ref_rejected = rng.normal(-40, 10, (4, 50))
    beta, difference = 0.1, (chosen - rejected) - (ref_chosen - ref_rejected)
    expected = (1 - smoothing) * np.log1p(np.exp(-beta * difference))
    expected += smoothing * np.log1p(np.exp(beta * difference))
    margin = torch.from_numpy((chosen - ref_chosen) - (rejected - ref_rejected))
    ours = losses.preference_loss(
        margin, torch.ones(50, dtype=torch.double), beta=beta, label_smoothing=smoothing
    )
    assert np.allclose(ours.numpy(), expected, rtol=1e-9)
    flipped = losses.preference_loss(
        -margin, torch.zeros(50, dtype=torch.double), beta=beta, label_smoothing=smoothing
    )
    assert np.allclose(flipped.numpy(), expected, rtol=1e-9)


def test_dpo_and_ipo_by_hand_as_trl_defines_them() -> None:
    """Log-ratios 3 for the chosen and 1 for the rejected: the margin is 2.

    beta .5: sigmoid ln(1 + 1/e) = .313262; smoothed by .1, .9 * .313262 + .1 * 1.313262 = .413262.
    IPO, whose target is 1 / (2 beta) = 1: (2 - 1)^2 = 1; beta .1, target 5: (2 - 5)^2 = 9.
    A tie under the sigmoid is the mean of both sides, .813262.
    """
    margin, one = torch.tensor([2.0]), torch.ones(1)
    for settings, label, expected in (
        ({"beta": 0.5}, one, 0.313262),
        ({"beta": 0.5, "label_smoothing": 0.1}, one, 0.413262),
        ({"beta": 0.5}, one / 2, 0.813262),
        ({"beta": 0.5, "kind": "ipo"}, one, 1.0),
        ({"beta": 0.1, "kind": "ipo"}, one, 9.0),
    ):
        value = losses.preference_loss(margin, label, **settings).item()
        assert value == pytest.approx(expected, abs=1e-5), (settings, value)
