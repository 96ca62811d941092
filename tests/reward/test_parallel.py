"""Two processes (gloo) train to the same weights as one with twice the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_core.errors import ConfigError
from rlhf_core.reward.model import RewardModelConfig
from rlhf_core.reward.parallel import share_of
from rlhf_core.reward.pretraining import family
from rlhf_core.reward.synthetic import make_edits
from rlhf_core.reward.trunk import PretrainingSettings, Standard, Trunk, train
from rlhf_core.types import AudioState

STEPS = 6
WORKER = """
import sys, torch
from rlhf_core.reward.parallel import process_group
from rlhf_core.reward.trunk import train
folder = sys.argv[1]
torch.set_num_threads(1)
work = torch.load(f"{folder}/work.pt", weights_only=False)
with process_group(meet=f"file://{folder}/meet") as rank:
    train(work["trunk"], work["edits"], work["want"], work["settings"], None, lambda *_: None)
if rank == 0:
    torch.save(work["trunk"].state_dict(), f"{folder}/two.pt")
"""


def test_without_a_group_the_share_is_everything() -> None:
    mine, weight = share_of(torch.arange(5))
    assert mine.tolist() == [0, 1, 2, 3, 4] and weight == 1


def test_two_processes_equal_one_with_twice_the_batch(
    songs: list[AudioState], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    edits = make_edits(songs[:3], 9, rng)  # batches of 4, 4 and 1: the last is unevenly shared
    standard = Standard(edits.attributes, family(rng))
    config = RewardModelConfig(d_model=32, n_layers=1, n_heads=2, ff=32, embedding=32)

    def fresh() -> Trunk:
        torch.manual_seed(0)
        tastes = len(standard.family.weights)
        trunk = Trunk(config, edits.attributes.shape[-1], tastes)
        trunk.model.normaliser.fit(edits.windows.features, edits.windows.valid)
        return trunk

    def settings(windows: int) -> PretrainingSettings:
        return PretrainingSettings(steps=STEPS, time_limit=None, windows_per_step=windows)

    want = standard.targets(edits.attributes)
    work = {"trunk": fresh(), "edits": edits, "want": want, "settings": settings(2)}
    torch.save(work, tmp_path / "work.pt")
    one = fresh()
    train(one, edits, want, settings(4), None, lambda *_: None)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    start = fresh().state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two[name], value, atol=2e-5, rtol=1e-4, msg=name)
    moved = [name for name in start if not torch.equal(start[name], one.state_dict()[name])]
    assert len(moved) > 20


def test_a_clock_cannot_stop_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_core.reward.trunk.world", lambda: (0, 2))
    nothing: object = None
    with pytest.raises(ConfigError, match="--steps"):
        train(nothing, nothing, nothing, PretrainingSettings(), 1.0, lambda *_: None)  # type: ignore[arg-type]
