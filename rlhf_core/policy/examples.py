"""Rendered examples of an evaluation, to listen to: the ear is the last word on a verdict.

    FOLDER/1_<title>/original.flac, policy.flac, parent.flac, heuristic_tight.flac …

All versions of a passage play at one loudness. Which passages: spread evenly over those that were
evaluated, so the songs differ where they can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_core.audio.io import read_audio
from rlhf_core.audio.render import match_loudness
from rlhf_core.editing.edl import build_edl
from rlhf_core.policy.comparison import Edits
from rlhf_core.policy.rewards import Item

WORKERS = 2  # passages rendered side by side: codecs run outside the interpreter's lock


def write_examples(
    folder: Path,
    items: Sequence[Item],
    paths: Mapping[str, Path],
    contenders: Mapping[str, Edits],
    count: int,
) -> list[dict[str, Any]]:
    """Render the first edit that each contender made of `count` of the passages.

    paths: audio files by song id. Returns a row per passage: where in the song, and the files.
    """
    chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(
            pool.map(
                lambda numbered: _example(folder, items, paths, contenders, *numbered),
                enumerate(chosen.tolist(), start=1),
            )
        )


def _example(
    folder: Path,
    items: Sequence[Item],
    paths: Mapping[str, Path],
    contenders: Mapping[str, Edits],
    number: int,
    index: int,
) -> dict[str, Any]:
    """One passage in all versions; its row."""
    state, passage = items[index]
    edls = {"original": build_edl(np.zeros(passage.n_beats, np.int64), state.grid, passage)}
    for name, edits in contenders.items():
        per_passage = len(edits.actions) // len(items)
        actions = edits.actions[index * per_passage].numpy().astype(np.int64)
        edls[name] = build_edl(actions, state.grid, passage)
    path = paths[state.song_id]
    place = folder / f"{number}_{_plain(path.stem)}"
    place.mkdir(parents=True, exist_ok=True)
    written = match_loudness(read_audio(path), edls).write(place)
    return {
        "song_id": state.song_id,
        "song_path": str(path),
        "passage": [passage.start_beat, passage.end_beat],
        "files": {name: str(file) for name, file in written.items()},
    }


def _plain(name: str) -> str:
    """A file's name without what shells and old file systems stumble over."""
    return re.sub(r"[^\w.-]+", "_", name)[:60]
