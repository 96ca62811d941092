"""Fine-tuning behind its gate: toys in which the answer is known, and the command as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlhf_core import test_report, train_reward
from rlhf_core.errors import ConfigError
from rlhf_core.reward import finetuning
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.dataset import read_snapshot
from rlhf_core.reward.finetuning import (
    LAYERS,
    Pooled,
    Verdict,
    fine_tune,
    gate,
    song_error,
    tune,
    vote_loss,
    with_tuned_trunk,
)
from rlhf_core.reward.metrics import folds_by_song
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.posterior import HeadPosterior, Votes, fit_head, log_likelihood
from rlhf_core.reward.training import fit_reward
from rlhf_core.types import AudioState
from tests.reward.judged import judged_rows, snapshot

HIDDEN, SEEN = 11, 40  # a column of the pool that phi does not see, and one that it does
N_VOTES = 480
Course = tuple[LearnedRewardModel, Pooled, Votes, RewardCheckpoint]


def toy(checkpoint: RewardCheckpoint, taste: Callable[[np.ndarray], np.ndarray]) -> Course:
    """Votes of a taste (pool differences (n, P) -> logits (n,)) about pools like real ones.

    The trunk is blind to column HIDDEN.
    """
    model = checkpoint.model
    model.pooled.weight.data[:, HIDDEN] = 0.0
    generator = torch.Generator().manual_seed(0)
    inputs = checkpoint.reference.inputs
    assert inputs is not None
    spread = inputs.std(0)
    spread[HIDDEN] = spread[: model.widths[0]].mean() * 6
    both = inputs.mean(0) + spread * torch.randn(2, N_VOTES, inputs.shape[1], generator=generator)
    pooled = Pooled(both[0], both[1])
    logits = taste((pooled.a - pooled.b).div(spread).double().numpy())
    won = np.random.default_rng(1).random(N_VOTES) < 1 / (1 + np.exp(-logits))
    zeros = np.zeros(N_VOTES, dtype=np.int64)
    votes = Votes(
        pooled.differences(model),
        np.where(won, 1, -1),
        np.ones(N_VOTES),
        zeros,
        zeros.astype(float),
    )
    return model, pooled, votes, checkpoint


def judged(course: Course) -> Verdict:
    model, pooled, votes, checkpoint = course
    songs = [f"song {i % 12}" for i in range(N_VOTES)]
    counted = np.ones(N_VOTES, dtype=bool)
    return gate(model, pooled, votes, checkpoint.prior, folds_by_song(songs, 0), counted, songs)


def test_the_gate_takes_a_trunk_that_sees_what_the_frozen_one_cannot(
    checkpoint: RewardCheckpoint,
) -> None:
    found = judged(toy(checkpoint, lambda x: 2.5 * x[:, HIDDEN] + 0.5 * x[:, SEEN]))
    assert found.accepted
    assert found.gain == pytest.approx(found.log_loss - found.tuned_log_loss)
    assert found.gain > 0.03


def test_the_gate_refuses_on_votes_at_random(checkpoint: RewardCheckpoint) -> None:
    found = judged(toy(checkpoint, lambda x: np.zeros(len(x))))
    assert not found.accepted
    assert found.gain < found.standard_error


def test_only_the_last_layers_move_and_with_no_reach_nothing_does(
    checkpoint: RewardCheckpoint,
) -> None:
    model, pooled, votes, _ = toy(checkpoint, lambda x: 2 * x[:, HIDDEN] + 0.5 * x[:, SEEN])
    head = fit_head(votes, checkpoint.prior)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moved = tune(model, pooled, votes, head, 0.2).state_dict()
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value)  # the given one stays
        if name.split(".")[0] not in LAYERS:
            assert torch.equal(moved[name], value)
    assert not torch.equal(moved["pooled.weight"], before["pooled.weight"])
    still = tune(model, pooled, votes, head, 1e-6)
    np.testing.assert_allclose(still.mix(pooled.a), model.mix(pooled.a), atol=1e-4)
    again = tune(model, pooled, votes, head, 0.2).state_dict()
    assert all(torch.equal(again[name], moved[name]) for name in moved)


def test_tuning_explains_its_own_votes_better(checkpoint: RewardCheckpoint) -> None:
    model, pooled, votes, _ = toy(checkpoint, lambda x: 2 * x[:, HIDDEN] + 0.5 * x[:, SEEN])
    head = fit_head(votes, checkpoint.prior)
    moved = tune(model, pooled, votes, head, 0.2)
    losses = [
        float(vote_loss(torch.from_numpy(pooled.differences(m) @ head.mean), votes, head))
        for m in (model, moved)
    ]
    assert losses[1] < losses[0]


def test_the_loss_is_the_heads_likelihood() -> None:
    rng = np.random.default_rng(2)
    n = 50
    votes = Votes(
        np.zeros((n, 1)), rng.integers(-1, 2, n), rng.uniform(0.5, 1.5, n),
        rng.integers(0, 3, n), rng.choice([-1.0, 1.0], n),
    )  # fmt: skip
    beta, bias, tie = np.array([0.5, 1.0, 2.0]), np.array([0.1, -0.3, 0.4]), 0.7
    head = HeadPosterior(np.zeros(1), np.eye(1), 1.0, 0.2, tie, bias, beta, 0.0, n)
    logits = rng.normal(size=n) * 2
    m = beta[votes.annotator] * logits + bias[votes.annotator] * votes.side
    want = -votes.weight @ log_likelihood(m, float(np.log(tie)), votes.outcome)[0]
    assert float(vote_loss(torch.from_numpy(logits), votes, head)) == pytest.approx(want)


def test_the_error_over_songs_is_the_plain_one_when_each_vote_is_a_song() -> None:
    values = np.random.default_rng(3).normal(size=40)
    each = song_error(values, [str(i) for i in range(40)])
    assert each == pytest.approx(values.std(ddof=1) / np.sqrt(40))
    twice = song_error(np.repeat(values, 2), [str(i // 2) for i in range(80)])
    assert twice == pytest.approx(each)  # hearing a song twice tells nothing new


def test_the_reference_edits_move_with_the_trunk(checkpoint: RewardCheckpoint) -> None:
    inputs = checkpoint.reference.inputs
    assert inputs is not None
    np.testing.assert_allclose(
        checkpoint.model.mix(inputs), checkpoint.reference.embeddings, atol=1e-4
    )
    model = LearnedRewardModel(checkpoint.model.config).requires_grad_(False)
    moved = with_tuned_trunk(checkpoint, model)
    np.testing.assert_allclose(model.mix(inputs), moved.reference.embeddings, atol=1e-6)
    assert moved.prior is checkpoint.prior
    without = replace(checkpoint, reference=replace(checkpoint.reference, inputs=None))
    with pytest.raises(ConfigError, match="reference edits"):
        with_tuned_trunk(without, model)


def fine_tuned(
    songs: list[AudioState], bootstrap: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The checkpoint of `train_reward --fine_tune` on 32 simulated votes about made-up songs."""
    found = [SimpleNamespace(state=song) for song in songs]
    monkeypatch.setattr(train_reward, "load_library", lambda *_: found)
    votes = snapshot(folder / "v.parquet", judged_rows(songs[:4], "bar_true", 32, 1.0, 3))
    argv = ["--preferences", str(votes), "--data_dir", str(folder), "--output_dir", str(folder)]
    argv += ["--reward_model", str(bootstrap), "--include_simulated", "--fine_tune"]
    assert train_reward.main(argv) == 0
    return folder / "models/reward_model_final.pt"


