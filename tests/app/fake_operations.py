"""An Operations in memory, for tests of the researcher's page: answers have the real shapes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from feedback_app.errors import InvalidError, NotFoundError
from rlhf_core.editing.actions import ACTION_NAMES
from rlhf_core.editing.edl import build_edl
from rlhf_core.types import BeatGrid, Passage
from tests.app.fake_data import FakeData
from tests.app.fake_versions import FakeVersions

NASTY = "<script>alert(1)</script>\" ${alert(2)} {{x}} Øyá's"


def grid(n: int = 96) -> BeatGrid:
    return BeatGrid(
        times=np.arange(n + 1) * 0.5 + 0.25,
        bar_phase=np.arange(n) % 4,
        beats_per_bar=4,
        tempo_bpm=120.0,
        confidence=0.9,
        source="test",
    )


def edit(name: str, changes: dict[int, int], policy: str) -> dict[str, Any]:
    actions = [changes.get(i, 0) for i in range(64)]
    edl = build_edl(actions, grid(), Passage(0, 64)).to_json()
    return {
        "edit_id": name,
        "policy": policy,
        "preset": None,
        "temperature": 1.0,
        "seed": 3,
        "actions": actions,
        "duration_s": edl["duration_s"],
        "edl": edl,
    }


def policy_row(i: int) -> dict[str, Any]:
    grown = 1 - math.exp(-i / 12)
    return {"step": i * 1000, "total_reward": grown, "learned_reward": 1.1 * grown,
            "dense_reward": 0.4 + 0.1 * grown, "policy_loss": -0.02 * grown,
            "value_loss": 0.5 - 0.3 * grown, "approx_kl": 0.01 + 0.002 * math.sin(i),
            "kl_reference": 0.8 * grown, "entropy": 1.6 - 0.5 * grown,
            "explained_variance": 0.9 * grown, "clip_fraction": 0.1 * grown}  # fmt: skip


def policy_rows() -> list[dict[str, Any]]:
    return [policy_row(i) for i in range(40)]


class FakeOperations(FakeVersions, FakeData):
    """Records every call that changes something in `calls`."""

    def __init__(self, exports: Path) -> None:
        super().__init__()
        self.exports = exports
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.people: dict[str, dict[str, Any]] = {
            "rita": self._person("rita", "researcher"),
            "anna": self._person("anna", "annotator", votes=41),
            "judge <tight>": self._person("judge <tight>", "annotator", simulated=300, signs=False),
        }
        self.songs = [self._song(0, NASTY), self._song(1, "Blue Canal", synthetic=True)]
        self.songs.append(
            self._song(2, "broken.wav")
            | {"status": "failed", "error": f"{NASTY}.wav: not audio. Convert it to WAV or FLAC."}
        )
        self.policies = [
            self._policy("policy_v1", None, "retired", "2026-11-20T10:00:00Z", {"keep_ratio": 0.9}),
            self._policy("policy_v2", "policy_v1", "active", "2026-11-21T10:00:00Z", self._gains()),
            self._policy(
                "policy_v3", "policy_v2", "proposed", "2026-11-22T10:00:00Z", self._warned()
            ),
        ]
        self.runs: list[dict[str, Any]] = [
            self._run("r2", "train-policy"),
            self._run("r1", "train-reward"),
        ]

    @staticmethod
    def _person(
        name: str, role: str, votes: int = 0, simulated: int = 0, signs: bool = True
    ) -> dict[str, Any]:
        return {
            "name": name,
            "role": role,
            "disabled": False,
            "can_sign_in": signs,
            "votes": votes,
            "simulated": simulated,
            "last_vote": "2026-11-22T09:30:00Z" if votes else None,
        }

    @staticmethod
    def _song(i: int, title: str, synthetic: bool = False) -> dict[str, Any]:
        return {
            "song_id": f"{i:016x}",
            "title": title,
            "duration_s": 48.5,
            "tempo_bpm": 120.0,
            "n_beats": 96,
            "beat_source": "tracker",
            "beat_confidence": 0.83,
            "stem_source": "proxies",
            "split": "train",
            "status": "ready",
            "error": None,
            "synthetic": synthetic,
        }

    @staticmethod
    def _policy(
        version: str, parent: str | None, status: str, created: str, metrics: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "version": version,
            "parent": parent,
            "status": status,
            "algorithm": "ppo" if parent else "imitation",
            "reward_model": "reward_v1",
            "run_id": "r2",
            "snapshot": "ab12" * 16,
            "path": f"models/{version}/policy_final.pt",
            "metrics": metrics,
            "created_at": created,
        }

    @staticmethod
    def _gains() -> dict[str, Any]:
        return {
            "keep_ratio": 0.81,
            "win_rate": 0.71,
            "win_rate_low": 0.6,
            "win_rate_high": 0.8,
            "gate": {"verdict": "pass", "reasons": ["better on unseen songs"]},
        }

    @staticmethod
    def _warned() -> dict[str, Any]:
        return {
            "keep_ratio": 0.52,
            "win_rates": {"parent": {"mean": 0.56, "low": 0.44, "high": 0.67}},
            "verdict": {"decision": "doubtful", "reasons": ["50 % is inside", NASTY]},
        }

    @staticmethod
    def _run(run_id: str, kind: str) -> dict[str, Any]:
        return {"run_id": run_id, "kind": kind, "state": "finished", "progress": 1.0,
                "message": "done", "settings": {}, "created_at": "2026-11-22T10:00Z"}  # fmt: skip

    def role_of(self, name: str) -> str | None:
        person = self.people.get(name)
        return None if person is None or person["disabled"] else str(person["role"])

    def _start(self, name: str, kind: str, **values: Any) -> dict[str, str]:
        self.calls.append((name, values))
        run = self._run(f"run{len(self.calls)}", kind)
        self.runs.insert(
            0, run | {"state": "running", "progress": 0.4, "message": "update 4 of 10"}
        )
        return {"run_id": run["run_id"]}

    def retrain_reward(self, **values: Any) -> dict[str, str]:
        return self._start("retrain_reward", "train-reward", **values)

    def train_policy(self, **values: Any) -> dict[str, str]:
        if values["total_steps"] < 1:
            raise InvalidError(f"total_steps is {values['total_steps']}; it must be at least 1")
        return self._start("train_policy", "train-policy", **values)

    def run_round(self, **values: Any) -> dict[str, str]:
        return self._start("run_round", "train-reward", **values)

    def generate_pairs(self, **values: Any) -> dict[str, str]:
        return self._start("generate_pairs", "generate", **values)

    def list_runs(self, limit: int = 20) -> list[dict[str, Any]]:
        return [dict(run) for run in self.runs[:limit]]

    def run_view(self, run_id: str) -> dict[str, Any]:
        run = next((run for run in self.runs if run["run_id"] == run_id), None)
        if run is None:
            raise NotFoundError(f"there is no run {run_id!r}")
        reward = run["kind"] == "train-reward"
        rows = [self._reward_row(i) for i in range(5)] if reward else policy_rows()
        done = run["state"] == "finished"
        metrics = {"accuracy": 0.72, "accuracy_low": 0.63, "accuracy_high": 0.8, "log_loss": 0.58,
                   "ece": 0.06, "n_votes": 41, "n_songs": 9}  # fmt: skip
        return run | {
            "eta_s": None if done else 75.0,
            "error": None,
            "command": "python -m rlhf_core.train_rlhf --seed 0",
            "metrics": [] if run["kind"] == "generate" else rows,
            "log_tail": "started\n<b>not bold</b>\nupdate 4",
            "results": {"metrics": metrics} if done and reward else {},
            "settings": {"seed": 0},
        }

    @staticmethod
    def _reward_row(i: int) -> dict[str, Any]:
        return {
            "epoch": i,
            "accuracy": 0.72 - 0.2 * math.exp(-i / 8),
            "log_loss": 0.58 + 0.11 * math.exp(-i / 8),
        }

    def cancel_run(self, run_id: str) -> dict[str, str]:
        self.calls.append(("cancel_run", {"run_id": run_id}))
        next(run for run in self.runs if run["run_id"] == run_id)["state"] = "cancelled"
        return {"run_id": run_id}

    def resume_run(self, run_id: str) -> dict[str, str]:
        self.calls.append(("resume_run", {"run_id": run_id}))
        next(run for run in self.runs if run["run_id"] == run_id)["state"] = "running"
        return {"run_id": run_id}

    def list_policies(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self.policies]

    def list_reward_models(self) -> list[dict[str, Any]]:
        good = {"accuracy": 0.72, "accuracy_low": 0.63, "accuracy_high": 0.8, "log_loss": 0.58,
                "ece": 0.06, "ceiling": 0.84, "baselines": {"length": {"accuracy": 0.55,
                "accuracy_low": 0.45, "accuracy_high": 0.64}}}  # fmt: skip
        return [
            {"version": "reward_v0", "status": "available", "synthetic": True, "n_votes": 0,
             "metrics": {}, "created_at": "2026-11-20T09:00:00Z", "path": "models/reward_v0.pt"},
            {"version": "reward_v1", "status": "active", "synthetic": False, "n_votes": 41,
             "metrics": good, "created_at": "2026-11-21T09:00:00Z", "path": "models/reward_v1.pt"},
        ]  # fmt: skip

    def _status(self, version: str, status: str) -> dict[str, str]:
        row = next((row for row in self.policies if row["version"] == version), None)
        if row is None:
            raise NotFoundError(f"there is no policy version {version!r}")
        row["status"] = status
        return {"version": version}

    def promote(self, version: str, simulated: bool = False) -> dict[str, str]:
        row = next((row for row in self.policies if row["version"] == version), {})
        if row.get("simulated") and not simulated:
            raise InvalidError(f"{version} learned from simulated votes")
        for row in self.policies:
            if row["status"] == "active":
                row["status"] = "retired"
        return self._status(version, "active")

    def reject(self, version: str) -> dict[str, str]:
        return self._status(version, "rejected")

    def roll_back(self) -> dict[str, str]:
        return self.promote("policy_v1")

    def add_songs(self, paths: list[str]) -> dict[str, Any]:
        self.songs += [
            self._song(len(self.songs) + i, Path(path).stem) | {"status": "analysing"}
            for i, path in enumerate(paths)
        ]
        started = self._start("add_songs", "analyse", paths=paths)
        return started | {"added": len(paths), "skipped": []}

    def add_uploads(self, keys: list[str]) -> dict[str, Any]:
        return self.add_songs([f"{key}.wav" for key in keys])

    def remove_song(self, song_id: str, confirmed: bool = False) -> dict[str, Any]:
        song = next(song for song in self.songs if song["song_id"] == song_id)
        if confirmed:
            self.songs.remove(song)
        counts = {"pairs": 7, "shown": 3, "votes": 5, "people": 2, "files": 9, "bytes": 12_300_000}
        return song | counts | {"removed": confirmed}

    def list_songs(self) -> list[dict[str, Any]]:
        return [dict(song) for song in self.songs]

    def song_view(self, song_id: str) -> dict[str, Any]:
        song = next(song for song in self.songs if song["song_id"] == song_id)
        beats = grid()
        peaks = [abs(math.sin(i / 9)) * (0.4 + 0.5 * (i % 100 > 30)) for i in range(400)]
        return dict(song) | {
            "waveform": peaks,
            "beat_times": beats.times[:-1].tolist(),
            "bar_phase": beats.bar_phase.tolist(),
            "pairs": 7 if song["synthetic"] else 0,
            "shown": 3 if song["synthetic"] else 0,
            "votes": 5,
        }

    def set_split(self, song_id: str, split: str) -> dict[str, str]:
        next(song for song in self.songs if song["song_id"] == song_id)["split"] = split
        return {"song_id": song_id, "split": split}

    def correct_beats(self, song_id: str, how: str) -> dict[str, str]:
        return self._start("correct_beats", "analyse", song_id=song_id, how=how)

    def results(self) -> dict[str, Any]:
        actions = [
            {name: i + k if k else 64 - 6 * i for k, name in enumerate(ACTION_NAMES)}
            for i in range(3)
        ]
        return {
            "votes_total": 341,
            "votes_human": 41,
            "votes_simulated": 300,
            "rounds": [
                {"round": i + 1, "votes": 20 * (i + 1), "accuracy": 0.6 + 0.06 * i,
                 "accuracy_low": 0.5 + 0.06 * i, "accuracy_high": 0.69 + 0.06 * i,
                 "ceiling": 0.84, "simulated": i == 3, "policy": f"policy_v{i + 2}",
                 "human": None if i == 2 else {"win_rate": 0.5 + 0.1 * i, "low": 0.35 + 0.1 * i,
                                               "high": 0.65 + 0.1 * i, "votes": 20}}
                for i in range(4)
            ],
            "leaderboard": [
                {"version": f"policy_v{i}", "strength": 0.4 * i - 0.4, "low": 0.4 * i - 0.9,
                 "high": 0.4 * i + 0.1, "votes": 10 * i}
                for i in (3, 2, 1)
            ],
            "policy_behaviour": [
                {"version": f"policy_v{i + 1}", "keep_ratio": 0.9 - 0.15 * i,
                 "joins_per_edit": 4.0 + 3 * i, "actions": actions[i]}
                for i in range(3)
            ],
        }  # fmt: skip

    def list_pairs(self, limit: int = 100) -> list[dict[str, Any]]:
        return [
            {"pair_id": f"pair{i}", "title": NASTY, "pool": "random", "policy_a": "policy_v2",
             "policy_b": "policy_v3", "votes": i, "created_at": "2026-11-22T10:00:00Z"}
            for i in range(3)
        ][:limit]  # fmt: skip

    def pair_view(self, pair_id: str) -> dict[str, Any]:
        row = next(row for row in self.list_pairs() if row["pair_id"] == pair_id)
        changes = {8: 1, 9: 1, 10: 1, 11: 1, 20: 2, 24: 3, 32: 4, 44: 5, 45: 5, 50: 7, 54: 8, 58: 9}
        return row | {
            "start_beat": 0,
            "end_beat": 64,
            "run_id": "r1",
            "edit_a": edit(f"{pair_id}a", changes, "policy_v2"),
            "edit_b": edit(f"{pair_id}b", {16: 3, 40: 1, 41: 1}, "policy_v3"),
            "votes_a": 2,
            "votes_b": 1,
            "ties": 0,
        }

    def list_annotators(self) -> list[dict[str, Any]]:
        return [dict(person) for person in self.people.values()]

    def add_user(self, name: str, role: str, password: str | None = None) -> dict[str, str]:
        if name in self.people:
            raise InvalidError(f"there is an account {name!r} already; choose another name")
        self.people[name] = self._person(name, role)
        return {"name": name, "role": role, "password": password or "seven-words-long"}

    def set_password(self, name: str, password: str | None = None) -> dict[str, str]:
        return {"name": name, "password": password or "eight-words-long"}

    def set_disabled(self, name: str, disabled: bool) -> dict[str, Any]:
        self.people[name]["disabled"] = disabled
        return {"name": name, "disabled": disabled}

    def pairs_overview(self) -> dict[str, int]:
        return {"open": 12, "done": 40, "total": 52}
