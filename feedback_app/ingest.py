"""Taking in what a run wrote to its folder: rows as they appear, results once at the end.

Every function may be called again at any time: rows have keys of their own, and a version is
registered once per run. A folder that is not what it should be raises IngestError.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from feedback_app.cursors import first_row
from feedback_app.database import Row, fetch, utc_now
from feedback_app.errors import AppError
from feedback_app.json_columns import dumps, insert
from feedback_app.store import Store
from feedback_app.store_accounts import ensure_annotator
from feedback_app.store_library import insert_pair, next_version
from feedback_app.workspace import Workspace
from rlhf_core.files import copy_file, read_json, sha256_of, write_text
from rlhf_core.runs import read_lines
from rlhf_core.types import MIN_SONG_BEATS

ROWS_FILE = {
    "analyse": "songs.jsonl", "generate": "pairs.jsonl", "simulate": "votes.jsonl",
    "rank": "scores.jsonl",
}  # fmt: skip
SONG_FIELDS = (
    "duration_s", "sample_rate", "channels", "n_beats", "tempo_bpm", "beat_source",
    "beat_confidence", "stem_source", "waveform", "beat_times", "bar_phase",
)  # fmt: skip


class IngestError(AppError):
    """A run's folder does not hold what its kind promises."""


class Ingest:
    """Reads run folders into the store."""

    def __init__(self, store: Store, workspace: Workspace) -> None:
        self.store = store
        self.workspace = workspace
        self._seen: dict[str, int] = {}

    def rows(self, run: Row) -> int:
        """Take in the rows that a running or finished run has written; returns how many are new."""
        name = ROWS_FILE.get(run["kind"])
        if name is None:
            return 0
        path = self.workspace.resolve(run["folder"]) / name
        size = path.stat().st_size if path.exists() else 0
        if size == self._seen.get(run["run_id"], 0):
            return 0
        try:
            rows = read_lines(path)
            take = {
                "analyse": self._songs,
                "generate": self._pairs,
                "simulate": self._votes,
                "rank": self.store.put_scores,
            }
            taken = self.store.database.write(lambda cursor: take[run["kind"]](cursor, run, rows))
        except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise IngestError(f"{path}: not the rows of a {run['kind']} run ({error!r})") from error
        self._seen[run["run_id"]] = size
        return taken

    def results(self, run: Row) -> Row:
        """Register what a finished run made; returns what its followers should know of it."""
        path = self.workspace.resolve(run["folder"]) / "results.json"
        try:
            results = read_json(path)
            if run["kind"] == "generate":
                return {"pairs_run": run["run_id"]}
            take = {
                "bootstrap": self._reward_model,
                "train-reward": self._reward_model,
                "imitation": self._policy,
                "train-policy": self._policy,
                "evaluate": self._evaluation,
            }
            return take[run["kind"]](run, results) if run["kind"] in take else {}
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise IngestError(f"{path}: not the results of a {run['kind']} run ({error!r})") from (
                error
            )

    def leftovers(self, run: Row) -> None:
        """Songs that an ended analysis never reported are failed, with words."""
        if run["kind"] != "analyse":
            return
        words = "the analysis ended before this song; add it again"

        def work(cursor: Any) -> None:
            for song_id in run["settings"]["songs"]:
                cursor.execute(
                    "UPDATE songs SET status = 'failed', error = ?"
                    " WHERE song_id = ? AND status = 'analysing'",
                    [words, song_id],
                )

        self.store.database.write(work)

    def _songs(self, cursor: Any, run: Row, rows: list[Row]) -> int:
        known = {
            str(self.workspace.resolve(row["path"])): row["song_id"]
            for row in fetch(cursor, "SELECT song_id, path FROM songs")
        }
        for row in rows:
            song_id = known.get(row["path"]) or row.get("song_id")
            if song_id is None:
                continue
            problem = song_problem(row)
            if problem is not None:
                values: Row = {"status": "failed", "error": problem}
            else:
                values = {"status": "ready", "error": None}
                values |= {name: row.get(name) for name in SONG_FIELDS}
            self.store.update_song(cursor, song_id, values)
        return len(rows)

    def _pairs(self, cursor: Any, run: Row, rows: list[Row]) -> int:
        folder = self.workspace.resolve(run["folder"])
        retired = bool(run["settings"].get("chain", {}).get("simulated"))
        return sum(
            insert_pair(
                cursor,
                self._pair_row(row, folder),
                [self._edit_row(row, row[side], folder) for side in ("edit_a", "edit_b")],
                run["run_id"],
                retired=retired,
            )
            for row in rows
        )

    def _pair_row(self, row: Row, folder: Path) -> Row:
        original = row["original"]
        return {
            "pair_id": row["pair_id"],
            "song_id": row["song_id"],
            "edit_a": row["edit_a"]["edit_id"],
            "edit_b": row["edit_b"]["edit_id"],
            "original_path": self._stored(original["audio_path"], folder),
            "original_duration_s": original["duration_s"],
            "original_edl": original["edl"],
            "original_peaks": original.get("peaks"),
            "pool": row["pool"],
            "regions_a": row["regions_a"],
            "regions_b": row["regions_b"],
            "gains_db": row.get("gains_db"),
            "loudness_lufs": row.get("loudness_lufs"),
        }

    def _edit_row(self, row: Row, edit: Row, folder: Path) -> Row:
        return {
            "edit_id": edit["edit_id"],
            "song_id": row["song_id"],
            "start_beat": row["passage"]["start_beat"],
            "end_beat": row["passage"]["end_beat"],
            "policy": edit["policy"],
            "preset": edit.get("preset"),
            "temperature": edit.get("temperature"),
            "seed": edit.get("seed"),
            "actions": edit["actions"],
            "edl": edit["edl"],
            "audio_path": self._stored(edit["audio_path"], folder),
            "duration_s": edit["duration_s"],
            "peaks": edit.get("peaks"),
        }

    def _stored(self, path: str, folder: Path) -> str:
        """An audio path of a run (absolute, or from its folder) as the database keeps it."""
        return self.workspace.relative(folder / path)

    def _votes(self, cursor: Any, run: Row, rows: list[Row]) -> int:
        taken = 0
        for row in rows:
            ensure_annotator(cursor, row["annotator"])
            vote = {
                "vote_id": row["vote_id"],
                "pair_id": row["pair_id"],
                "annotator": row["annotator"],
                "kind": "vote",
                "choice": row["choice"],
                "strength": row.get("strength"),
                "simulated": True,
                "source": "simulate",
                "created_at": utc_now(),
            }
            taken += self.store.add_vote(cursor, vote)
        return taken

    def _keep(self, checkpoint: str, run: Row, folder: str) -> str:
        """Copy a checkpoint out of its run into models/, its SHA-256 beside it; the stored path."""
        source = self.workspace.resolve(run["folder"]) / checkpoint
        target = self.workspace.models / folder / source.name
        copy_file(source, target)
        write_text(
            target.with_name(f"{target.name}.sha256"), f"{sha256_of(target)}  {target.name}\n"
        )
        return self.workspace.relative(target)

    def _keep_reward(self, results: Row, run: Row, folder: str) -> str:
        """The stored path of a reward; what policies are trained on lies beside it."""
        apart = ((results.get("metrics") or {}).get("withheld") or {}).get("checkpoint")
        if apart:
            self._keep(apart, run, folder)
        return self._keep(results["checkpoint"], run, folder)

    def _reward_model(self, run: Row, results: Row) -> Row:
        bootstrap = run["kind"] == "bootstrap"
        settings, metrics = run["settings"], results.get("metrics") or {}
        simulated = bool(settings.get("include_simulated"))
        prefix = version_prefix(settings, "reward_v")
        if simulated:
            metrics = dict(metrics) | {"simulated": True}

        def work(cursor: Any) -> str:
            rows = fetch(
                cursor, "SELECT version FROM reward_models WHERE run_id = ?", [run["run_id"]]
            )
            if rows:
                return str(rows[0]["version"])
            version = next_version(cursor, "reward_models", prefix, 0 if bootstrap else 1)
            first = bootstrap and version.endswith("v0")
            folder = "reward_model_v8_long" if first else version
            row = {
                "version": version,
                "path": self._keep_reward(results, run, folder),
                "run_id": run["run_id"],
                "snapshot": settings.get("snapshot"),
                "status": "available",
                "synthetic": bootstrap or simulated,
                "metrics": dumps(metrics),
                "n_votes": metrics.get("n_votes", settings.get("n_votes", 0)),
                "created_at": utc_now(),
            }
            insert(cursor, "reward_models", row)
            taught = "SELECT 1 FROM reward_models WHERE status = 'active' AND snapshot IS NOT NULL"
            # Votes of programs never teach people's loop by themselves, and what votes taught
            # stays until a reward is trained on votes from the new bootstrap.
            if not simulated and not (bootstrap and fetch(cursor, taught)):
                activate_reward_model(cursor, version)
            return version

        return {"reward_model": self.store.database.write(work)}

    def _policy(self, run: Row, results: Row) -> Row:
        settings = run["settings"]
        first = run["kind"] == "imitation"
        metrics = dict(results.get("metrics") or {})
        if self._learned_from_programs(settings):
            metrics["simulated"] = True
        prefix = version_prefix(settings, "policy_v")

        def work(cursor: Any) -> str:
            rows = fetch(cursor, "SELECT version FROM policies WHERE run_id = ?", [run["run_id"]])
            if rows:
                return str(rows[0]["version"])
            version = next_version(cursor, "policies", prefix, 1)
            cursor.execute("SELECT 1 FROM policies WHERE status = 'active'")
            active = first and first_row(cursor) is None
            row = {
                "version": version,
                # A training's best is what held-out passages chose; imitation has only one.
                "path": self._keep(
                    results.get("best_checkpoint") or results["checkpoint"], run, version
                ),
                "parent": settings.get("parent"),
                "run_id": run["run_id"],
                "reward_model": settings.get("reward_model"),
                "snapshot": settings.get("snapshot"),
                "status": "active" if active else "proposed",
                "algorithm": "imitation" if first else settings["algorithm"],
                "metrics": dumps(metrics),
                "created_at": utc_now(),
            }
            insert(cursor, "policies", row)
            return version

        return {"policy": self.store.database.write(work)}

    def _learned_from_programs(self, settings: Row) -> bool:
        """Whether a policy rests on simulated votes: its own, its reward's or its parent's."""
        rows = [
            self.store.reward_model(settings["reward_model"])
            if settings.get("reward_model")
            else {},
            self.store.policy(settings["parent"]) if settings.get("parent") else {},
        ]
        dry = bool(settings.get("chain", {}).get("simulated") or settings.get("include_simulated"))
        return dry or any((row.get("metrics") or {}).get("simulated") for row in rows)

    def _evaluation(self, run: Row, results: Row) -> Row:
        version = run["settings"].get("policy") or run["settings"]["chain"]["policy"]
        policy = self.store.policy(version)
        metrics = (policy["metrics"] or {}) | evaluation_figures(results)
        metrics |= {"evaluated_on": run["settings"]["evaluated_on"], "evaluation": run["run_id"]}
        if metrics["evaluated_on"] != "test songs" and "gate" in metrics:
            metrics["gate"]["reasons"].append("measured on training songs: no song is held out")
        self.store.database.execute(
            "UPDATE policies SET metrics = ? WHERE version = ?", [dumps(metrics), version]
        )
        worse = (metrics.get("gate") or {}).get("verdict") == "fail"
        dry = run["settings"].get("chain", {}).get("dry_run")
        return {"policy": policy["parent"]} if dry and worse else {}


