"""What the page reads from run folders: curves, results, rendered examples. Nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from feedback_app.database import Row
from rlhf_core.files import read_json
from rlhf_core.runs import read_lines

MAX_METRICS = 500
SIDES = {"a": "edit_a", "b": "edit_b"}


def metrics_of(folder: Path) -> list[Row]:
    """At most 500 rows of a run's metrics, evenly spaced, the last one always there."""
    rows = read_lines(folder / "metrics.jsonl")
    if len(rows) <= MAX_METRICS:
        return rows
    step = -(-len(rows) // MAX_METRICS)
    return rows[(len(rows) - 1) % step :: step]


def results_of(folder: Path) -> dict[str, Any] | None:
    """results.json of a run; None while there is none, or where it is damaged."""
    path = folder / "results.json"
    try:
        return dict(read_json(path)) if path.exists() else None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError):
        return None  # damaged: the run's state says so, for it cannot have been taken in


def example_rows(folder: Path) -> list[Row]:
    """Rendered examples of an `examples` run (pairs.jsonl of policy.generate), in its order.

    Each: {number, song_id, passage, policies {a, b}, edl {a, b}, duration_s {a, b, original},
    audio {a, b, original}} with paths inside the run's folder.
    """
    found = []
    for number, row in enumerate(read_lines(folder / "pairs.jsonl")):
        sounds = {side: row[name] for side, name in SIDES.items()} | {"original": row["original"]}
        # by their place in the folder: a workspace may have moved since the paths were written
        audio = folder / "audio" / Path(row["pair_id"]).name
        paths = {side: audio / f"{side}.flac" for side in sounds}
        if not all(path.is_file() for path in paths.values()):
            continue  # deleted with a version
        found.append(
            {
                "number": number,
                "song_id": row["song_id"],
                "passage": row["passage"],
                "policies": {side: row[name]["policy"] for side, name in SIDES.items()},
                "edl": {side: row[name]["edl"] for side, name in SIDES.items()},
                "duration_s": {side: sound["duration_s"] for side, sound in sounds.items()},
                "audio": {side: str(path) for side, path in paths.items()},
            }
        )
    return found


def flat(version: Row) -> dict[str, Any]:
    """A version's plain settings and figures by name, for a comparison line by line.

    >>> flat({"version": "v1", "seed": 3, "metrics": {"ece": 0.1, "gate": {"verdict": "pass"}}})
    {'version': 'v1', 'seed': 3, 'ece': 0.1, 'gate': 'pass'}
    """
    nested = (version.get("settings") or {}) | (version.get("metrics") or {})
    plain = {
        name: value
        for name, value in {**version, **nested}.items()
        if isinstance(value, (int, float, str)) and name not in ("path", "kind")
    }
    gate = nested.get("gate")
    return plain | ({"gate": gate["verdict"]} if isinstance(gate, dict) else {})
