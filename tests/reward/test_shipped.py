"""The bootstrap that comes with the project: fit for use, small, and what its card says it is."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from rlhf_core import test_report
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.learned_reward_integration import DEFAULT_CHECKPOINT
from rlhf_core.reward.model import RewardModelConfig
from rlhf_core.reward.pretraining import parser
from rlhf_core.reward.trunk import PretrainingSettings

PATH = Path(str(resources.files("rlhf_core"))) / DEFAULT_CHECKPOINT


@pytest.fixture(scope="module")
def shipped() -> RewardCheckpoint:
    return load_reward(PATH)


@pytest.fixture(scope="module")
def card() -> str:
    return (PATH.parent / "README.md").read_text("utf-8")


def test_it_is_fit_for_use_small_and_synthetic(
    shipped: RewardCheckpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PATH.stat().st_size <= 12e6
    assert shipped.model.config == RewardModelConfig()
    assert shipped.lineage["synthetic"] and shipped.lineage["snapshot"] is None
    assert shipped.metrics["pairs"] >= 5000 and "n_votes" not in shipped.metrics
    assert test_report.main([str(PATH)]) == 0
    said = capsys.readouterr().out
    assert "FAIL" not in said and "SYNTHETIC" in said


def test_the_card_names_the_command_that_it_was_made_by(
    shipped: RewardCheckpoint, card: str
) -> None:
    made_by = re.search(r"reward\.pretraining (.*?)\n\n", card, re.DOTALL)
    assert made_by is not None
    options = parser().parse_args(made_by[1].replace("\\\n", " ").split())
    made = shipped.lineage["settings"]
    for name in ("pairs", "steps", "seed", "windows_per_step"):
        assert getattr(options, name) == made[name], name
    assert made["time_limit"] is None and options.time_limit == 0
    rest = {name: made[name] for name in ("learning_rate", "absolute_weight", "reference_windows")}
    assert rest == {name: getattr(PretrainingSettings(), name) for name in rest}
    assert f"--count {shipped.metrics['n_songs']}\n" in card


def test_the_cards_figures_are_the_checkpoints(shipped: RewardCheckpoint, card: str) -> None:
    figures, text = shipped.metrics, " ".join(card.split())
    assert f"median R² of the statistics .{figures['attribute_r2_median'] * 100:.0f}" in text
    assert (
        f"votes of the random tastes foreseen {figures['taste_accuracy']:.0%}".replace("%", " %")
        in text
    )
    for name in ("whole_phrases", "mean_recurrence", "join_mismatch"):
        assert re.search(rf"`{name}`\D*\.{figures['attribute_r2'][name] * 100:.0f}\)", text), name
    scale = shipped.reference
    assert f"mu {scale.dense_mu:.4f}, sigma {scale.dense_sigma:.4f}" in text
    assert f"{PATH.stat().st_size / 1e6:.1f} MB" in text


def test_a_bootstrap_is_of_5000_pairs_unless_asked_otherwise() -> None:
    options = parser().parse_args(["--data_dir", "songs"])
    assert options.pairs == PretrainingSettings().pairs >= 5000
    assert 0 < options.time_limit <= 360
