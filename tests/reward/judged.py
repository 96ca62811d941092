"""Snapshots of votes that simulated judges gave on synthetic edits of made-up songs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlhf_core.judges import JUDGES, cast_vote
from rlhf_core.reward.dataset import SNAPSHOT_COLUMNS, EditKey, collate
from rlhf_core.reward.synthetic import draw_edits
from rlhf_core.types import AudioState, Passage

WINDOW = Passage(16, 64)


def judged_rows(
    songs: list[AudioState],
    judge: str,
    count: int,
    noise: float,
    seed: int,
    window: Passage = WINDOW,
) -> list[dict[str, Any]]:
    """Rows of a snapshot: votes of a simulated judge on pairs of synthetic edits."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        song = songs[len(rows) // 4 % len(songs)]
        edits = draw_edits(song, window, rng)
        keys = [EditKey(song.song_id, window, tuple(int(x) for x in edit)) for edit in edits]
        scores = JUDGES[judge].score(*collate(keys, {song.song_id: song})).tolist()
        for a, b in ((0, 1), (2, 3), (4, 5), (6, 7)):
            choice, strength = cast_vote(scores[a], scores[b], rng, noise)
            rows.append(
                {
                    "vote_id": f"{seed}-{len(rows)}",
                    "pair_id": f"{seed}-{len(rows)}",
                    "song_id": song.song_id,
                    "annotator": f"simulated_{judge}",
                    "simulated": True,
                    "choice": choice,
                    "strength": strength,
                    "pool": "random",
                    "start_beat": window.start_beat,
                    "end_beat": window.end_beat,
                    "actions_a": np.asarray(edits[a], dtype=np.int8),
                    "actions_b": np.asarray(edits[b], dtype=np.int8),
                    "policy_a": "policy_v1",
                    "policy_b": "policy_v1",
                    "b_first": bool(rng.random() < 0.5),
                    "first_played": None,
                    "created_at": pd.Timestamp("2026-01-01"),
                    "split": "train",
                }
            )
    return rows[:count]


def snapshot(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows, columns=list(SNAPSHOT_COLUMNS))
    frame["strength"] = frame["strength"].astype("Int8")
    frame.to_parquet(path)
    return path
