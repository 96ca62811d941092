"""Workspaces with pairs in them, for tests of the app. Audio is synthetic silence-free noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from feedback_app.database import utc_now
from feedback_app.services import Services, open_services
from rlhf_core.editing.edl import build_edl
from rlhf_core.types import BeatGrid, Passage

PASSWORD = "a good password"
BEATS = 32
# What tests that are about something else want: every pair once, votes without listening first.
PLAIN = {
    "votes_per_pair": 1, "auto_generate": False, "required_region_share": 0.0, "repeat_rate": 0.0,
    "gold_rate": 0.0,
}  # fmt: skip


def fresh(folder: Path) -> Services:
    """A workspace that gives every pair once and makes none by itself."""
    return open_services(folder, **PLAIN)


def grid() -> BeatGrid:
    return BeatGrid(np.arange(BEATS + 1) * 0.5, np.arange(BEATS) % 4, 120.0)


def add_song(services: Services, song_id: str = "0123456789abcdef", **values: Any) -> str:
    row = {
        "song_id": song_id,
        "path": f"songs/{song_id}/song.wav",
        "title": 'Lied "Größe" <script>.wav',
        "duration_s": 16.0,
        "sample_rate": 8000,
        "channels": 1,
        "n_beats": BEATS,
        "tempo_bpm": 120.0,
        "status": "ready",
        "synthetic": True,
        "added_at": utc_now(),
    }
    services.store.add_song(row | values)
    return song_id


def write_audio(path: Path, seconds: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.05, int(seconds * 8000))
    soundfile.write(path, noise, 8000)


def add_pairs(services: Services, count: int, song_id: str = "0123456789abcdef") -> list[str]:
    """Insert pairs as a finished generating run would, with audio."""
    ids = []
    for index in range(count):
        pair_id = f"pair{index:04d}"
        folder = services.workspace.runs / "made" / "audio" / pair_id
        edits = []
        for side, cut in (("a", index % 8), ("b", 16 + index % 8)):
            actions = np.zeros(BEATS, dtype=np.int64)
            actions[cut] = 1
            edl = build_edl(actions, grid(), Passage(0, BEATS))
            write_audio(folder / f"{side}.flac", edl.duration_s, index)
            edits.append(
                {
                    "edit_id": f"{pair_id}-{side}",
                    "song_id": song_id,
                    "start_beat": 0,
                    "end_beat": BEATS,
                    "policy": "policy_v1",
                    "preset": None,
                    "temperature": 1.0,
                    "seed": index,
                    "actions": actions.tolist(),
                    "edl": edl.to_json(),
                    "audio_path": services.workspace.relative(folder / f"{side}.flac"),
                    "duration_s": edl.duration_s,
                    "peaks": [0.5] * 400,
                }
            )
        original = build_edl(np.zeros(BEATS, dtype=np.int64), grid(), Passage(0, BEATS))
        write_audio(folder / "original.flac", original.duration_s, 1000 + index)
        pair = {
            "pair_id": pair_id,
            "song_id": song_id,
            "edit_a": f"{pair_id}-a",
            "edit_b": f"{pair_id}-b",
            "original_path": services.workspace.relative(folder / "original.flac"),
            "original_edl": original.to_json(),
            "pool": "random",
            "regions_a": [[1.0, 2.0]],
            "regions_b": [[8.0, 9.5]],
        }
        services.store.add_pair(pair, edits)
        ids.append(pair_id)
    return ids


def client_of(services: Services, name: str | None = None) -> TestClient:
    """A browser; signed in where a name is given."""
    from feedback_app.app import build_app

    client = TestClient(build_app(services, pages=False), base_url="http://127.0.0.1")
    if name is not None:
        answer = client.post("/login", data={"name": name, "password": PASSWORD})
        assert answer.status_code in (200, 404), answer.text  # the page itself is not mounted here
        assert "session" in client.cookies
    return client


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A fresh workspace with three accounts: ann, bob (annotators) and res (researcher)."""
    opened = open_services(tmp_path / "workspace", **PLAIN)
    for name, role in (("ann", "annotator"), ("bob", "annotator"), ("res", "researcher")):
        opened.operations.add_user(name, role, PASSWORD)
    yield opened
    opened.close()
