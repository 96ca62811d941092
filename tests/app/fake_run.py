"""A stand-in for the core's commands: writes a run folder as they do, without any learning.

Usage: fake_run.py KIND OUTPUT_DIR SETTINGS_JSON. Used by the tests of jobs only.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from uuid import uuid4

import numpy as np
import soundfile

from rlhf_core.editing.edl import build_edl
from rlhf_core.errors import DataError
from rlhf_core.runs import RunFolder, running
from rlhf_core.types import BeatGrid, Passage

BEATS = 32
GRID = BeatGrid(np.arange(BEATS + 1) * 0.5, np.arange(BEATS) % 4, 120.0)


def song(path: str) -> dict:
    row = {"song_id": None, "path": path, "title": Path(path).name, "error": None}
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        return row | {"error": f"{path}: cannot be read ({error})"}
    return row | {
        "duration_s": info.duration, "sample_rate": info.samplerate, "channels": info.channels,
        "n_beats": BEATS, "tempo_bpm": 120.0, "beats_per_bar": 4, "beat_source": "tracked",
        "beat_confidence": 0.9, "stem_source": "proxies", "beat_times": GRID.times.tolist(),
        "bar_phase": GRID.bar_phase.tolist(), "waveform": [0.5] * 400,
    }  # fmt: skip


def pair(folder: Path, song_id: str, policy: str, number: int) -> dict:
    pair_id, edits = uuid4().hex, {}
    for side, cut in (("a", number % 8), ("b", 16 + number % 8)):
        actions = np.zeros(BEATS, dtype=np.int64)
        actions[cut] = 1
        edl = build_edl(actions, GRID, Passage(0, BEATS))
        path = folder / "audio" / pair_id / f"{side}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(800), 8000)
        edits[f"edit_{side}"] = {
            "edit_id": f"{pair_id}-{side}", "policy": policy, "preset": None, "temperature": 1.0,
            "seed": number, "actions": actions.tolist(), "audio_path": str(path),
            "duration_s": edl.duration_s, "edl": edl.to_json(), "peaks": [0.5] * 400,
        }  # fmt: skip
    whole = build_edl(np.zeros(BEATS, dtype=np.int64), GRID, Passage(0, BEATS))
    soundfile.write(folder / "audio" / pair_id / "original.flac", np.zeros(800), 8000)
    original = f"audio/{pair_id}/original.flac"
    return {
        "pair_id": pair_id, "song_id": song_id, "song_path": "x", "pool": "random", "seed": number,
        "passage": whole.to_json()["passage"], **edits,
        "original": {"audio_path": original, "duration_s": 16.0, "edl": whole.to_json()},
        "regions_a": [[0.0, 1.0]], "regions_b": [[8.0, 9.0]], "gains_db": [0.0, 0.0, 0.0],
        "loudness_lufs": -20.0,
    }  # fmt: skip


def examples(run: RunFolder, settings: dict) -> dict:
    for number in range(settings["count"]):
        row = pair(run.path, settings["song"], settings["policy"], number)
        row["edit_b"]["policy"] = settings["versus"]
        run.append("pairs.jsonl", row)
    return {"pairs": settings["count"]}


def simulate(run: RunFolder, settings: dict) -> dict:
    for number, pair_id in enumerate(settings["pairs"]):
        judge = f"judge:{settings['judge']}"
        vote = {"vote_id": str(uuid4()), "pair_id": pair_id, "strength": 2, "annotator": judge}
        run.append("votes.jsonl", vote | {"choice": "ab"[number % 2]})
    return {"votes": len(settings["pairs"])}


def judge(run: RunFolder, settings: dict) -> dict:
    rate = {"mean": 0.7, "low": 0.6, "high": 0.8, "better": 1.0}
    return {"judge": settings["judge"], "songs": 2, "win_rates": {"parent": rate, "first": rate}}


OTHERS = {"examples": examples, "simulate": simulate, "judge": judge}


def trained(checkpoint: Path, best: bool) -> dict:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_bytes(b"not a real checkpoint")
    results = {"checkpoint": str(checkpoint), "metrics": {"accuracy": 0.7}, "steps": 1}
    if best:
        results["best_checkpoint"] = str(checkpoint.with_name("policy_best.pt"))
        Path(results["best_checkpoint"]).write_bytes(b"what held-out passages chose")
    return results


def work(kind: str, run: RunFolder, settings: dict) -> dict:
    checkpoint = run.path / "models" / "policy_final.pt"
    if settings.get("fail"):
        raise DataError("the snapshot is empty; vote first")
    if settings.get("crash"):
        raise SystemExit(7)
    for step in range(settings.get("slow", 1)):
        run.metric(step=step, total_reward=0.1 * step)
        run.status("running", step / settings.get("slow", 1), f"step {step}")
        time.sleep(0.05)
    if kind == "analyse":
        for path in settings["paths"]:
            run.append("songs.jsonl", song(path))
        return {}
    if kind == "generate":
        for number in range(settings["count"]):
            run.append("pairs.jsonl", pair(run.path, *settings["of"], number))
        return {"pairs": settings["count"]}
    if kind == "rank":
        for place, pair_id in enumerate(settings["waiting"]):
            row = {"pair_id": pair_id, "information": 0.5 / (1 + place), "place": place}
            run.append("scores.jsonl", row)
        return {"pairs": len(settings["waiting"])}
    if kind in OTHERS:
        return OTHERS[kind](run, settings)
    if kind == "evaluate":
        decision = settings.get("decision", "accept")
        return {
            "songs": 2, "contenders": {"policy": {"keep_ratio": 0.8}}, "kl_to_parent": 0.1,
            "win_rates": {"parent": {"mean": 0.6, "low": 0.55, "high": 0.65}},
            "verdict": {"decision": decision, "reasons": ["it is better"]},
        }  # fmt: skip
    return trained(checkpoint, best=kind == "train-policy")


if __name__ == "__main__":
    folder = RunFolder(Path(sys.argv[2]), sys.argv[1])
    with running(folder):
        folder.finish(work(sys.argv[1], folder, json.loads(sys.argv[3])))