def test_the_command_tells_what_the_gate_found(
    songs: list[AudioState],
    bootstrap_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = load_reward(fine_tuned(songs, bootstrap_path, tmp_path, monkeypatch))
    found = json.loads((tmp_path / "results.json").read_text())["metrics"]["fine_tuning"]
    assert found["accepted"] == (found["gain"] > found["standard_error"])
    assert found["gain"] == pytest.approx(found["log_loss_frozen"] - found["log_loss_tuned"])
    assert made.lineage["fine_tuned"] == found["accepted"]
    assert f"tuned: gain {found['gain']:+.4f}" in capsys.readouterr().out


def test_a_tuned_version_is_whole_repeats_itself_and_is_not_built_upon(
    songs: list[AudioState],
    bootstrap_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finetuning, "MARGIN", -np.inf)  # the gate opens
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.append(fine_tuned(songs, bootstrap_path, tmp_path / name, monkeypatch))
    made, again = (load_reward(path) for path in paths)
    assert all(
        torch.equal(value, again.model.state_dict()[name])
        for name, value in made.model.state_dict().items()
    )
    start = load_reward(bootstrap_path)
    assert not torch.equal(made.model.pooled.weight, start.model.pooled.weight)
    assert made.reference.inputs is not None
    phi = made.model.mix(made.reference.inputs)
    np.testing.assert_allclose(phi, made.reference.embeddings, atol=1e-5)
    mu, sigma = made.reference.scale_of(made.mean)
    assert (made.mu, made.sigma) == (pytest.approx(mu), pytest.approx(sigma))
    assert "frozen_trunk" in made.metrics["baselines"]
    assert test_report.main([str(paths[0])]) == 0
    votes = read_snapshot(tmp_path / "one/v.parquet").usable(include_simulated=True)
    with pytest.raises(ConfigError, match="count twice"):
        fit_reward(votes, {song.song_id: song for song in songs}, made, {})


def test_one_song_cannot_judge_a_trunk(checkpoint: RewardCheckpoint) -> None:
    votes = (SimpleNamespace(song_id="only", decisive=True, pool="random"),) * 3
    data = Votes(np.zeros((3, 96)), np.ones(3, int), np.ones(3), np.zeros(3, int), np.zeros(3))
    found = fine_tune(votes, data, {}, checkpoint, fit_head(data, checkpoint.prior), 0)  # type: ignore[arg-type]
    assert found.checkpoint is checkpoint and found.p_a is None
    assert found.metrics["accepted"] is False
