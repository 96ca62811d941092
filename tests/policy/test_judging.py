"""Simulated annotators of both kinds behind one door, voting, and judging policies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rlhf_core import judge_policy, simulate_votes
from rlhf_core.audio.library import load_song
from rlhf_core.audio_judges import AUDIO_JUDGES
from rlhf_core.errors import ConfigError
from rlhf_core.judges import JUDGES, cast_vote
from rlhf_core.judging import Annotator
from rlhf_core.policy.agent import Agent, save_policy
from rlhf_core.runs import read_lines
from rlhf_core.tastes import LISTENING, READING

RATE = 22050


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic: clicks at 120 BPM; the first half of each song dark, the second bright."""
    folder = tmp_path_factory.mktemp("songs")
    time = np.arange(24 * RATE) / RATE
    for name, low, high in (("train/one", 180, 3000), ("train/two", 240, 2600)):
        hz = np.where(time < 12, low, high)
        click = 0.5 * np.exp(-(time % 0.5) * 60) * np.sin(2 * np.pi * 900 * time)
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.2 * np.sin(2 * np.pi * hz * time) + click, RATE)
    return folder


def test_every_judge_can_be_offered_with_its_taste() -> None:
    assert {j.name: j.taste for j in JUDGES.values()} == dict(READING)
    assert {j.name: j.taste for j in AUDIO_JUDGES.values()} == dict(LISTENING)
    with pytest.raises(ConfigError, match="heard_even"):
        Annotator("nobody")


def rows_of(data_dir: Path) -> list[dict]:
    """Pairs of an edit without its dark half against one without its bright half."""
    rows = []
    for path in sorted((data_dir / "train").glob("*.wav")):
        song = load_song(path, data_dir / ".cache")
        n = song.state.grid.n_beats
        dark, bright = ([int(i < n // 2) for i in range(n)], [int(i >= n // 2) for i in range(n)])
        for number in range(6):
            sides = [{"actions": bright}, {"actions": dark}]
            a, b = sides[:: 1 if number % 2 else -1]
            rows.append({"pair_id": f"{path.stem}{number}", "song_id": song.song_id,
                         "passage": {"start_beat": 0, "end_beat": n},
                         "edit_a": a, "edit_b": b})  # fmt: skip
    return rows


def test_a_judge_who_listens_votes_by_what_it_hears(data_dir: Path, tmp_path: Path) -> None:
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    rows = rows_of(data_dir)
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    argv = ["--pairs", str(pairs), "--data_dir", str(data_dir), "--output_dir", str(out)]
    assert simulate_votes.main([*argv, "--judge", "heard_bright", "--noise", "0"]) == 0
    votes = read_lines(out / "votes.jsonl")
    # `bright` cuts the second half, so the other side of each pair is the brighter one
    keeps_bright = ["a" if row["edit_a"]["actions"][0] == 1 else "b" for row in rows]
    assert [vote["choice"] for vote in votes] == keeps_bright
    assert {vote["annotator"] for vote in votes} == {"judge:heard_bright"}
    assert simulate_votes.main([*argv, "--judge", "nobody"]) == 2


def test_a_judge_votes_in_the_manner_that_is_asked_for(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows_of(data_dir)), "utf-8")

    def choices(*more: str) -> list[str]:
        out = tmp_path / "_".join(more)
        argv = ["--pairs", str(pairs), "--data_dir", str(data_dir), "--output_dir", str(out)]
        assert simulate_votes.main([*argv, "--judge", "heard_bright", *more]) == 0
        return [vote["choice"] for vote in read_lines(out / "votes.jsonl")]

    assert set(choices("--skip", "1")) == {"skip"}
    assert set(choices("--both_bad", "1", "--noise", "0")) <= {"both_bad", "a", "b"}
    assert "both_bad" in choices("--both_bad", "1", "--noise", "0")
    assert set(choices("--side_bias", "99", "--lapse", "0")) == {"a"}
    assert set(choices("--side_bias", "-99", "--lapse", "0")) == {"b"}
    assert set(choices("--tie_margin", "99", "--lapse", "0")) == {"tie"}
    assert set(choices("--tie_margin", "99", "--lapse", "1")) <= {"a", "b"}
    wrong = ["--pairs", str(pairs), "--data_dir", str(data_dir), "--output_dir", str(tmp_path)]
    assert simulate_votes.main([*wrong, "--lapse", "2"]) == 2
    assert "shares between 0 and 1" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        simulate_votes.main(["--help"])
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in (*READING, *LISTENING))


def test_noise_of_one_leaves_about_seventy_percent_consistent() -> None:
    judge, rng = Annotator("heard_even"), np.random.default_rng(0)
    differences = rng.normal(0, 7.0, 4000)  # decibels, or whatever it hears in
    unit = judge.unit(differences)
    votes = [cast_vote(d / unit, 0.0, rng) for d in differences]
    decided = [(c, d) for (c, _), d in zip(votes, differences, strict=True) if c in "ab"]
    right = np.mean([(choice == "a") == (d > 0) for choice, d in decided])
    assert 0.65 < right < 0.75
    assert Annotator("tight").unit(differences) == 1.0
    assert judge.unit(np.zeros(3)) == 1.0


def keeper(agent: Agent, keep: float) -> Agent:
    """The agent with a liking for KEEP, or against it."""
    with torch.no_grad():
        agent.action_head.bias[0] += keep
    return agent


@pytest.mark.parametrize(("judge", "liked"), [("long", True), ("tight", False)])
def test_a_policy_is_judged_by_the_judge_itself(
    data_dir: Path, tmp_path: Path, small_agent: Agent, judge: str, liked: bool
) -> None:
    save_policy(tmp_path / "old.pt", small_agent, step=0, episode=0)
    save_policy(tmp_path / "new.pt", keeper(small_agent, 6.0), step=0, episode=0)
    argv = ["--judge", judge, "--checkpoint", str(tmp_path / "new.pt"), "--parent",
            str(tmp_path / "old.pt"), "--first", str(tmp_path / "new.pt"), "--test_dir",
            str(data_dir / "train"), "--output_dir", str(tmp_path / "out")]  # fmt: skip
    assert judge_policy.main(argv) == 0
    results = json.loads((tmp_path / "out/results.json").read_text("utf-8"))
    assert results["simulated"] and results["songs"] == 2
    rate = results["win_rates"]["parent"]
    assert rate["low"] <= rate["mean"] <= rate["high"]
    assert (rate["mean"] > 0.9) == liked
    same = results["win_rates"]["first"]["mean"]  # the very same policy, other dice
    assert 0.3 < same < 0.7
