"""The tools that the forms are for read them: the proof that an export goes straight into them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import choix
import duckdb
import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "app"))
sys.path.insert(0, str(Path(__file__).parent))

from conftest import services as services  # the fixture of tests/app
from environments import python_of
from votes_of_all_kinds import Cast, fill

from feedback_app.services import Services
from rlhf_core.editing.actions import ACTION_NAMES

VOTES = [
    Cast(pair, annotator, "ab"[(pair + who) % 3 == 0], 1 + pair % 3, b_first=bool(who))
    for pair in range(12)
    for who, annotator in enumerate(("ann", "bob"))
] + [Cast(0, "eve", "tie"), Cast(1, "eve", "skip"), Cast(2, "eve", "both_bad")]  # fmt: skip


@pytest.fixture
def filled(services: Services) -> Services:
    fill(services, 12, VOTES)
    return services


def test_pandas_and_duckdb_read_the_parquet(filled: Services) -> None:
    path = filled.operations.export("parquet")["path"]
    frame = pd.read_parquet(path)
    assert len(frame) == len(VOTES)
    assert list(frame["choice"]) == [vote.choice for vote in VOTES]
    assert str(frame["created_at"].dtype).startswith("datetime64")
    assert [len(actions) for actions in frame["actions_a"]] == [36] * len(VOTES)
    query = f"SELECT choice, count(*) FROM '{path}' WHERE NOT simulated GROUP BY ALL ORDER BY ALL"
    counts = frame["choice"].value_counts().sort_index()
    assert duckdb.sql(query).fetchall() == list(counts.items())
    deep = f"SELECT sum(len(segments_a)), max(segments_a[1].end_beat) FROM '{path}'"
    wanted = sum(map(len, frame["segments_a"])), max(s[0]["end_beat"] for s in frame["segments_a"])
    assert duckdb.sql(deep).fetchone() == wanted


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "trl", "arena"])
def test_datasets_loads_the_folder(
    filled: Services, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its card, as from the hub: nothing but the folder is given."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    made = filled.operations.export(form)
    loaded = datasets.load_dataset(made["folder"], cache_dir=str(tmp_path))
    assert list(loaded) == ["votes"] and len(loaded["votes"]) == made["rows"] > 0
    if form == "parquet":
        first = loaded["votes"][0]
        assert first["choice"] == VOTES[0].choice and len(first["beat_times"]) == 37
        assert {ACTION_NAMES[a] for a in first["actions_a"]} <= set(ACTION_NAMES)


def battles(strengths: dict[str, float], ties: float, count: int) -> list[dict[str, Any]]:
    """Arena rows drawn from Bradley and Terry's model, a share of them tied."""
    rng, names, rows = np.random.default_rng(3), list(strengths), []
    for number in range(count):
        first, second = (names[i] for i in rng.permutation(len(names))[:2])
        wins = rng.random() < 1 / (1 + np.exp(strengths[second] - strengths[first]))
        winner = "tie" if rng.random() < ties else "model_a" if wins else "model_b"
        row = {"question_id": f"q{number}", "model_a": first, "model_b": second, "winner": winner}
        rows.append(row | {"judge": f"person{number % 7}", "tstamp": 1.7e9 + number})
    return rows


@pytest.mark.parametrize("ties", [0.0, 0.2])
def test_an_outside_bradley_terry_fit_agrees_with_the_leaderboard(
    services: Services, tmp_path: Path, ties: float
) -> None:
    """choix knows no ties: as half a win for each side they draw its strengths together, in
    proportion; without ties both fits are the same but for the leaderboard's weak prior."""
    strengths = {"v1": -0.8, "v2": 0.0, "v3": 0.3, "v4": 1.0}
    path = tmp_path / "battles.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in battles(strengths, ties, 1500)))
    assert services.operations.import_votes(str(path))["accepted"] == 1500
    arena = pd.read_json(services.operations.export("arena")["path"], lines=True)
    names, wins = sorted(strengths), []
    for row in arena.itertuples():
        a, b = names.index(row.model_a), names.index(row.model_b)
        outcomes = {"model_a": [(a, b)] * 2, "model_b": [(b, a)] * 2, "tie": [(a, b), (b, a)]}
        wins += outcomes[row.winner]
    outside = choix.ilsr_pairwise(len(names), wins)
    rows = services.operations.results()["leaderboard"]
    board = {row["version"]: row["strength"] for row in rows}
    ours = np.array([board[name] for name in names])
    if not ties:
        assert abs((ours - ours.mean()) - (outside - outside.mean())).max() < 0.02
    assert np.corrcoef(ours, outside)[0, 1] > 0.999
    assert list(np.argsort(ours)) == list(np.argsort(outside)) == [0, 1, 2, 3]


def ran(environment: str, script: str, *argv: str) -> dict[str, Any]:
    """The JSON object that a script ends with, in an environment of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(python_of(environment)), str(Path(__file__).parent / script), *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.long
def test_trl_accepts_chosen_and_rejected(filled: Services) -> None:
    made = filled.operations.export("trl")
    answer = ran("trl", "trl_trains.py", made["folder"])
    rows = [json.loads(line) for line in Path(made["path"]).read_text().splitlines()]
    assert answer["rows"] == len(rows) == 24 and answer["steps"] == 1
    assert not answer["conversational"] and {"chosen_ids", "rejected_ids"} <= {*answer["prepared"]}
    assert answer["prompt"] == rows[0]["prompt"]
    assert answer["chosen"].removesuffix("<end>") == rows[0]["chosen"]
    assert answer["loss"] == pytest.approx(np.log(2), abs=1e-4)  # before the first step: no margin


@pytest.mark.long
def test_imitation_takes_the_fragments_and_trains(filled: Services) -> None:
    answer = ran("imitation", "imitation_trains.py", filled.operations.export("imitation")["path"])
    assert answer["pairs"] == 26 and answer["obs"] == 3
    assert answer["moved"] > 1e-5 and answer["loss"][1] < answer["loss"][0]
