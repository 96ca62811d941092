"""Two processes (gloo) learn the same as one: gradients of shares average to the whole's."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy.agent import Agent
from rlhf_core.policy.dpo import DPOConfig, DPOTrainer, PairBatch
from rlhf_core.policy.ppo import PPOConfig, PPOTrainer
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.rollout import collect
from rlhf_core.policy.trainer import copy_of

WORKER = """
import pickle, sys
from pathlib import Path
import torch
from rlhf_core.policy.shares import anyone
from rlhf_core.reward.parallel import process_group
folder = Path(sys.argv[1])
torch.set_num_threads(1)
with process_group(meet=f"file://{folder}/meet") as rank:
    make, arguments = pickle.loads((folder / "work.pkl").read_bytes())
    trainer = make[0](make[1], make[2], make[3])
    log = trainer.update(*arguments, torch.Generator().manual_seed(0))
    assert anyone(rank == 1) and not anyone(False), "both stop, or none"
weights = {name: value.clone() for name, value in trainer.agent.state_dict().items()}
gradients = {name: value.grad for name, value in trainer.agent.named_parameters()}
torch.save((weights, gradients, log), folder / f"rank{rank}.pt")
threads = {path.read_text() for path in Path("/proc/self/task").glob("*/comm")}
assert not [name for name in threads if "gloo" in name], threads
"""


def ppo_work(agent: Agent, items: list[Item]) -> tuple[object, ...]:
    """Minibatches of 4 of 19 episodes of unequal lengths: the shares are uneven, the last is 3."""
    batch = PassageBatch.from_passages((items * 2)[:19])
    rollout = collect(agent, batch, torch.Generator().manual_seed(0))
    rewards = torch.randn(19, generator=torch.Generator().manual_seed(1))
    config = PPOConfig(epochs=2, minibatch_episodes=6, update_kl=10.0)
    return (PPOTrainer, agent, copy_of(agent), config), (rollout, rewards)


def dpo_work(agent: Agent, items: list[Item]) -> tuple[object, ...]:
    batch = PassageBatch.from_passages(items)
    generator = torch.Generator().manual_seed(0)
    a, b = (collect(agent, batch, generator).actions for _ in range(2))
    pairs = PairBatch(batch, a, b, torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0] * 2))
    config = DPOConfig(epochs=2, minibatch_pairs=3)  # 3, 3, 3 and 1: one process has nothing
    return (DPOTrainer, agent, copy_of(agent), config), (pairs,)


@pytest.mark.parametrize("work", [ppo_work, dpo_work])
def test_two_processes_equal_one(
    small_agent: Agent,
    items: list[Item],
    tmp_path: Path,
    work: Callable[[Agent, list[Item]], tuple[tuple[object, ...], tuple[object, ...]]],
) -> None:
    made, arguments = work(small_agent, items)
    (tmp_path / "work.pkl").write_bytes(pickle.dumps((made, arguments)))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    kind, _, reference, config = made
    agent = copy_of(small_agent).requires_grad_(True)
    log = kind(agent, reference, config).update(*arguments, torch.Generator().manual_seed(0))
    assert [worker.wait() for worker in workers] == [0, 0]
    (first, gradients, logged), (second, same, _) = (
        torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)
    )
    start = small_agent.state_dict()
    assert any(not torch.equal(start[name], value) for name, value in first.items())
    for name, value in agent.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], value, atol=2e-5), name
    for name, value in agent.named_parameters():  # those of the last minibatch
        if value.grad is None:  # DPO has no use for the value head
            assert gradients[name] is None or not gradients[name].any(), name
            continue
        assert torch.equal(gradients[name], same[name]), name
        assert torch.allclose(gradients[name], value.grad, atol=1e-4), name
    for name in ("policy_loss", "kl_reference", "entropy", "grad_norm"):
        assert logged[name] == pytest.approx(log[name], rel=1e-3, abs=1e-5), name