def song_problem(row: Row) -> str | None:
    """Why a song cannot be used, in words about the person's file; None where it can."""
    if row.get("error"):
        return str(row["error"]).replace(row["path"], Path(row["path"]).name)
    if row["n_beats"] < MIN_SONG_BEATS:
        return (
            f"only {row['n_beats']} beats in {row['duration_s']:.1f} s; at least {MIN_SONG_BEATS} "
            "are needed. Use a longer recording."
        )
    return None


GATES = {"accept": "pass", "doubtful": "warn", "reject": "fail"}


def evaluation_figures(results: Row) -> Row:
    """The figures of an evaluation that a version card shows, and the gate's verdict."""
    ours = results["contenders"]["policy"]
    figures: Row = {"keep_ratio": ours["keep_ratio"], "songs": results["songs"]}
    figures["kl_to_parent"] = results.get("kl_to_parent")
    figures["contenders"] = results["contenders"]
    figures["win_rates"] = results.get("win_rates")
    rate = (results.get("win_rates") or {}).get("parent")
    if rate is not None:
        figures |= {
            "win_rate": rate["mean"],
            "win_rate_low": rate["low"],
            "win_rate_high": rate["high"],
        }
    verdict = results.get("verdict")
    if verdict is not None:
        figures["gate"] = {
            "verdict": GATES[verdict["decision"]],
            "reasons": [*verdict["reasons"], *_whose_judgement(results)],
            **{name: verdict[name] for name in ("better", "odd") if name in verdict},
        }
    return figures


def _whose_judgement(results: Row) -> list[str]:
    """A reward that judges what was trained on it agrees with itself: that is to be known."""
    judge = results.get("judged_by")
    if judge is None:
        return []
    if judge.get("withheld_votes"):
        return [f"judged by a reward of {judge['withheld_votes']} votes withheld from training"]
    return ["the reward that trained it also judged it: listen, and let people compare the two"]


def version_prefix(settings: Row, prefix: str) -> str:
    """What a new version is called before its number; a dry run's carry its name."""
    dry_run = settings.get("chain", {}).get("dry_run")
    return f"{dry_run}_{prefix}" if dry_run else prefix


def activate_reward_model(cursor: Any, version: str) -> None:
    """Make one reward model the one that trainings and pair generation use."""
    cursor.execute("UPDATE reward_models SET status = 'available' WHERE status = 'active'")
    cursor.execute("UPDATE reward_models SET status = 'active' WHERE version = ?", [version])
