"""Fitting to votes, end to end: a simulated judge is learned on unseen songs; results repeat."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlhf_core import test_report, train_reward
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.files import sha256_of
from rlhf_core.policy.agent import Agent, save_policy
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.dataset import Vote, collate, read_snapshot
from rlhf_core.reward.learned_reward_integration import LearnedRewardIntegration
from rlhf_core.reward.synthetic import GROUP, draw_edits
from rlhf_core.reward.training import fit_checkpoint, fit_reward
from rlhf_core.types import AudioState
from tests.reward.judged import WINDOW, judged_rows, snapshot


@pytest.fixture
def library(songs: list[AudioState], monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up songs stand for the library that the command would read."""
    found = [SimpleNamespace(state=song) for song in songs]
    monkeypatch.setattr(train_reward, "load_library", lambda *_: found)


def run(tmp_path: Path, bootstrap: Path, votes: Path, *more: str) -> int:
    return train_reward.main(
        [
            *("--preferences", str(votes), "--data_dir", str(tmp_path)),
            *("--reward_model", str(bootstrap), "--output_dir", str(tmp_path / "run")),
            *more,
        ]
    )


def test_a_judge_is_learned_from_200_votes(
    songs: list[AudioState], checkpoint: RewardCheckpoint, tmp_path: Path
) -> None:
    train, unseen = songs[:8], songs[8:]
    path = snapshot(tmp_path / "v.parquet", judged_rows(train, "hates_repetition", 200, 0.0, 1))
    votes = read_snapshot(path).usable(include_simulated=True)
    fitted = fit_reward(votes, {song.song_id: song for song in train}, checkpoint, {})
    test = snapshot(tmp_path / "t.parquet", judged_rows(unseen, "hates_repetition", 120, 0.0, 2))
    integration = LearnedRewardIntegration()
    integration.set_model_state(fitted.checkpoint.content())

    def scores(side: str, votes: tuple[Vote, ...]) -> torch.Tensor:
        edits = [vote.edit_a if side == "a" else vote.edit_b for vote in votes]
        batch, actions = collate(edits, {song.song_id: song for song in unseen})
        return integration.score(batch, actions).raw

    new = tuple(vote for vote in read_snapshot(test).votes if vote.decisive)
    chose_a = torch.tensor([vote.choice == "a" for vote in new])
    right = ((scores("a", new) > scores("b", new)) == chose_a).float().mean()
    assert float(right) > 0.75
    assert fitted.metrics["accuracy"] > 0.7
    assert fitted.metrics["accuracy_low"] < fitted.metrics["accuracy"]
    assert fitted.metrics["log_loss"] < fitted.metrics["log_loss_of_knowing_nothing"]
    assert fitted.metrics["accuracy"] > fitted.metrics["baselines"]["actions_shuffled"]["accuracy"]


def test_the_command_writes_a_run_and_repeats_itself(
    songs: list[AudioState], bootstrap_path: Path, tmp_path: Path, library: None
) -> None:
    votes = snapshot(tmp_path / "v.parquet", judged_rows(songs, "bar_true", 60, 1.0, 3))
    before = sha256_of(bootstrap_path)
    assert run(tmp_path, bootstrap_path, votes, "--include_simulated") == 0
    made = tmp_path / "run/models/reward_model_final.pt"
    first = load_reward(made)
    assert run(tmp_path, bootstrap_path, votes, "--include_simulated") == 0
    again = load_reward(made)
    assert torch.equal(first.mean, again.mean) and torch.equal(first.covariance, again.covariance)
    assert (first.mu, first.sigma, first.metrics) == (again.mu, again.sigma, again.metrics)
    kept = list(made.parent.glob("reward_model_final*.pt"))
    assert len(kept) == 2, "the older one is renamed, not overwritten"
    assert sha256_of(bootstrap_path) == before
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["snapshot"] == sha256_of(votes) == again.lineage["snapshot"]
    assert again.lineage["parent"]["sha256"] == before and again.lineage["synthetic"] is True
    assert results["metrics"]["n_simulated"] == 60 and results["metrics"]["ceiling"] is None
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert {"step", "accuracy", "log_loss"} <= set(json.loads(lines[0]))
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["state"] == "finished"


