"""Our preference losses and what DPO logs, against figures that trl's own code gave.

`make_trl_reference.py` says how they were made and how to make them again.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_core.policy import losses
from rlhf_core.policy.dpo import edit_log_prob, measure
from rlhf_core.policy.rollout import Rollout

HERE = Path(__file__).parent
STORED = json.loads((HERE / "trl_reference.json").read_text())
CASES: list[dict[str, Any]] = STORED["cases"]


class _Edits:
    """Only what `edit_log_prob` looks at: every decision takes action 0."""

    def __init__(self, free: torch.Tensor) -> None:
        self.free, self.actions = free, torch.zeros(free.shape, dtype=torch.long)


def _summed(case: dict[str, Any], side: str, which: str, mean: bool) -> torch.Tensor:
    table = torch.tensor(case[side][which], dtype=torch.double)
    free = torch.arange(table.shape[1]) < torch.tensor(case[side]["lengths"])[:, None]
    edits: Rollout = _Edits(free)  # type: ignore[assignment]
    return edit_log_prob(table[..., None], edits, mean)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case['beta']}")
def test_loss_accuracy_and_margin_are_trl_s(case: dict[str, Any]) -> None:
    """trl averages IPO's log-probabilities over the tokens: our length_normalise."""
    mean = case["kind"] == "ipo"
    gain = {
        side: _summed(case, side, "policy", mean) - _summed(case, side, "reference", mean)
        for side in ("chosen", "rejected")
    }
    margin, label = gain["chosen"] - gain["rejected"], torch.ones(6, dtype=torch.double)
    settings = {"beta": case["beta"], "kind": case["kind"]}
    loss = losses.preference_loss(margin, label, **settings).mean()
    assert loss.item() == pytest.approx(case["trl"]["loss"], rel=1e-9)
    swapped = losses.preference_loss(-margin, 1 - label, **settings).mean()
    assert swapped.item() == pytest.approx(case["trl"]["loss"], rel=1e-9)
    sides = [_summed(case, side, "policy", False) for side in ("chosen", "rejected")]
    before = [_summed(case, side, "reference", False) for side in ("chosen", "rejected")]
    whole = (sides[0] - before[0]) - (sides[1] - before[1])
    log = measure(loss, whole, label, torch.cat(sides), case["beta"])
    for ours, theirs in (
        ("accuracy", "rewards/accuracies"),
        ("margin", "rewards/margins"),
        ("chosen_log_prob", "logps/chosen"),
        ("rejected_log_prob", "logps/rejected"),
    ):
        assert log[ours] == pytest.approx(case["trl"][theirs], rel=1e-6), ours


@pytest.mark.long
def test_the_stored_figures_are_what_trl_says_today(tmp_path: Path) -> None:
    python = os.environ.get("TRL_PYTHON")
    if python is None:
        pytest.skip("TRL_PYTHON names no interpreter with trl (see make_trl_reference.py)")
    script, made = HERE / "make_trl_reference.py", tmp_path / "made.json"
    subprocess.run([python, str(script), str(made)], check=True, timeout=600)
    for old, new in zip(CASES, json.loads(made.read_text())["cases"], strict=True):
        assert new["trl"] == pytest.approx(old["trl"], rel=1e-9)
