"""The report: random pairs judge, the parent is refitted on the same folds, two processes agree."""

from __future__ import annotations

import dataclasses
import os
import pickle
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from rlhf_core import train_reward
from rlhf_core.files import sha256_of
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.crossfit import Parent, evaluate, same_trunk, what_votes_say
from rlhf_core.reward.dataset import Vote, read_snapshot
from rlhf_core.reward.measured import Measured, as_numbers, embed_in_chunks, embed_plainly
from rlhf_core.reward.metrics import cross_fit, folds_by_song, summary
from rlhf_core.reward.posterior import fit_head
from rlhf_core.types import AudioState
from tests.reward.judged import judged_rows, snapshot

WORKER = """
import pickle, sys
from types import SimpleNamespace
import torch
from rlhf_core import train_reward
songs, argv = pickle.load(open(sys.argv[1], "rb"))
torch.set_num_threads(1)
train_reward.load_library = lambda *_: [SimpleNamespace(state=song) for song in songs]
sys.exit(train_reward.main(argv))
"""


@pytest.fixture(scope="module")
def votes(songs: list[AudioState], tmp_path_factory: pytest.TempPathFactory) -> tuple[Vote, ...]:
    """90 votes of a simulated judge on 12 songs; every third pair was chosen, not drawn."""
    rows = judged_rows(songs, "tight", 90, 0.5, 7)
    for row in rows[::3]:
        row["pool"] = "chosen"
    path = snapshot(tmp_path_factory.mktemp("votes") / "v.parquet", rows)
    return read_snapshot(path).usable(include_simulated=True)


@pytest.fixture(scope="module")
def trained(bootstrap_path: Path) -> RewardCheckpoint:
    return load_reward(bootstrap_path)


@pytest.fixture(scope="module")
def measured(
    songs: list[AudioState], votes: tuple[Vote, ...], trained: RewardCheckpoint
) -> Measured:
    edits = [edit for vote in votes for edit in (vote.edit_a, vote.edit_b)]
    return embed_in_chunks(trained.model, edits, {s.song_id: s for s in songs}, 0)


def quiet(stage: str, values: dict[str, Any]) -> None:
    pass


def report_of(
    votes: tuple[Vote, ...], measured: Measured, made: RewardCheckpoint, parent: Parent | None
) -> dict[str, Any]:
    return evaluate(votes, measured, made, 0, quiet, parent)


def test_chosen_pairs_train_and_random_pairs_judge(
    votes: tuple[Vote, ...], measured: Measured, trained: RewardCheckpoint
) -> None:
    """The whole cross-fit once more by hand: fit to all of the other songs, judge the random."""
    found = report_of(votes, measured, trained, None)
    judged = np.array([vote.pool == "random" and vote.decisive for vote in votes])
    names = [vote.song_id for vote in votes]
    data, folds = as_numbers(votes, measured.phi), folds_by_song(names, 0)
    p = np.full(len(votes), np.nan)
    for fold in set(folds.tolist()):
        head = fit_head(data.select(np.flatnonzero(folds != fold)), trained.prior)
        p[folds == fold] = head.probability(data.differences[folds == fold])
    songs = [name for name, use in zip(names, judged, strict=True) if use]
    want = summary(p[judged], data.outcome[judged], songs, 0)
    assert {name: found[name] for name in want} == want
    assert sum(row["votes"] for row in found["reliability"]) == judged.sum()
    assert found["evaluated_on"].startswith(f"{judged.sum()} decisive votes on randomly chosen")
    assert set(found["baselines"]) == {
        *("length_only", "keep_ratio_only", "attributes_only", "actions_shuffled"),
        *("audio_zeroed", "bootstrap"),
    }


def test_a_parent_with_the_same_votes_is_an_equal(
    votes: tuple[Vote, ...], measured: Measured, trained: RewardCheckpoint
) -> None:
    found = report_of(votes, measured, trained, Parent(trained))
    parent = found["baselines"]["parent"]
    assert {name: parent[name] for name in ("accuracy", "log_loss", "ece")} == {
        name: found[name] for name in ("accuracy", "log_loss", "ece")
    }
    assert found["gain_over_parent"] == {"accuracy": 0.0, "low": 0.0, "high": 0.0}
    assert not parent["votes_known"] and parent["n_votes"] == len(votes)


