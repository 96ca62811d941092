"""A workspace with every kind of vote that the app can store, made by code: nobody's opinions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from feedback_app.services import Services
from feedback_app.store_accounts import ensure_annotator
from rlhf_core.editing.edl import build_edl
from rlhf_core.types import BeatGrid, Passage

BEATS = 40
STARTED = datetime(2026, 3, 1, 12, 0, 0, 123456)
VERSIONS = ("policy_v1", "policy_v2", "policy_v3")


@dataclass(frozen=True)
class Cast:
    """One vote to store: by whom, on which pair, what, and what else is known of it."""

    pair: int
    annotator: str
    choice: str
    strength: int | None = None
    comment: str | None = ""
    tags: tuple[str, ...] | None = ()
    listened: dict[str, Any] | None = None
    b_first: bool = False
    simulated: bool = False
    repeat: bool = False


PAIRS = 7
VOTES = [
    Cast(0, "ann", "a", 2, "x, \"y\"\r\nz\u2028", ("good flow",), {"first_side": "right"}, True),
    Cast(0, "bob", "a", 1), Cast(1, "ann", "b", 3, "=1+1", ("=tag",)),
    Cast(1, "bob", "a", comment="'=1+1"), Cast(2, "ann", "tie"),
    Cast(3, "ann", "both_bad"), Cast(3, "bob", "both_bad"), Cast(4, "ann", "a", 3, "alone\rhere"),
    Cast(5, "ann", "skip"), Cast(5, "bob", "b", 1), Cast(0, "ann", "b", 1, repeat=True),
    Cast(6, "judge", "a", simulated=True), Cast(0, "judge", "b", simulated=True),
]  # fmt: skip


def exported(services: Services, form: str, folder: Path, **wanted: Any) -> Path:
    """An export's file, simulated votes and all."""
    return Path(services.operations.export(form, str(folder), True, **wanted)["path"])


def grid(seed: int) -> BeatGrid:
    steps = 0.4 + 0.2 * np.random.default_rng(seed).random(BEATS + 1)
    return BeatGrid(np.cumsum(steps), np.arange(BEATS) % 4, 120.0)


def fill(services: Services, pairs: int, votes: list[Cast], seed: int = 0) -> None:
    """Two songs, pairs between versions with actions of all kinds, and the votes, in order."""
    rng = np.random.default_rng(seed)
    for song in range(2):
        _song(services, song)
    for index in range(pairs):
        _pair(services, index, rng)
    for number, vote in enumerate(votes):
        _vote(services, number, vote, rng)


def song_id(number: int) -> str:
    return f"{number:016x}"


def _song(services: Services, number: int) -> None:
    times = grid(number)
    services.store.add_song(
        {
            "song_id": song_id(number), "path": f"songs/{number}.wav",
            "title": f'Lied "{number}", <i>.wav', "duration_s": float(times.times[-1]),
            "n_beats": BEATS, "split": ("train", "test")[number], "status": "ready",
            "beat_times": json.dumps(times.times.tolist()),
            "bar_phase": json.dumps(times.bar_phase.tolist()),
            "synthetic": True, "added_at": STARTED,
        }
    )  # fmt: skip


def _pair(services: Services, index: int, rng: np.random.Generator) -> None:
    passage, beats = Passage(4, BEATS), BEATS - 4
    edits = []
    for place, side in enumerate("ab"):
        actions = np.where(rng.random(beats) < 0.6, 0, rng.integers(0, 10, beats))
        edl = build_edl(actions, grid(index % 2), passage)
        edits.append(
            {
                "edit_id": f"p{index}-{side}", "song_id": song_id(index % 2), "start_beat": 4,
                "end_beat": BEATS, "policy": VERSIONS[(index * (1 + place)) % 3],
                "preset": "tight" if index % 4 == 1 and side == "b" else None,
                "temperature": 0.1 * index or None, "seed": 2**40 + index,
                "actions": actions.tolist(), "edl": edl.to_json(),
                "audio_path": f"runs/x/p{index}/{side}.flac", "duration_s": edl.duration_s,
            }
        )  # fmt: skip
    original = build_edl(np.zeros(beats, dtype=np.int64), grid(index % 2), passage)
    pair = {
        "pair_id": f"p{index}", "song_id": song_id(index % 2), "edit_a": f"p{index}-a",
        "edit_b": f"p{index}-b", "original_path": f"runs/x/p{index}/original.flac",
        "original_edl": original.to_json(), "regions_a": [[0.0, 1.0]], "regions_b": [[0.0, 1.0]],
        "pool": ("random", "chosen", "cross", "broad", "gold")[index % 5],
    }  # fmt: skip
    services.store.add_pair(pair, edits)


def _vote(services: Services, number: int, vote: Cast, rng: np.random.Generator) -> None:
    vote_id = str(UUID(bytes=rng.bytes(16), version=4))
    assignment = f"assignment{number}"
    now = STARTED + timedelta(hours=number, microseconds=number)
    given = {
        "assignment_id": assignment, "pair_id": f"p{vote.pair}", "annotator": vote.annotator,
        "b_first": vote.b_first, "first_side": "left", "media_left": f"l{number}",
        "media_right": f"r{number}", "media_original": f"o{number}", "state": "done",
        "leased_until": now, "created_at": now,
    }  # fmt: skip
    row = {
        "vote_id": vote_id, "assignment_id": assignment, "pair_id": f"p{vote.pair}",
        "annotator": vote.annotator, "kind": "vote", "choice": vote.choice,
        "strength": vote.strength, "comment": vote.comment,
        "tags": None if vote.tags is None else list(vote.tags), "listened": vote.listened,
        "response_ms": number or None, "client": {"version": "1"} if number % 2 else None,
        "simulated": vote.simulated, "source": "simulate" if vote.simulated else "app",
        "created_at": now, "repeat": vote.repeat, "flags": ["too_fast"] if number % 3 else None,
    }  # fmt: skip

    def write(cursor: Any) -> None:
        ensure_annotator(cursor, vote.annotator)
        services.store.add_assignment(cursor, given)
        services.store.add_vote(cursor, row)

    services.store.database.write(write)
