"""Acting, replaying and padding must agree; seeds must mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_core.editing.actions import legalise
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import CheckpointError, ConfigError
from rlhf_core.policy.agent import Agent, AgentConfig, load_policy, save_policy
from rlhf_core.policy.losses import masked_log_probs
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.rollout import collect, evaluate, from_actions, gumbel, taken


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_replay_sees_what_acting_saw(small_agent: Agent, items: list[Item]) -> None:
    batch = PassageBatch.from_passages(items)
    rollout = collect(small_agent, batch, generator(1))
    again = from_actions(batch, rollout.actions)
    assert torch.equal(again.actions, rollout.actions)
    assert torch.equal(again.free, rollout.free)
    assert torch.equal(again.masks[batch.valid], rollout.masks[batch.valid])
    log_probs, values = evaluate(small_agent, again)
    now = torch.where(again.free, taken(log_probs, again.actions), torch.zeros(()))
    assert torch.allclose(now, rollout.log_probs, atol=1e-5)
    assert torch.allclose(values[batch.valid], rollout.values[batch.valid], atol=1e-5)


def test_acting_is_legal_and_forced_beats_are_no_decisions(
    small_agent: Agent, items: list[Item]
) -> None:
    batch = PassageBatch.from_passages(items)
    rollout = collect(small_agent, batch, generator(2))
    for row, (state, passage) in enumerate(items):
        phase = state.grid.bar_phase[passage.start_beat : passage.end_beat]
        n = passage.n_beats
        actions = rollout.actions[row, :n].numpy()
        legal, free = legalise(actions, phase, state.grid.beats_per_bar)
        assert np.array_equal(legal, actions)
        assert np.array_equal(free, rollout.free[row, :n].numpy())
    assert not rollout.free.all(), "no bar action was ever taken"
    assert rollout.log_probs[~rollout.free].eq(0).all()
    assert rollout.steps == sum(passage.n_beats for _, passage in items)


def test_padding_changes_nothing(small_agent: Agent, items: list[Item]) -> None:
    short = min(items, key=lambda item: item[1].n_beats)
    alone = PassageBatch.from_passages([short])
    padded = PassageBatch.from_passages([short, *items]).select(torch.tensor([0]))
    n = short[1].n_beats
    assert padded.width > n
    with torch.no_grad():
        a, b = small_agent.encode(alone), small_agent.encode(padded)
    assert torch.allclose(a[0], b[0, :n], atol=1e-5)
    assert b[0, n:].eq(0).all()


def test_seed_and_temperature(small_agent: Agent, items: list[Item]) -> None:
    batch = PassageBatch.from_passages(items)
    first, same = (collect(small_agent, batch, generator(3)).actions for _ in range(2))
    assert torch.equal(first, same)
    assert not torch.equal(first, collect(small_agent, batch, generator(4)).actions)
    cold = [collect(small_agent, batch, generator(s), temperature=0.0).actions for s in (5, 6)]
    assert torch.equal(*cold)


def test_gumbel_noise_draws_from_the_categorical() -> None:
    log_p = torch.tensor([0.6, 0.3, 0.1]).log()
    draws = (log_p + gumbel((200_000, 3), generator(0), torch.device("cpu"))).argmax(-1)
    share = torch.bincount(draws, minlength=3) / 200_000
    assert torch.allclose(share, log_p.exp(), atol=5e-3)


def test_decisions_depend_on_the_beats_and_on_the_edit_so_far(
    small_agent: Agent, items: list[Item]
) -> None:
    batch = PassageBatch.from_passages(items[:1])
    torch.nn.init.normal_(small_agent.action_head.weight)
    keep = from_actions(batch, torch.zeros(batch.valid.shape, dtype=torch.long))
    cut = from_actions(batch, (torch.arange(batch.width) == 8).long()[None])
    with torch.no_grad():
        a, b = evaluate(small_agent, keep)[0], evaluate(small_agent, cut)[0]
        batch.features[0, 20] += 5
        c = evaluate(small_agent, keep)[0]
    assert torch.equal(a[0, :9], b[0, :9]) and not torch.allclose(a[0, 9:], b[0, 9:])
    assert not torch.allclose(a[0, 0], c[0, 0]), "the encoder must look ahead"


def test_policy_round_trip_and_damage(
    small_agent: Agent, items: list[Item], tmp_path: Path
) -> None:
    path = tmp_path / "policy.pt"
    small_agent.set_normaliser(torch.ones(121), torch.full((121,), 2.0))
    save_policy(path, small_agent, step=0)
    again = load_policy(path)
    batch = PassageBatch.from_passages(items)
    with torch.no_grad():
        assert torch.equal(again.encode(batch), small_agent.encode(batch))
    small_agent.first.weight.data[0, 0] = float("nan")
    save_policy(path, small_agent)
    with pytest.raises(CheckpointError, match=r"first\.weight"):
        load_policy(path)


def test_config_checks_itself() -> None:
    with pytest.raises(ConfigError, match="multiple of heads"):
        AgentConfig(width=30, heads=4)
    mask = torch.ones(1, 10, dtype=torch.bool)
    assert masked_log_probs(torch.zeros(1, 10), mask).exp().sum().item() == pytest.approx(1.0)


def test_bf16_encodes_nearly_the_same_and_decides_in_float32(
    small_agent: Agent, items: list[Item]
) -> None:
    batch = PassageBatch.from_passages(items)
    exact = small_agent.encode(batch)
    small_agent.bf16 = True
    near = small_agent.encode(batch)
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    assert float((near - exact).detach().abs().max()) < 0.1
    rollout = collect(small_agent, batch, torch.Generator().manual_seed(0))
    log_probs, _ = evaluate(small_agent, rollout)
    assert log_probs.dtype == torch.float32
