"""The same round by commands alone, each in a process of its own, with no app running."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from tests.rounds import SMALL, make_song


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands") / "workspace"


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_song(tmp_path_factory.mktemp("music"))


def app(workspace: Path, *arguments: str, ok: bool = True) -> str:
    """Run a command of the app on the workspace; its output, checked for success."""
    chosen = {f"FEEDBACK_APP_{name.upper()}": str(value) for name, value in SMALL.items()}
    command = [sys.executable, "-m", "feedback_app", *arguments, "--workspace", str(workspace)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | chosen
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_1_songs_come_in_and_first_versions_are_made(workspace: Path, song: Path) -> None:
    app(workspace, "songs", "add", str(song))
    versions = app(workspace, "versions")
    assert "policy_v1" in versions and "reward_v0" in versions


def test_2_pairs_go_out_and_votes_come_back(workspace: Path, tmp_path: Path) -> None:
    app(workspace, "pairs", "export", str(tmp_path / "out"))
    lines = (tmp_path / "out/pairs.jsonl").read_text("utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    assert len(pairs) == SMALL["first_pairs"]
    for pair in pairs:
        heard = [soundfile.read(tmp_path / "out" / pair[e]["audio_path"])[0] for e in EDITS]
        assert heard[0].shape != heard[1].shape or (abs(heard[0] - heard[1]) > 1e-3).any()
        for name in EDITS:
            assert len(pair[name]["actions"]) == (
                pair["passage"]["end_beat"] - pair["passage"]["start_beat"]
            )
    choices = ["a", "b", "a", "b", "tie", "a", "b", "both_bad", "a", "skip", "b", "a"]
    votes = tmp_path / "votes.csv"
    with votes.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["pair_id", "annotator", "choice", "strength"])
        for number, (pair, choice) in enumerate(zip(pairs, choices, strict=True)):
            strength = 1 + number % 3 if choice in ("a", "b") else ""
            writer.writerow([pair["pair_id"], "Ада <script>", choice, strength])
        writer.writerow(["no-such-pair", "Ада <script>", "a", 2])
        writer.writerow([pairs[0]["pair_id"], "eve", "left", 2])
    said = app(workspace, "votes", "import", str(votes))
    assert "12" in said and "14" in said and "15" in said and "no-such-pair" in said


EDITS = ("edit_a", "edit_b")


def test_3_the_reward_learns(workspace: Path) -> None:
    app(workspace, "retrain-reward")
    assert "reward_v1" in app(workspace, "versions")


@pytest.mark.parametrize(("algorithm", "version"), [("ppo", "policy_v2"), ("dpo", "policy_v3")])
def test_4_a_policy_is_proposed(workspace: Path, algorithm: str, version: str) -> None:
    app(workspace, "train-policy", "--algorithm", algorithm, "--total-steps", "2048")
    assert version in app(workspace, "versions")


def test_5_the_promoted_version_makes_the_next_pairs(workspace: Path, tmp_path: Path) -> None:
    app(workspace, "promote", "policy_v2")
    app(workspace, "pairs", "generate", "--count", "2", "--seed", "5")
    app(workspace, "pairs", "export", str(tmp_path))
    lines = (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()
    made = {json.loads(line)[edit]["policy"] for line in lines for edit in EDITS}
    assert "policy_v2" in made


def test_6_the_export_holds_the_votes(workspace: Path, tmp_path: Path) -> None:
    app(workspace, "export", str(tmp_path), "--format", "parquet")
    rows = pd.read_parquet(next(tmp_path.rglob("*.parquet")))
    assert len(rows) == 12
    assert rows["choice"].value_counts().to_dict() == {
        "a": 5, "b": 4, "tie": 1, "both_bad": 1, "skip": 1,
    }  # fmt: skip
    assert set(rows["annotator"]) == {"Ада <script>"} and not rows["simulated"].any()
    simulated = app(workspace, "promote", "policy_v99", ok=False)
    assert "policy_v99" in simulated
