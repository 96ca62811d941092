"""PPO and DPO each solve a toy; an update touches nothing but the agent that it trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from feedback_app.settings import POLICY_STEPS
from rlhf_core.editing.actions import Action, legalise
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import ConfigError, DataError
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.dpo import (
    DPOConfig,
    DPOTrainer,
    PairBatch,
    edit_log_prob,
    ranked_pairs,
)
from rlhf_core.policy.ppo import PPOConfig, PPOTrainer, adapted
from rlhf_core.policy.rewards import EditRewards, Item, RewardSource
from rlhf_core.policy.rollout import collect, evaluate, from_actions
from rlhf_core.policy.trainer import RLHFTrainer, TrainingConfig, copy_of
from rlhf_core.policy.votes import VotePairs
from rlhf_core.reward.dataset import Vote

FREE = PPOConfig(lr=3e-3, kl_weight=0.0, kl_target=10.0)


def keep_ratio(agent: Agent, items: list[Item], seed: int = 99) -> float:
    batch = PassageBatch.from_passages(items * 4)
    rollout = collect(agent, batch, torch.Generator().manual_seed(seed))
    return float((rollout.actions != Action.CUT)[batch.valid].float().mean())


def test_ppo_learns_to_cut(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    before = keep_ratio(small_agent, items)
    config = TrainingConfig(total_steps=12_000, n_steps=600, save_interval=100_000)
    trainer = RLHFTrainer(small_agent, items, likes_cuts, tmp_path, config, ppo=FREE)
    trainer.train()
    after = keep_ratio(small_agent, items)
    assert after < before - 0.3, (before, after)
    rewards = trainer.columns["total_reward"]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.9


def test_variety_is_held_at_its_target(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    """The best edit is one and the same: without a target the policy ends in it, all alike."""
    config = TrainingConfig(total_steps=12_000, n_steps=600, save_interval=100_000)
    varied = {}
    for target in (0.0, 1.2):
        agent = copy_of(small_agent).requires_grad_(True)
        ppo = replace(FREE, entropy_target=target)
        trainer = RLHFTrainer(agent, items, likes_cuts, tmp_path / str(target), config, ppo=ppo)
        trainer.train()
        varied[target] = trainer.columns["entropy"][-2:]
    assert max(varied[0.0]) < 0.4, varied
    assert min(varied[1.2]) > 0.8, varied  # 1.2 within the dead band, and some room


def test_the_kl_penalty_holds_the_policy_back(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    config = TrainingConfig(total_steps=6_000, n_steps=600, save_interval=100_000)
    drift = {}
    for name, ppo in {"free": FREE, "held": replace(FREE, kl_weight=0.5, kl_target=0.03)}.items():
        agent = copy_of(small_agent).requires_grad_(True)
        trainer = RLHFTrainer(agent, items, likes_cuts, tmp_path / name, config, ppo=ppo)
        trainer.train()
        drift[name] = trainer.columns["kl_reference"][-1]
        assert trainer.columns["kl_reference"][0] > 0
    assert drift["held"] < 0.5 * drift["free"], drift


def test_dpo_on_ranked_pairs_learns_to_cut(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    before = keep_ratio(small_agent, items)
    config = TrainingConfig("dpo", total_steps=12_000, n_steps=1200, save_interval=100_000)
    dpo = DPOConfig(lr=3e-3, beta=0.3, minibatch_pairs=5)
    trainer = RLHFTrainer(small_agent, items, likes_cuts, tmp_path, config, dpo=dpo)
    trainer.train()
    assert keep_ratio(small_agent, items) < before - 0.15
    assert trainer.columns["value_loss"] == [None] * len(trainer.columns["step"])
    assert sum(trainer.columns["accuracy"][-3:]) / 3 > 0.55
    assert sum(trainer.columns["margin"][-3:]) > 0


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_dpo_on_given_pairs_prefers_the_chosen(
    small_agent: Agent, items: list[Item], loss: str
) -> None:
    """One side cuts every other bar, the other reverses it, by turns; who cuts is preferred."""
    batch = PassageBatch.from_passages(items)
    every_other = (torch.arange(batch.width) // 4 % 2 == 1).expand(batch.size, -1)
    cut = torch.where(every_other & batch.valid, int(Action.CUT), 0)
    turned = torch.where(every_other & batch.valid, int(Action.REVERSE), 0)
    winner = torch.arange(batch.size) % 2 == 1
    pairs = PairBatch(
        batch,
        torch.where(winner[:, None], cut, turned),
        torch.where(winner[:, None], turned, cut),
        winner.float(),
    )  # the cut edit wins every pair, from either side
    config = DPOConfig(loss=loss, lr=3e-3, beta=0.1, label_smoothing=0.0)
    trainer = DPOTrainer(small_agent, copy_of(small_agent), config)
    start, _ = trainer.loss(pairs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(15):
        trainer.update(pairs, generator)
    end, log = trainer.loss(pairs)
    assert log["accuracy"] == 1.0 and end < start
    assert log["chosen_log_prob"] > log["rejected_log_prob"]


def test_ranked_pairs_by_hand() -> None:
    """Passage 0 has edits 0, 2, 4, 6 and passage 1 has 1, 3, 5: the k-th meets the (k + E/2)-th."""
    rewards = torch.tensor([1.0, 9.0, 4.0, 7.0, 2.0, 8.0, 3.0])
    better, worse = ranked_pairs(rewards, torch.tensor([0, 1, 0, 1, 0, 1, 0]))
    assert list(zip(better.tolist(), worse.tolist(), strict=True)) == [(2, 4), (6, 0), (1, 3)]


def test_an_edit_counts_by_its_free_decisions(small_agent: Agent, items: list[Item]) -> None:
    """Scored edit by edit, as acting saw it; the beats that bar actions cover count for nothing."""
    small_agent.action_head.bias.data[int(Action.REPEAT_BAR)] += 4
    batch = PassageBatch.from_passages(items)
    acted = collect(small_agent, batch, torch.Generator().manual_seed(1))
    edits = from_actions(batch, acted.actions)
    with torch.no_grad():
        now, _ = evaluate(small_agent, edits)
    summed, mean = edit_log_prob(now, edits), edit_log_prob(now, edits, mean=True)
    for row, (state, passage) in enumerate(items):
        n, grid = passage.n_beats, state.grid
        phase = grid.bar_phase[passage.start_beat : passage.end_beat]
        _, free = legalise(acted.actions[row, :n].numpy(), phase, grid.beats_per_bar)
        assert not free.all(), "no bar action was taken"
        known = float(acted.log_probs[row, :n][torch.from_numpy(free)].sum())
        assert float(summed[row]) == pytest.approx(known, abs=1e-3)
        assert float(mean[row]) == pytest.approx(known / free.sum(), abs=1e-4)


def test_ranked_pairs_are_made_anew_by_the_policy_of_now(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    """Each update gets at least n_steps scored actions; what changes the policy changes them."""
    config = TrainingConfig("dpo", total_steps=900, n_steps=400, save_interval=10**9)
    trainer = RLHFTrainer(small_agent, items, likes_cuts, tmp_path, config)
    drawn: list[PairBatch] = []
    learn = trainer.algorithm.update

    def update(pairs: PairBatch, generator: torch.Generator) -> dict[str, float]:
        drawn.append(pairs)
        log = learn(pairs, generator)
        small_agent.action_head.bias.data[int(Action.REVERSE)] += 20
        return log

    trainer.algorithm.update = update  # type: ignore[method-assign]
    trainer.train()
    shares = []
    for pairs in drawn:
        assert pairs.steps == 2 * int(pairs.batch.valid.sum()) >= 400
        both = torch.stack([pairs.actions_a, pairs.actions_b])
        shares.append(float((both == Action.REVERSE)[:, pairs.batch.valid].float().mean()))
    assert shares[0] < 0.3 and min(shares[1:]) > 0.9, shares
    assert trainer.columns["step"] == np.cumsum([0, *(p.steps for p in drawn[:-1])]).tolist()


def votes_on(item: Item, second: Action, at: int, *given: tuple[str, int | None]) -> list[Vote]:
    """Votes (choice, strength) on all kept against four beats of another action."""
    (state, passage), (a, b) = item, np.zeros((2, item[1].n_beats), dtype=np.int64)
    b[at : at + 4] = int(second)
    return [
        Vote(
            f"v{i}", f"p{i}", state.song_id, "ann", True, choice, strength, "random", passage,
            a, b, "x", "y", False, "train",
        )
        for i, (choice, strength) in enumerate(given)
    ]  # fmt: skip


def test_votes_become_labels_and_margins(small_agent: Agent, items: list[Item]) -> None:
    """Ties are soft labels, strength a lead to reach; "skip" and its like never get here."""
    state = items[0][0]
    given = (("a", 1), ("b", 3), ("tie", None), ("both_bad", None))
    votes = votes_on(items[0], Action.CUT, 8, *given)
    pairs = VotePairs(votes, {state.song_id: state}).pairs(votes)
    assert pairs.label.tolist() == [1.0, 0.0, 0.5, 0.5]
    assert pairs.strength is not None and pairs.strength.tolist() == [0.0, 2.0, 0.0, 0.0]
    trainer = DPOTrainer(
        small_agent,
        copy_of(small_agent),
        DPOConfig(strength_margin=0.5, beta=0.1, label_smoothing=0.0),
    )
    loss, _ = trainer.loss(pairs)  # at the reference every implicit reward is 0
    expected = (3 * math.log(2) + math.log1p(math.exp(1.0))) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_vote_on_an_edit_that_no_policy_could_make_is_named(items: list[Item]) -> None:
    """A bar that is repeated off its first beat, as after a correction of the beats."""
    state, votes = items[0][0], votes_on(items[0], Action.REPEAT_BAR, 9, ("a", 1))
    with pytest.raises(DataError, match="vote v0: edit b has actions that are not legal"):
        VotePairs(votes, {state.song_id: state})


def test_at_the_reference_dpo_knows_nothing(small_agent: Agent, items: list[Item]) -> None:
    """Policy = reference: every margin is 0, the sigmoid loss ln 2, accuracy a coin's."""
    batch = PassageBatch.from_passages(items)
    generator = torch.Generator().manual_seed(0)
    a, b = (collect(small_agent, batch, generator).actions for _ in range(2))
    label = torch.tensor([1.0, 0.0] * (batch.size // 2))
    trainer = DPOTrainer(small_agent, copy_of(small_agent))
    loss, log = trainer.loss(PairBatch(batch, a, b, label))
    assert loss.item() == pytest.approx(0.6931472, abs=1e-5)
    assert log["accuracy"] == 0.5 and log["margin"] == 0 and log["kl_reference"] == 0


def test_the_first_step_is_at_ratio_one_and_the_reference_stays(
    small_agent: Agent, items: list[Item]
) -> None:
    batch = PassageBatch.from_passages(items)
    rollout = collect(small_agent, batch, torch.Generator().manual_seed(0))
    reference = copy_of(small_agent)
    frozen = {name: value.clone() for name, value in reference.state_dict().items()}
    trainer = PPOTrainer(small_agent, reference, PPOConfig(epochs=1, minibatch_episodes=99))
    log = trainer.update(rollout, torch.randn(batch.size), torch.Generator().manual_seed(0))
    assert log["approx_kl"] == pytest.approx(0, abs=1e-6) and log["clip_fraction"] == 0
    assert all(torch.equal(frozen[n], v) for n, v in reference.state_dict().items())
    before, _ = evaluate(reference, rollout)
    after, _ = evaluate(small_agent, rollout)
    assert not torch.equal(before, after)


@pytest.mark.parametrize(("limit", "epochs"), [(1e-9, 1), (1e9, 3)])
def test_an_update_ends_early_beyond_its_kl_and_gradients_are_shortened(
    small_agent: Agent, items: list[Item], limit: float, epochs: int
) -> None:
    batch = PassageBatch.from_passages(items)
    rollout = collect(small_agent, batch, torch.Generator().manual_seed(0))
    config = PPOConfig(epochs=3, minibatch_episodes=5, update_kl=limit, max_grad_norm=1e-3)
    trainer = PPOTrainer(small_agent, copy_of(small_agent), config)
    rewards = torch.randn(batch.size, generator=torch.Generator().manual_seed(1))
    log = trainer.update(rollout, rewards, torch.Generator().manual_seed(0))
    steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert steps == {epochs * 2} and log["stopped_early"] == (epochs == 1)
    left = [weight.grad for weight in small_agent.parameters() if weight.grad is not None]
    assert torch.cat([g.flatten() for g in left]).norm().item() == pytest.approx(1e-3, rel=1e-2)
    assert log["grad_norm"] > 1e-2, "what is logged is the length before"


def test_adaptive_weights_by_hand() -> None:
    """Up by a half beyond 1.2 times the target, down below its 1.2th part, within their limits."""
    steps = [adapted(0.3, excess, 0.2, 0.4) for excess in (1.1, 0.9, 1.3, 0.5)]
    assert steps == [0.3, 0.3, 0.4, 0.2]
    assert adapted(0.3, 1.3, 0.0, 9.0) == pytest.approx(0.45)
    assert adapted(0.3, 0.5, 0.0, 9.0) == pytest.approx(0.2)


def test_settings_check_themselves() -> None:
    for wrong in ({"gamma": 0.0}, {"lr": -1.0}, {"epochs": 0}):
        with pytest.raises(ConfigError):
            PPOConfig(**wrong)
    for wrong in ({"loss": "hinge"}, {"label_smoothing": 0.5}, {"beta": 0.0}):
        with pytest.raises(ConfigError):
            DPOConfig(**wrong)
    with pytest.raises(ConfigError, match="algorithm"):
        TrainingConfig("sarsa")
    assert TrainingConfig().total_steps == POLICY_STEPS, "the app's and the command's are one"


def _likes_turning(batch: PassageBatch, actions: Tensor, items: Sequence[Item]) -> EditRewards:
    """A toy judge: the share of beats played backwards, 1 at best, since any beat may be."""
    turned = ((actions == Action.REVERSE) & batch.valid).sum(1) / batch.lengths
    return EditRewards(turned, turned, turned)


@pytest.mark.parametrize("algorithm", ["ppo", "dpo"])
def test_both_come_near_the_known_optimum(
    small_agent: Agent, items: list[Item], tmp_path: Path, algorithm: str
) -> None:
    """Chance turns about a tenth of the beats, the best edit all of them."""
    config = TrainingConfig(
        algorithm, total_steps=30_000, n_steps=600, save_interval=10**9, plot_every=10**9
    )
    trainer = RLHFTrainer(
        small_agent, items, _likes_turning, tmp_path, config,
        ppo=replace(FREE, lr=1e-2, entropy_weight=0.0, update_kl=0.2),
        dpo=DPOConfig(lr=1e-2, beta=0.01, minibatch_pairs=5, label_smoothing=0.0),
    )  # fmt: skip
    trainer.train()
    earned = trainer.columns["total_reward"]
    assert earned[0] < 0.2 and sum(earned[-3:]) / 3 > 0.95, earned
