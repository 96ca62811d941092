"""Operations on versions: what they are and came from, promote, reject, roll back, delete, compare.

Two kinds share them: policies and reward models. A version that learned from simulated votes, or
from such a version, is simulated; it is never made active unless that is confirmed in so many
words.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.ingest import GATES, activate_reward_model
from feedback_app.operations_base import Base, plain
from feedback_app.readings import example_rows, metrics_of
from rlhf_core.policy.settling import settle

CHOSEN = (
    "algorithm", "total_steps", "learned_weight", "dense_weight", "device", "on_votes",
    "include_simulated",
)  # fmt: skip
MAX_EXAMPLES = 12


class VersionOperations(Base):
    """Versions of the policy and of the reward model."""

    def list_policies(self) -> list[Row]:
        """Policies, oldest first, with settings, seed, code_version, simulated, dry_run."""
        rows = [_told(row) for row in self.store.versions_with_runs("policy")]
        return self._settled(rows)

    def _settled(self, rows: list[Row]) -> list[Row]:
        """Versions with the verdict that votes on pairs of them and their parents make of it."""
        judged = [row for row in rows if row.get("parent") and (row["metrics"] or {}).get("gate")]
        for dry in {bool(row["dry_run"]) for row in judged}:
            settled = [row for row in judged if bool(row["dry_run"]) == dry]
            won = self.store.pairs_won([row["version"] for row in settled], simulated=dry)
            for row in settled:
                _settle(row, won)
        return rows

    def list_reward_models(self) -> list[Row]:
        """Reward models, oldest first, with the same lineage."""
        return [_told(row) for row in self.store.versions_with_runs("reward model")]

    def version_view(self, version: str) -> Row:
        """A version with the curves of its training and, of a policy, its examples."""
        kind = self.store.kind_of_version(version)
        rows = self.list_policies() if kind == "policy" else self.list_reward_models()
        row = next(row for row in rows if row["version"] == version)
        curves: list[Row] = []
        if row["run_id"]:
            curves = metrics_of(self.jobs.folder(self.store.run(row["run_id"])))
        return row | {"kind": kind, "curves": curves, "examples": self.examples_of(row)}

    def examples_of(self, row: Row) -> Row | None:
        """The rendered examples of a policy against its parent: {run_id, rows}, or None."""
        if not row.get("parent"):
            return None
        return self.examples_between(row["version"], row["parent"])

    def examples_between(self, version: str, other: str) -> Row | None:
        """Examples of two policies on the same passages of unseen songs, where they were made."""
        for names in ((version, other), (other, version)):
            run = self.store.latest_of_settings("examples", policy=names[0], versus=names[1])
            if run is not None:
                rows = example_rows(self.jobs.folder(run))
                titles = {song["song_id"]: song["title"] for song in self.store.songs()}
                return {
                    "run_id": run["run_id"],
                    "songs": run["settings"].get("made_on"),
                    "rows": [r | {"title": titles.get(r["song_id"], r["song_id"])} for r in rows],
                }
        return None

    def make_examples(self, version: str, versus: str | None = None, count: int = 3) -> Row:
        """Render edits of two policies of the same unseen passages, to be listened to."""
        policy = self.store.policy(version)
        other = versus or policy["parent"]
        if other is None:
            raise ConflictError(f"{version} has no parent; say which version to set it against")
        self.store.policy(other)
        if other == version:
            raise InvalidError("choose two different versions")
        if not 1 <= count <= MAX_EXAMPLES:
            raise InvalidError(f"count is {count}; it must be 1 to {MAX_EXAMPLES}")
        settings = {"policy": version, "versus": other, "count": count, "seed": 0}
        return {"run_id": self.jobs.submit("examples", settings)}

    def example_audio(self, run_id: str, number: int, side: str) -> Path:
        """One sound of an examples run; side a, b or original."""
        run = self.store.run(run_id)
        rows = example_rows(self.jobs.folder(run)) if run["kind"] == "examples" else []
        if not 0 <= number < len(rows) or side not in rows[number]["audio"]:
            raise NotFoundError("there is no such example")
        return Path(rows[number]["audio"][side])

    def compare(self, version: str, other: str) -> Row:
        """Two versions of one kind side by side: {left, right, examples}."""
        left, right = self.version_view(version), self.version_view(other)
        if left["kind"] != right["kind"]:
            raise InvalidError(
                f"{version} is a {left['kind']}, {other} a {right['kind']}: "
                "only versions of one kind can be compared"
            )
        policies = left["kind"] == "policy" and version != other
        found = self.examples_between(version, other) if policies else None
        return {"left": left, "right": right, "examples": found}

    def promote(self, version: str, simulated: bool = False) -> Row:
        """Make a version active: new pairs come from it, or trainings learn from it.

        simulated: confirms that a version that learned from simulated votes is meant.
        """
        kind = self.store.kind_of_version(version)
        rows = self.list_policies() if kind == "policy" else self.list_reward_models()
        row = next(row for row in rows if row["version"] == version)
        if row["simulated"] and not simulated:
            raise ConflictError(
                f"{version} learned from simulated votes, not from people. Nobody's taste is in "
                "it: promoting it takes an explicit confirmation (by command: --simulated)"
            )
        if kind == "reward model":
            self.store.database.write(lambda cursor: activate_reward_model(cursor, version))
            return {"version": version, "run_id": None}
        self.store.activate_policy(version)
        run_id = None
        if self.settings.auto_generate:
            self.store.retire_unheard_pairs(but_of=version)
            run_id = self._generate_for(version)
        return {"version": version, "run_id": run_id}

    def reject(self, version: str) -> Row:
        """Mark a version as not to be used."""
        if self.store.kind_of_version(version) == "policy":
            self.store.reject_policy(version)
        else:
            if self.store.reward_model(version)["status"] == "active":
                raise ConflictError(f"{version} is active; promote another version first")
            self.store.set_status(version, "rejected")
        return {"version": version}

    def roll_back(self) -> Row:
        """Make the active policy's parent active again."""
        active = self.store.active_policy()
        if active is None or active["parent"] is None:
            raise ConflictError("the active policy has no parent to go back to")
        if self.store.kind_of_version(active["parent"]) == "policy":
            self.store.activate_policy(active["parent"])
        return {"version": active["parent"]}

    def delete_version(self, version: str, confirmed: bool = False) -> Row:
        """Delete a version with its checkpoints and rendered examples; its run's record stays.

        Without `confirmed` nothing is deleted: {version, deleted: false, files, bytes} says what
        would be. Raises ConflictError with every reason against it.
        """
        reasons = self.why_not_delete(version)
        if reasons:
            raise ConflictError(f"{version} cannot be deleted: {'; '.join(reasons)}")
        files = self._files_of_version(version)
        size = sum(path.stat().st_size for path in files)
        if confirmed:
            self.store.set_status(version, "deleted")
            for path in files:
                path.unlink(missing_ok=True)
            shutil.rmtree(self.workspace.models / version, ignore_errors=True)
        return {"version": version, "deleted": confirmed, "files": len(files), "bytes": size}

    def why_not_delete(self, version: str) -> list[str]:
        """What stands against deleting a version; [] where nothing does."""
        kind = self.store.kind_of_version(version)
        policy = kind == "policy"
        row = self.store.policy(version) if policy else self.store.reward_model(version)
        reasons = []
        if row["status"] == "active":
            reasons.append("it is active (promote another first)")
        if children := self.store.children(version):
            reasons.append(f"{', '.join(children)} came from it")
        if policy:
            pairs = self.store.pairs_of_version(version)
            if pairs["voted"]:
                reasons.append(f"votes on {pairs['voted']} pair(s) with its edits would be orphans")
            elif pairs["waiting"]:
                reasons.append(f"{pairs['waiting']} pair(s) with its edits wait for votes")
        elif row["snapshot"] is None:
            reasons.append("every training of a reward starts from it")
        if row["run_id"] and self.store.run(row["run_id"])["settings"].get("chain", {}).get(
            "dry_run"
        ):
            reasons.append("it belongs to a dry run: remove that as a whole")
        for run in self.store.open_runs():
            if run["state"] in ("queued", "running") and _names(run["settings"], version):
                reasons.append(f"{run['run_id']} is using it")
        return reasons

    def _files_of_version(self, version: str) -> list[Path]:
        """Checkpoints and rendered examples that a version alone has; inside the workspace only."""
        kind = self.store.kind_of_version(version)
        row = self.store.policy(version) if kind == "policy" else self.store.reward_model(version)
        folders = [self.workspace.models / version]
        if row["run_id"]:
            folders.append(self.jobs.folder(self.store.run(row["run_id"])) / "models")
        for run in self.store.runs_naming("examples", version):
            folders.append(self.jobs.folder(run) / "audio")
        return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def _told(row: Row) -> Row:
    """A version's row for the page: with what its run was told, and whether it is simulated."""
    settings: dict[str, Any] = row.pop("run_settings") or {}
    chain = settings.get("chain") or {}
    metrics = row["metrics"] or {}
    return plain(row) | {
        "settings": {name: settings[name] for name in CHOSEN if name in settings},
        "seed": settings.get("seed"),
        "code_version": settings.get("code_version"),
        "simulated": bool(metrics.get("simulated")),
        "dry_run": chain.get("dry_run"),
    }


def _settle(row: Row, won: Mapping[tuple[str, str], int]) -> None:
    """Put what the votes say on top of the gate's verdict, where there are any."""
    version, parent, gate = row["version"], row["parent"], row["metrics"]["gate"]
    wins, losses = won.get((version, parent), 0), won.get((parent, version), 0)
    if wins + losses == 0:
        return
    told = settle(gate, wins, losses)
    settled = {**gate, "reasons": [*told["reasons"], *gate["reasons"]]}
    if "decision" in told:
        settled |= {"verdict": GATES[told["decision"]], "better": told["better"]}
    row["metrics"] = row["metrics"] | {"gate": settled}


def _names(settings: Row, version: str) -> bool:
    """Whether a run's settings name a version anywhere."""
    return any(
        _names(value, version) if isinstance(value, dict) else value == version
        for value in settings.values()
    )