def test_the_prior_and_the_scales_are_the_bootstraps_whatever_is_built_upon(
    songs: list[AudioState], checkpoint: RewardCheckpoint, tmp_path: Path
) -> None:
    """On a version that has seen the votes they give the same bits: none counts twice."""
    rows = judged_rows(songs[:6], "bar_true", 24, 1.0, 6)
    votes = read_snapshot(snapshot(tmp_path / "v.parquet", rows)).usable(include_simulated=True)
    states = {song.song_id: song for song in songs}
    once = fit_checkpoint(votes, states, checkpoint, {})
    twice = fit_checkpoint(votes, states, once, {})
    assert torch.equal(once.mean, twice.mean) and torch.equal(once.covariance, twice.covariance)
    assert not torch.equal(once.mean, checkpoint.mean)
    start, made = checkpoint.content(), twice.content()
    for part in ("prior", "reference"):
        kept = {name: value for name, value in start[part].items() if name not in ("mu", "sigma")}
        for name, value in kept.items():
            same = made[part][name]
            assert torch.equal(value, same) if isinstance(value, torch.Tensor) else value == same
    scores = once.reference.embeddings.double() @ once.mean
    assert once.mu == pytest.approx(float(scores.mean()))
    within = scores.view(-1, GROUP) - scores.view(-1, GROUP).mean(1, keepdim=True)
    freedom = within.numel() - len(within)
    assert once.sigma == pytest.approx(float((within.square().sum() / freedom).sqrt()))


def test_simulated_votes_are_left_out_by_default(
    songs: list[AudioState],
    bootstrap_path: Path,
    tmp_path: Path,
    library: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    votes = snapshot(tmp_path / "v.parquet", judged_rows(songs, "tight", 8, 1.0, 4))
    assert run(tmp_path, bootstrap_path, votes) == 2
    assert "8 simulated" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "failed"


def test_votes_on_one_song_fit_but_are_not_measured(
    songs: list[AudioState], checkpoint: RewardCheckpoint, tmp_path: Path
) -> None:
    rows = judged_rows(songs[:1], "tight", 12, 1.0, 5)
    votes = read_snapshot(snapshot(tmp_path / "v.parquet", rows)).usable(include_simulated=True)
    metrics = fit_reward(votes, {songs[0].song_id: songs[0]}, checkpoint, {}).metrics
    assert metrics["accuracy"] is None
    assert metrics["evaluated_on"].startswith("nothing")


def test_report_passes_good_checkpoints_and_fails_bad_ones(
    bootstrap_path: Path,
    checkpoint: RewardCheckpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert test_report.main([str(bootstrap_path)]) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC" in said and "padding changes nothing" in said and "FAIL" not in said
    checkpoint.model.action.weight.data.zero_()
    checkpoint.model.action_gain.weight.data.zero_()
    checkpoint.model.level_action.weight.data.zero_()
    checkpoint.model.beat.weight.data[:, -4:] = 0
    checkpoint.save(tmp_path / "deaf.pt")
    assert test_report.main([str(tmp_path / "deaf.pt")]) == 1
    assert "FAIL every action changes the score" in capsys.readouterr().out
    assert test_report.main([str(tmp_path / "missing.pt")]) == 2
    (tmp_path / "torn.pt").write_bytes(bootstrap_path.read_bytes()[:3000])
    assert test_report.main([str(tmp_path / "torn.pt")]) == 2
    assert "damaged" in capsys.readouterr().err


def test_report_checks_policies_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    agent = Agent()
    save_policy(tmp_path / "policy.pt", agent)
    assert test_report.main([str(tmp_path / "policy.pt")]) == 0
    assert "edits are legal" in capsys.readouterr().out
    agent.inputs.weight.data[0, 0] = float("inf")
    save_policy(tmp_path / "bad.pt", agent)
    assert test_report.main([str(tmp_path / "bad.pt")]) == 1
    assert "FAIL all finite: inputs.weight" in capsys.readouterr().out


def test_synthetic_edits_of_one_window_differ(songs: list[AudioState]) -> None:
    edits = draw_edits(songs[0], WINDOW, np.random.default_rng(0))
    batch = PassageBatch.from_passages([(songs[0], WINDOW)])
    assert len({tuple(np.asarray(edit).tolist()) for edit in edits}) >= len(edits) - 1
    assert all(len(edit) == batch.width for edit in edits)
