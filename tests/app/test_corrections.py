"""A person's corrections of the beats: applied, kept, and felt by features and pairs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from feedback_app.services import Services, open_services
from rlhf_core.audio.library import load_song
from tests.app.conftest import add_pairs

RATE, BPM = 22050, 100


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    opened = open_services(tmp_path / "workspace", auto_prepare=False, auto_generate=False)
    yield opened
    opened.close()


def drummed(path: Path) -> Path:
    """24 s of struck noise at 100 BPM, the first of every four louder."""
    samples = np.zeros(RATE * 24, dtype=np.float32)
    noise = np.random.default_rng(1).normal(0, 1, RATE // 10) * np.exp(-np.arange(RATE // 10) / 300)
    for beat, start in enumerate(np.arange(0, 23.5, 60 / BPM)):
        place = int(start * RATE)
        samples[place : place + len(noise)] += noise * (0.5 if beat % 4 == 0 else 0.25)
    soundfile.write(path, samples, RATE)
    return path


def finish(services: Services, run_id: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        services.jobs.poll()
        view = services.operations.run_view(run_id)
        if view["state"] not in ("queued", "running"):
            assert view["state"] == "finished", view["error"]
            return
        time.sleep(0.1)
    raise AssertionError("the analysis did not end")


def test_corrections_reach_grid_features_and_pairs(services: Services, tmp_path: Path) -> None:
    operations = services.operations
    finish(services, operations.add_songs([str(drummed(tmp_path / "drums.wav"))])["run_id"])
    (song,) = operations.list_songs()
    assert song["tempo_bpm"] == pytest.approx(BPM, rel=0.01)
    pairs = add_pairs(services, 2, song["song_id"])
    path = services.workspace.resolve(services.store.song(song["song_id"])["path"])
    before = load_song(path, services.workspace.cache).state

    finish(services, operations.correct_beats(song["song_id"], "double")["run_id"])
    doubled = operations.song_view(song["song_id"])
    assert doubled["tempo_bpm"] == pytest.approx(2 * BPM, rel=0.01)
    assert len(doubled["beat_times"]) == pytest.approx(2 * before.grid.n_beats, abs=3)
    after = load_song(path, services.workspace.cache).state
    assert after.features.shape[0] == after.grid.n_beats > before.grid.n_beats
    assert all(services.store.pair(pair)["retired"] for pair in pairs)

    taps = ",".join(f"{second:.3f}" for second in np.arange(6, 12, 60 / BPM))
    finish(services, operations.correct_beats(song["song_id"], f"tap:{taps}")["run_id"])
    tapped = operations.song_view(song["song_id"])
    assert tapped["tempo_bpm"] == pytest.approx(BPM, rel=0.01)
