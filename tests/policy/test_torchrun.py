"""A whole training by torchrun on two processes (gloo) ends where one by one process ends.

Of single updates and gradients, see test_shares; of the launcher in the app, tests/app.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlhf_core.policy.agent import Agent, load_policy, save_policy
from rlhf_core.runs import read_lines
from tests.policy.test_commands import write_song

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
FIGURES = ("policy_loss", "value_loss", "entropy", "kl_reference", "grad_norm")


def train(data: Path, policy: Path, out: Path, *launcher: str) -> tuple[list[dict], Agent]:  # type: ignore[type-arg]
    argv = ["-m", "rlhf_core.train_rlhf", "--data_dir", str(data), "--policy", str(policy)]
    argv += ["--total_steps", "900", "--n_steps", "300", "--threads", "1", "--seed", "3"]
    done = subprocess.run(
        [sys.executable, *launcher, *argv, "--output_dir", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return read_lines(out / "metrics.jsonl"), load_policy(out / "models" / "policy_final.pt")


@pytest.mark.long
def test_a_training_by_torchrun_ends_where_one_process_ends(
    small_agent: Agent, tmp_path: Path
) -> None:
    for seed in range(2):
        write_song(tmp_path / f"songs/train/song{seed}.wav", seed)
    save_policy(tmp_path / "policy.pt", small_agent, step=0, episode=0)
    made = {
        name: train(tmp_path / "songs", tmp_path / "policy.pt", tmp_path / name, *launcher)
        for name, launcher in (("one", ()), ("two", TORCHRUN))
    }
    (lines, one), (shared, two) = made["one"], made["two"]
    assert len(lines) == len(shared) >= 3
    for alone, together in zip(lines, shared, strict=True):
        assert alone["step"] == together["step"]
        for name in FIGURES:
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name
    start, after = small_agent.state_dict(), two.state_dict()
    moved = 0
    for name, value in one.state_dict().items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-4, msg=name)
        moved += not torch.allclose(start[name], value, atol=1e-3)
    assert moved > 10, "it did learn: further than the tolerance"
