"""Ranking waiting pairs: against Monte Carlo, with doubles, in any order, and as a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rlhf_core.audio.library import load_library
from rlhf_core.rank_pairs import main, ranked
from rlhf_core.reward.learned_reward_integration import LearnedRewardIntegration
from rlhf_core.reward.selection import Asking


@pytest.fixture(scope="module")
def reward() -> LearnedRewardIntegration:
    """The model that comes with the package."""
    made = LearnedRewardIntegration()
    made.load_model()
    return made


def candidates(reward: LearnedRewardIntegration, count: int) -> np.ndarray:
    """(count, D) made-up differences of embeddings."""
    size = reward.checkpoint.mean.shape[0]
    return np.random.default_rng(3).normal(0, 1.0, (count, size))


def test_information_is_what_sampled_weights_say(reward: LearnedRewardIntegration) -> None:
    """I(vote; w) = H(E p) - E H(p), over draws of the weights themselves."""
    apart = candidates(reward, 4)
    rows = [{"pair_id": str(number)} for number in range(4)]
    found = {row["pair_id"]: row["information"] for row in ranked(rows, apart, reward)}
    mean, covariance = reward.checkpoint.belief()
    assert not mean.any()  # nobody has voted
    draws = np.random.default_rng(0).multivariate_normal(mean, covariance, 60000)
    p = 1 / (1 + np.exp(-draws @ apart.T))

    def coin(p: np.ndarray) -> np.ndarray:
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return -(p * np.log(p) + (1 - p) * np.log(1 - p))

    wanted = coin(p.mean(0)) - coin(p).mean(0)
    assert [found[str(number)] for number in range(4)] == pytest.approx(wanted, abs=0.01)


def test_best_first_and_a_double_is_not_asked_next(reward: LearnedRewardIntegration) -> None:
    apart = candidates(reward, 12)
    best = int(ranked([{"pair_id": n} for n in range(12)], apart, reward)[0]["pair_id"])
    double = (best + 1) % 12
    apart[double] = apart[best]  # the same question again
    rows = [{"pair_id": str(number)} for number in range(12)]
    found = ranked(rows, apart, reward)
    assert [row["place"] for row in found] == list(range(12))
    assert {row["pair_id"] for row in found} == {str(number) for number in range(12)}
    usual = reward.checkpoint.reference.pair_covariance()
    worth = Asking(apart, *reward.checkpoint.belief(), usual).worth()
    assert int(found[0]["pair_id"]) in np.flatnonzero(np.isclose(worth, worth.max()))
    places = {row["pair_id"]: row["place"] for row in found}
    assert abs(places[str(best)] - places[str(double)]) > 1
    shuffled = np.random.default_rng(1).permutation(12)
    again = ranked([rows[int(i)] for i in shuffled], apart[shuffled], reward)
    doubles = {str(best), str(double)}
    assert [r["pair_id"] for r in again if r["pair_id"] not in doubles] == [
        r["pair_id"] for r in found if r["pair_id"] not in doubles
    ]


def write_song(path: Path) -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(24 * 22050) / 22050
    clicks = np.exp(-40 * (seconds % 0.5)) * rng.normal(0, 0.4, len(seconds))
    path.parent.mkdir(parents=True)
    soundfile.write(path, clicks + 0.1 * np.sin(2 * np.pi * 220 * seconds), 22050)


def test_the_command_ranks_what_waits_and_leaves_out_unknown_songs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: LearnedRewardIntegration
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_song(data / "train" / "clicks.wav")
    song = load_library(data)[0].state
    rows: list[dict[str, Any]] = []
    for number in range(40):  # more than go through the network at once
        a, b = np.zeros(24, dtype=int), np.zeros(24, dtype=int)
        a[number % 20], b[(number + 3) % 20 : (number + 3) % 20 + 2 + number % 2] = 1, 1
        rows.append(
            {
                "pair_id": f"pair{number}",
                "song_id": song.song_id if number else "feedfeedfeedfeed",
                "passage": {"start_beat": 0, "end_beat": 24},
                "edit_a": {"actions": a.tolist()},
                "edit_b": {"actions": b.tolist()},
            }
        )
    waiting = tmp_path / "waiting.jsonl"
    waiting.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = reward.load_model()
    argv = ["--data_dir", str(data), "--output_dir", str(out), "--reward_model", str(model)]
    assert main([*argv, "--pairs", str(waiting)]) == 0
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["pair_id"] for row in scores} == {f"pair{number}" for number in range(1, 40)}
    assert all(0 <= row["information"] <= np.log(2) for row in scores)
    assert json.loads((out / "results.json").read_text()) == {"pairs": 39, "left_out": 1}
    assert json.loads((out / "status.json").read_text())["state"] == "finished"
    assert main([*argv, "--pairs", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    assert main([*argv, "--pairs", str(waiting), "--threads", "0"]) == 2
    assert "--threads is 0, must be at least 1" in capsys.readouterr().err


def test_what_is_embedded_is_the_pair_itself(
    reward: LearnedRewardIntegration, make_state: Callable[..., Any]
) -> None:
    """Swapping the edits turns the difference round; alike edits have none."""
    from types import SimpleNamespace

    from rlhf_core.rank_pairs import differences

    state = make_state(0, 24, 4)
    cut = [1 if beat in (5, 6) else 0 for beat in range(24)]

    def row(a: list[int], b: list[int], end: int) -> dict[str, Any]:
        return {
            "song_id": "s", "passage": {"start_beat": 0, "end_beat": end},
            "edit_a": {"actions": a[:end]}, "edit_b": {"actions": b[:end]},
        }  # fmt: skip

    plain = [0] * 24
    rows = [row(cut, plain, 24), row(plain, cut, 24), row(plain, plain, 24), row(cut, plain, 16)]
    songs = {"s": SimpleNamespace(state=state)}
    (apart,) = differences(rows, songs, reward)  # type: ignore[arg-type]
    assert apart[0] == pytest.approx(-apart[1], abs=1e-5) and np.abs(apart[0]).max() > 1e-3
    assert np.abs(apart[2]).max() == 0
    (alone,) = differences(rows[3:], songs, reward)  # type: ignore[arg-type]
    assert apart[3] == pytest.approx(alone[0], abs=1e-4), "padding changes nothing"