def test_a_parent_learns_from_its_own_votes_only(
    votes: tuple[Vote, ...], measured: Measured, trained: RewardCheckpoint
) -> None:
    none = report_of(votes, measured, trained, Parent(trained, frozenset({"of another time"})))
    assert none["baselines"]["parent"]["accuracy"] == 0.5
    assert none["gain_over_parent"]["accuracy"] == pytest.approx(none["accuracy"] - 0.5)
    half = frozenset(vote.vote_id for vote in votes[: len(votes) // 2])
    found = report_of(votes, measured, trained, Parent(trained, half, "reward_v1"))
    parent = found["baselines"]["parent"]
    assert (parent["n_votes"], parent["version"]) == (len(votes) // 2, "reward_v1")
    assert parent["accuracy"] > 0.5 and parent["log_loss"] > found["log_loss"]


def test_a_parent_with_another_trunk_embeds_with_its_own(
    songs: list[AudioState],
    votes: tuple[Vote, ...],
    measured: Measured,
    trained: RewardCheckpoint,
    bootstrap_path: Path,
) -> None:
    other = load_reward(bootstrap_path)
    assert same_trunk(trained.model, other.model)
    other.model.head.weight.data.add_(1.0)
    assert same_trunk(trained.model, other.model)  # the head is no part of the trunk
    other.model.action.weight.data.mul_(-1.0)
    assert not same_trunk(trained.model, other.model)
    edits = [votes[0].edit_a, votes[0].edit_b]
    states = {song.song_id: song for song in songs}
    theirs, ours = (embed_plainly(made.model, edits, states) for made in (other, trained))
    assert not np.allclose(theirs[edits[0]], ours[edits[0]])
    np.testing.assert_allclose(ours[edits[0]], measured.phi[edits[0]], atol=1e-4)


def test_a_second_person_gives_agreement_a_ceiling_and_someone_to_be_foreseen_by(
    votes: tuple[Vote, ...], measured: Measured, trained: RewardCheckpoint
) -> None:
    """The second says all that the first says, so either is foreseen from the other's votes on
    other songs exactly as the first is from their own.
    """
    votes = votes[:44]
    assert what_votes_say(votes)["ceiling"] is None
    data, folds = as_numbers(votes, measured.phi), folds_by_song([v.song_id for v in votes], 0)
    judged = np.array([vote.pool == "random" and vote.decisive for vote in votes])
    p_a = cross_fit(data, folds, partial(fit_head, prior=trained.prior))[judged]
    twin = [dataclasses.replace(v, vote_id=v.vote_id + "+", annotator="twin") for v in votes]
    found = report_of((*votes, *twin), measured, trained, None)
    assert (found["ceiling"], found["ceiling_from"]) == (1.0, "agreement")
    assert set(found["left_out_annotators"]) == {"simulated_tight", "twin"}
    right = p_a > 0.5
    won = data.outcome[judged] > 0
    for row in found["left_out_annotators"].values():
        assert row["n_votes"] == judged.sum() and row["accuracy"] == (right == won).mean()
        assert row["log_loss"] == pytest.approx(log_loss(won, p_a), abs=1e-6)


def test_repeats_are_the_ceiling_where_there_are_both(votes: tuple[Vote, ...]) -> None:
    again = [
        dataclasses.replace(vote, vote_id=vote.vote_id + "again", pool="repeat")
        for vote in votes[:4]
    ]
    other = [
        dataclasses.replace(vote, vote_id=vote.vote_id + "+", annotator="twin", choice=choice)
        for vote, choice in zip([v for v in votes if v.decisive][:4], "abab", strict=True)
    ]
    found = what_votes_say((*votes, *again, *other))
    assert found["consistency"]["agreement"] == 1 and found["agreement"]["agreement"] < 1
    assert (found["ceiling"], found["ceiling_from"]) == (1.0, "repeats")


def argv_of(tmp_path: Path, name: str, *more: str) -> list[str]:
    return [
        *("--preferences", str(tmp_path / "v.parquet"), "--data_dir", str(tmp_path)),
        *("--output_dir", str(tmp_path / name), "--include_simulated", *more),
    ]


def test_the_command_names_its_parent_and_checks_whose_votes_they_are(
    songs: list[AudioState],
    bootstrap_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [SimpleNamespace(state=song) for song in songs]
    monkeypatch.setattr(train_reward, "load_library", lambda *_: found)
    rows = judged_rows(songs[:6], "tight", 44, 0.5, 9)
    early = snapshot(tmp_path / "early.parquet", rows[:20])
    snapshot(tmp_path / "v.parquet", rows)
    base = ("--reward_model", str(bootstrap_path))
    first = argv_of(tmp_path, "one", *base)
    first[1] = str(early)
    assert train_reward.main(first) == 0
    parent = str(tmp_path / "one/models/reward_model_final.pt")
    told = ("--parent", parent, "--parent_preferences")
    assert train_reward.main(argv_of(tmp_path, "two", *base, *told, str(early))) == 0
    made = load_reward(tmp_path / "two/models/reward_model_final.pt")
    assert made.metrics["baselines"]["parent"]["n_votes"] == 20
    assert made.lineage["parent"]["sha256"] == sha256_of(bootstrap_path)  # the prior's, as ever
    assert "than its parent" in capsys.readouterr().out
    wrong = argv_of(tmp_path, "three", *base, *told, str(tmp_path / "v.parquet"))
    assert train_reward.main(wrong) == 2
    assert "is not the snapshot" in capsys.readouterr().err
    alone = argv_of(tmp_path, "four", *base, "--parent_preferences", str(early))
    assert train_reward.main(alone) == 2
    assert "needs --parent" in capsys.readouterr().err
    assert train_reward.main(argv_of(tmp_path, "five", *base, "--parent", "nowhere.pt")) == 2
    Path(parent).write_bytes(b"damaged")
    assert train_reward.main(argv_of(tmp_path, "six", *base, *told, str(early))) == 0
    assert "not compared with its parent" in capsys.readouterr().err
    made = load_reward(tmp_path / "six/models/reward_model_final.pt")
    assert "damaged" in made.metrics["not_compared_with_parent"]


def test_a_device_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_reward.main(argv_of(tmp_path, "run", "--device", "cuda:77")) == 2
    assert "Use --device cpu" in capsys.readouterr().err


def test_a_full_gpu_gets_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(train_reward, "_train", full)
    assert train_reward.main(argv_of(tmp_path, "run")) == 2
    said = capsys.readouterr().err
    assert "Tried to allocate 2 GiB" in said and "use --device cpu" in said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_processes_make_the_same_checkpoint(
    songs: list[AudioState], bootstrap_path: Path, tmp_path: Path
) -> None:
    snapshot(tmp_path / "v.parquet", judged_rows(songs[:3], "bar_true", 24, 1.0, 3))
    port = str(free_port())
    environment = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    processes = []
    for name, ranks in (("alone", None), ("both", range(2))):
        argv = argv_of(tmp_path, name, "--reward_model", str(bootstrap_path))
        work = tmp_path / f"{name}.pkl"
        work.write_bytes(pickle.dumps((songs, argv)))
        command = [sys.executable, "-c", WORKER, str(work)]
        if ranks is None:
            processes.append(subprocess.Popen(command))
        else:
            processes += [
                subprocess.Popen(command, env=environment | {"RANK": str(rank)}) for rank in ranks
            ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    one, two = (
        load_reward(tmp_path / name / "models/reward_model_final.pt") for name in ("alone", "both")
    )
    assert torch.equal(one.mean, two.mean) and torch.equal(one.covariance, two.covariance)
    assert one.metrics == two.metrics
