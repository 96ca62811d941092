"""Versions, the queue and dry runs of the in-memory Operations; answers have the real shapes."""

from __future__ import annotations

from typing import Any

from feedback_app.errors import ConflictError

RATE = {"mean": 0.72, "low": 0.61, "high": 0.82}


class FakeVersions:
    """What the tabs Train, Versions and Dry run ask for beside lists and starts."""

    calls: list[tuple[str, dict[str, Any]]]
    policies: list[dict[str, Any]]
    runs: list[dict[str, Any]]

    def __init__(self) -> None:
        self.dry: list[dict[str, Any]] = []

    def queue(self) -> list[dict[str, Any]]:
        going = [run for run in self.runs if run["state"] in ("queued", "running")]
        return [
            {"run_id": run["run_id"], "kind": run["kind"], "state": run["state"], "dry_run": None,
             "why": "waiting for r2" if run["state"] == "queued" else "",
             "then": ["evaluate", "examples"]}
            for run in going
        ]  # fmt: skip

    def judges(self) -> list[dict[str, Any]]:
        return [
            {"name": "mixture", "taste": "a bit of everything", "listens": False},
            {"name": "heard_even", "taste": "no quiet holes", "listens": True},
        ]

    def examples_of(self, row: dict[str, Any]) -> dict[str, Any] | None:
        return None if row.get("parent") is None else self._examples(row["version"], row["parent"])

    def _examples(self, one: str, other: str) -> dict[str, Any]:
        from tests.app.fake_operations import NASTY, edit

        edits = {"a": edit("a", {4: 1}, one), "b": edit("b", {8: 1}, other)}
        row = {
            "number": 0, "song_id": "0" * 16, "title": NASTY,
            "passage": edits["a"]["edl"]["passage"], "policies": {"a": one, "b": other},
            "edl": {side: made["edl"] for side, made in edits.items()},
            "duration_s": {"a": 30.0, "b": 31.0, "original": 32.0},
        }  # fmt: skip
        return {"run_id": "examples-1", "songs": "test songs", "rows": [row]}

    def compare(self, version: str, other: str) -> dict[str, Any]:
        rows = {row["version"]: row for row in self.policies}
        sides = [rows[name] | {"kind": "policy", "curves": []} for name in (version, other)]
        return {"left": sides[0], "right": sides[1], "examples": self._examples(version, other)}

    def make_examples(self, version: str, versus: str) -> dict[str, Any]:
        self.calls.append(("make_examples", {"version": version, "versus": versus}))
        return {"run_id": "examples-2"}

    def delete_version(self, version: str, confirmed: bool = False) -> dict[str, Any]:
        row = next(row for row in self.policies if row["version"] == version)
        if row["status"] == "active":
            raise ConflictError(f"{version} cannot be deleted: it is active")
        self.calls.append(("delete_version", {"version": version, "confirmed": confirmed}))
        if confirmed:
            self.policies.remove(row)
        return {"version": version, "deleted": confirmed, "files": 3, "bytes": 4_200_000}

    def simulate(self, **values: Any) -> dict[str, Any]:
        self.calls.append(("simulate", values))
        figures = {"accuracy": 0.7, "accuracy_low": 0.55, "accuracy_high": 0.82, "n_votes": 50}
        rounds = [
            {"round": 1, "policy": "dry1_policy_v1", **figures, "judge_parent": RATE,
             "judge_first": RATE, "reward_parent": RATE, "verdict": "pass", "seconds": 61.0},
            {"round": 2, "policy": None, "judge_parent": None, "seconds": 4.0},
        ]  # fmt: skip
        self.dry.append(
            {"dry_run": "dry1", "plan": values, "state": "running", "error": None, "run_id": "r9",
             "progress": 0.5, "created_at": "2026-11-22T10:00:00Z", "seconds": 65.0,
             "began_with": "policy_v2", "rounds": rounds, "in_use": []}
        )  # fmt: skip
        return {"run_id": "r9", "dry_run": "dry1"}

    def dry_runs(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self.dry]

    def cancel_dry_run(self, dry_run: str) -> dict[str, Any]:
        self.dry[0]["state"] = "cancelled"
        return {"dry_run": dry_run}

    def remove_dry_run(self, dry_run: str) -> dict[str, Any]:
        self.dry.clear()
        return {"dry_run": dry_run, "runs": 12, "pairs": 100, "votes": 100, "versions": 1}
