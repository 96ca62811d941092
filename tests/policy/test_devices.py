"""The same training on every device: on the CPU always, on a GPU where one is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlhf_core import devices
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import ConfigError
from rlhf_core.policy.agent import Agent, load_policy
from rlhf_core.policy.rewards import Item, dense_only
from rlhf_core.policy.rollout import collect
from rlhf_core.policy.trainer import RLHFTrainer, TrainingConfig, copy_of

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda:0", marks=gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_seed_means_the_same_actions(device: str, small_agent: Agent, items: list[Item]) -> None:
    there = copy_of(small_agent).to(device)
    passages = PassageBatch.from_passages(items)
    here = collect(small_agent, passages, torch.Generator().manual_seed(5), edits=2)
    same = collect(there, passages.to(device), torch.Generator().manual_seed(5), edits=2)
    assert same.actions.device.type == torch.device(device).type
    assert float((same.actions.cpu() == here.actions).float().mean()) > 0.99  # but for rounding
    equal = (same.actions.cpu() == here.actions).all(1)
    assert torch.allclose(same.log_probs.cpu()[equal], here.log_probs[equal], atol=1e-3)


@pytest.mark.parametrize(
    ("device", "algorithm", "bf16"),
    [("cpu", "dpo", True)]
    + [
        pytest.param("cuda:0", algorithm, bf16, marks=gpu)
        for algorithm in ("ppo", "dpo")
        for bf16 in (False, True)
    ],
)
def test_it_trains_and_its_policy_loads_on_the_cpu(
    device: str, algorithm: str, bf16: bool, small_agent: Agent, items: list[Item], tmp_path: Path
) -> None:
    agent = copy_of(small_agent).requires_grad_(True).to(device)
    settings = TrainingConfig(algorithm, 600, n_steps=300, seed=1, bf16=bf16)
    trainer = RLHFTrainer(agent, items, dense_only, tmp_path, settings)
    trainer.train()
    assert all(value is None or value == value for value in trainer.columns["policy_loss"])
    trained, before = load_policy(tmp_path / "models/policy_final.pt"), small_agent.state_dict()
    changed = [bool((value != before[n]).any()) for n, value in trained.state_dict().items()]
    assert any(changed) and trained.device.type == "cpu"


def test_each_process_of_torchrun_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs are pretended: what is asked of torch, not what nccl does with it."""
    current: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert devices.own_device("cuda") == "cuda" and devices.own_device("cpu") == "cpu"
    for name, value in (("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert devices.own_device("cpu") == "cpu" and not current
    assert devices.own_device("cuda") == "cuda:1" and current == ["cuda:1"]
    with pytest.raises(ConfigError, match="--device cuda gives each"):
        devices.own_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="2 CUDA device"):
        devices.own_device("cuda")


def test_the_backends_are_ones_that_torch_knows() -> None:
    """Tensors on the CPU go by gloo, whatever the device; gradients on GPUs by nccl."""
    on_gpus = torch.distributed.BackendConfig(torch.distributed.Backend(devices.backend("cuda:1")))
    assert on_gpus.get_device_backend_map() == {"cpu": "gloo", "cuda": "nccl"}
    assert torch.distributed.Backend(devices.backend("cpu")) == torch.distributed.Backend.GLOO
