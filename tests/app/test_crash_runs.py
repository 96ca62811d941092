"""SIGKILL of real runs at random moments: resumable, and no part of a file is taken for whole."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD

from feedback_app.doctor_files import checkpoint_problem
from feedback_app.services import Services, open_services
from feedback_app.store_runs import ENDED
from rlhf_core.audio.library import load_song
from rlhf_core.runs import read_lines

SMALL = {
    "auto_prepare": False, "auto_generate": False, "first_pairs": 8, "imitation_steps": 20,
    "bootstrap_time_limit_s": 6.0, "bootstrap_pairs": 200, "version_examples": 0, "test_share": 0,
    "votes_per_pair": 1, "nice": 0, "min_free_mb": 1,
}  # fmt: skip
PATIENCE_S = 540


def write_song(path: Path, seed: int, seconds: float) -> None:
    """Synthetic: clicks at 120 BPM over noise that changes every two seconds."""
    rng, rate = np.random.default_rng(seed), 22050
    when = np.arange(int(seconds * rate)) / rate
    level = rng.uniform(0.02, 0.2, int(seconds // 2) + 1)[(when // 2).astype(int)]
    click = 0.5 * np.exp(-(when % 0.5) * 60) * rng.standard_normal(len(when))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, (click + level * rng.standard_normal(len(when))).clip(-0.9, 0.9), rate)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    opened = open_services(tmp_path / "workspace", **SMALL)
    opened.operations.add_user("res", "researcher", PASSWORD)
    yield opened
    for run in opened.store.open_runs():
        if run["state"] == "running":
            os.killpg(run["pid"], signal.SIGKILL)
    opened.close()


def whole(services: Services) -> None:
    """Every file under its own name is whole; half of one has a name that nobody looks at."""
    root = services.workspace.root
    for path in root.rglob("*.npz"):
        if not path.name.startswith("."):
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
    for path in root.rglob("*.pt"):
        if not path.name.startswith("."):
            assert checkpoint_problem(path) is None, path
    for name in ("status.json", "results.json", "config.json"):
        for path in (root / "runs").glob(f"*/{name}"):
            json.loads(path.read_text())
    for path in (root / "runs").glob("*/*.jsonl"):
        read_lines(path)
    rows = services.store.database.rows("SELECT audio_path, duration_s FROM edits")
    for row in rows:  # what the database knows can be heard to its end
        samples, rate = soundfile.read(services.workspace.resolve(row["audio_path"]))
        assert len(samples) / rate == pytest.approx(row["duration_s"], abs=0.01)


def kill_and_resume(services: Services, kills: int, rng: random.Random, longest_s: float) -> int:
    """Go on until nothing is open; kill what runs at random moments, resume what failed."""
    done, until = 0, time.monotonic() + PATIENCE_S
    resumed = {
        run["settings"].get("resumed_from")
        for row in services.operations.list_runs(100)
        for run in [services.store.run(row["run_id"])]
    }
    kill_at = time.monotonic() + rng.random() * longest_s
    while time.monotonic() < until:
        services.jobs.poll()
        for run in services.operations.list_runs(100):
            if run["state"] == "failed" and run["run_id"] not in resumed:
                told = ("ended without a result", "was killed by the system")
                assert any(words in run["error"] for words in told), run["error"]
                whole(services)
                resumed.add(run["run_id"])
                services.operations.resume_run(run["run_id"])
        open_runs = services.store.open_runs()
        if not open_runs:
            return done
        running = [run for run in open_runs if run["state"] == "running"]
        if done < kills and running and time.monotonic() > kill_at:
            os.killpg(rng.choice(running)["pid"], signal.SIGKILL)
            done += 1
            kill_at = time.monotonic() + rng.random() * longest_s
        time.sleep(0.05)
    raise AssertionError("the runs did not end")


def states(services: Services) -> dict[str, Any]:
    return {song["song_id"]: song["status"] for song in services.operations.list_songs()}


def test_an_analysis_that_is_killed_goes_on_to_the_same_result(
    services: Services, tmp_path: Path
) -> None:
    songs = tmp_path / "songs"
    for seed in range(3):
        write_song(songs / f"{seed}.wav", seed, 12.0)
    run_id = services.operations.add_songs([str(songs)])["run_id"]
    lines = services.workspace.runs / run_id / "songs.jsonl"
    until = time.monotonic() + 120
    while not lines.exists() and time.monotonic() < until:  # in the middle: one song is done
        services.jobs.poll()
        time.sleep(0.01)
    (run,) = services.store.open_runs()
    os.killpg(run["pid"], signal.SIGKILL)
    kill_and_resume(services, 0, random.Random(0), 1.0)
    assert set(states(services).values()) == {"ready"}
    whole(services)
    for path in sorted(services.workspace.songs.rglob("*.wav")):
        killed = load_song(path, services.workspace.cache).state
        fresh = load_song(path, tmp_path / "fresh").state
        np.testing.assert_array_equal(killed.features, fresh.features)
        np.testing.assert_array_equal(killed.grid.times, fresh.grid.times)


@pytest.mark.long
def test_everything_from_songs_to_a_trained_policy_under_kills(
    services: Services, tmp_path: Path
) -> None:
    songs, rng = tmp_path / "songs", random.Random(7)
    for seed in range(3):
        write_song(songs / f"{seed}.wav", seed, 24.0)
    services.operations.add_songs([str(songs)])
    killed = kill_and_resume(services, 3, rng, 3.0)
    services.operations.prepare()
    killed += kill_and_resume(services, 4, rng, 5.0)
    assert services.operations.pairs_overview()["total"] >= SMALL["first_pairs"]
    services.operations.train_policy(total_steps=4000)
    killed += kill_and_resume(services, 5, rng, 6.0)
    assert killed >= 8, killed  # of 12: the last ones may come after everything is done
    whole(services)
    versions = [row["version"] for row in services.operations.list_policies()]
    assert versions == ["policy_v1", "policy_v2"]  # none twice, whatever was started again
    finished = [run for run in services.operations.list_runs(100) if run["state"] == "finished"]
    assert {"analyse", "imitation", "generate", "train-policy"} <= {run["kind"] for run in finished}
    assert all(run["state"] in ENDED for run in services.operations.list_runs(100))
    assert services.operations.doctor()["findings"] == []
