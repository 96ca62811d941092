"""Dry runs: what the loop would do with votes of a known taste, before people are paid.

A dry run is a chain of runs under one name (dry1, dry2, …). It begins with the active policy and
the active reward, learns from its own simulated votes alone, and goes on as the loop would: with
the new version, unless the gate says that it is worse. Everything that it makes carries its name:
pairs are never given to people, votes never enter people's figures, versions (dry1_policy_v1, …)
are only proposed. `remove_dry_run` takes all of it away.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict
from datetime import datetime

from feedback_app.database import Row, utc_now
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.operations_base import Base, plain, policy_settings
from feedback_app.readings import results_of
from feedback_app.settings import DRY_RUN_STEPS
from rlhf_core.errors import ConfigError
from rlhf_core.manner import Manner, manner_of
from rlhf_core.tastes import LISTENING, READING

MAX_ROUNDS = 20
MAX_VOTES = 2000
STEPS_A_ROUND = 6
USUAL = Manner()


class DryRunOperations(Base):
    """Starting, showing and removing dry runs."""

    def judges(self) -> list[Row]:
        """Whose votes can be simulated: {name, taste, listens}."""
        kinds = ((READING, False), (LISTENING, True))
        return [
            {"name": name, "taste": taste, "listens": listens}
            for tastes, listens in kinds
            for name, taste in tastes.items()
        ]

    def simulate(
        self,
        judge: str = "mixture",
        rounds: int = 1,
        votes: int = 50,
        noise: float = 1.0,
        total_steps: int = DRY_RUN_STEPS,
        seed: int = 0,
        tie_margin: float = USUAL.tie_margin,
        lapse: float = USUAL.lapse,
        skip: float = USUAL.skip,
        side_bias: float = USUAL.side_bias,
        both_bad: float = USUAL.both_bad,
    ) -> Row:
        """Start a dry run; {run_id, dry_run}. How the judge answers: see `rlhf_core.manner`."""
        _check(judge, rounds, votes, noise)
        try:
            how = asdict(Manner(noise, tie_margin, lapse, skip, side_bias, both_bad))
        except ConfigError as error:
            raise InvalidError(str(error)) from error
        policy = policy_settings(self.store, "ppo", total_steps, 0.8, 0.2, "cpu", seed, None, False)
        active, reward = self.store.active_policy(), self.store.active_reward_model()
        assert active is not None  # `policy_settings` has asked
        name = self._next_dry_run()
        plan = {
            "judge": judge, "rounds": rounds, "votes": votes, **how,
            "total_steps": total_steps, "seed": seed,
        }  # fmt: skip
        chain = {
            "simulated": True, "dry_run": name, "plan": plan,
            "policy": active["version"], "first": active["version"],
        }  # fmt: skip
        if reward is not None:
            chain["reward_model"] = reward["version"]
        steps = [step for number in range(rounds) for step in _round(number, plan, policy)]
        return {"run_id": self._chain(steps, chain), "dry_run": name}

    def dry_runs(self) -> list[Row]:
        """Every dry run, newest first, with what its rounds came to."""
        return [self.dry_run_view(name) for name in reversed(self.store.dry_run_names())]

    def dry_run_view(self, dry_run: str) -> Row:
        """{dry_run, plan, state, error, created_at, seconds, rounds, runs, in_use}.

        A round: {round, policy, parent, n_votes, accuracy(+_low/_high), judge_parent, judge_first,
        reward_parent {mean, low, high}, verdict, reasons, seconds}; what is not known yet is None.
        """
        runs = self.store.runs_of_dry_run(dry_run)
        made = self.store.versions_of_runs([run["run_id"] for run in runs])
        plan = runs[0]["settings"]["chain"]["plan"]
        numbers = sorted({run["settings"]["round"] for run in runs})
        rounds = [
            self._round_view([r for r in runs if r["settings"]["round"] == number], made, number)
            for number in numbers
        ]
        open_run = next((r for r in runs if r["state"] in ("queued", "running")), None)
        last = open_run or runs[-1]
        done = last["state"] == "finished" and not last["settings"].get("then")
        state = "finished" if done else last["state"]
        total = plan["rounds"] * STEPS_A_ROUND
        ended = sum(run["state"] == "finished" for run in runs)
        return {
            "dry_run": dry_run,
            "plan": plan,
            "state": "running" if state == "finished" and not done else state,
            "error": last["error"],
            "run_id": last["run_id"],
            "progress": min(ended / total, 1.0),
            "created_at": plain(runs[0])["created_at"],
            "seconds": sum(seconds_of(run) for run in runs),
            "began_with": runs[0]["settings"]["chain"]["first"],
            "rounds": rounds,
            "in_use": self._why_not_remove(dry_run),
        }

    def remove_dry_run(self, dry_run: str) -> Row:
        """Take a dry run away with its pairs, votes, versions, runs and files.

        Raises ConflictError where it is still going on, or where something of people's rests on it.
        """
        if reasons := self._why_not_remove(dry_run):
            raise ConflictError(f"{dry_run} cannot be removed: {'; '.join(reasons)}")
        runs = self.store.runs_of_dry_run(dry_run)
        ids = [run["run_id"] for run in runs]
        made = self.store.versions_of_runs(ids)
        rows = [row for versions in made.values() for row in versions]
        snapshots = {row["snapshot"] for row in rows if row["snapshot"]}
        snapshots |= {run["settings"]["snapshot"] for run in runs if "snapshot" in run["settings"]}
        spare = snapshots - self.store.snapshots_used(but=ids)
        removed = self.store.delete_runs_and_all(ids)
        for run in runs:
            shutil.rmtree(self.jobs.folder(run), ignore_errors=True)
        for row in rows:
            shutil.rmtree(self.workspace.models / row["version"], ignore_errors=True)
        for digest in spare:
            (self.workspace.snapshots / f"{digest}.parquet").unlink(missing_ok=True)
        return {"dry_run": dry_run, **removed}

    def cancel_dry_run(self, dry_run: str) -> Row:
        """End what is going on of a dry run; what it made so far stays until it is removed."""
        runs = self.store.runs_of_dry_run(dry_run)
        going = [run["run_id"] for run in runs if run["state"] in ("queued", "running")]
        if not going:
            raise ConflictError(f"{dry_run} has ended already")
        for run_id in going:
            self.jobs.cancel(run_id)
        return {"dry_run": dry_run, "run_id": going[0]}

    def _why_not_remove(self, dry_run: str) -> list[str]:
        runs = self.store.runs_of_dry_run(dry_run)
        made = self.store.versions_of_runs([run["run_id"] for run in runs])
        rows = [row for versions in made.values() for row in versions]
        own = {row["version"] for row in rows}
        reasons = []
        if any(run["state"] in ("queued", "running") for run in runs):
            reasons.append("it is still going on (cancel it first)")
        if active := [row["version"] for row in rows if row["status"] == "active"]:
            reasons.append(f"{', '.join(active)} is active (promote another version first)")
        others = sorted({c for version in own for c in self.store.children(version)} - own)
        if others:
            reasons.append(f"{', '.join(others)} came from it")
        given = [v for v in own if any(self.store.pairs_given(v).values())]
        if given:
            reasons.append(f"people were given pairs with edits of {', '.join(sorted(given))}")
        return reasons

    def _next_dry_run(self) -> str:
        numbers = [int(n[0]) for n in map(_digits, self.store.dry_run_names()) if n]
        return f"dry{max(numbers, default=0) + 1}"

    def _round_view(self, runs: list[Row], made: dict[str, list[Row]], number: int) -> Row:
        of = {run["kind"]: run for run in runs}
        ids = {run["run_id"] for run in runs}
        policy = next((row for row in made["policy"] if row["run_id"] in ids), None)
        reward = next((row for row in made["reward model"] if row["run_id"] in ids), None)
        figures = (reward or {}).get("metrics") or {}
        metrics = (policy or {}).get("metrics") or {}
        judged = results_of(self.jobs.folder(of["judge"])) if "judge" in of else None
        rates = (judged or {}).get("win_rates") or {}
        gate = metrics.get("gate") or {}
        measured = metrics.get("win_rate") is not None
        return {
            "round": number,
            "policy": policy and policy["version"],
            "parent": policy and policy["parent"],
            "reward_model": reward and reward["version"],
            "n_votes": reward and reward["n_votes"],
            **{f"accuracy{end}": figures.get(f"accuracy{end}") for end in ("", "_low", "_high")},
            "log_loss": figures.get("log_loss"),
            "judge_parent": rates.get("parent"),
            "judge_first": rates.get("first"),
            "judged_songs": (judged or {}).get("songs"),
            "judged_on": of["judge"]["settings"].get("evaluated_on") if "judge" in of else None,
            "reward_parent": {
                "mean": metrics["win_rate"],
                "low": metrics.get("win_rate_low"),
                "high": metrics.get("win_rate_high"),
            }
            if measured
            else None,
            "verdict": gate.get("verdict"),
            "reasons": gate.get("reasons") or [],
            "seconds": sum(seconds_of(run) for run in runs),
        }


def _check(judge: str, rounds: int, votes: int, noise: float) -> None:
    """Raise InvalidError for a judge that is not known, or numbers outside what they may be."""
    if judge not in READING and judge not in LISTENING:
        known = ", ".join([*READING, *LISTENING])
        raise InvalidError(f"there is no judge {judge!r}; known: {known}")
    if not 1 <= rounds <= MAX_ROUNDS or not 1 <= votes <= MAX_VOTES:
        raise InvalidError(f"rounds must be 1 to {MAX_ROUNDS} and votes 1 to {MAX_VOTES}")
    if not 0 <= noise <= 20:
        raise InvalidError(f"noise is {noise}; it must be 0 (never errs) to 20")


def _round(number: int, plan: Row, policy: Row) -> list[Row]:
    """The steps of one round. Each round has a seed of its own."""
    own = {"round": number + 1, "seed": plan["seed"] + number}
    votes = {"judge": plan["judge"], **asdict(manner_of(plan))}
    steps: tuple[tuple[str, Row], ...] = (
        ("generate", {"count": plan["votes"]}),
        ("simulate", votes),
        ("train-reward", {"include_simulated": True}),
        ("train-policy", dict(policy)),
        ("judge", {"judge": plan["judge"]}),
        ("evaluate", {}),
    )
    return [{"kind": kind, "settings": settings | own} for kind, settings in steps]


def seconds_of(run: Row) -> float:
    """How long a run's process took, from its start to its end (or until now)."""
    started = run["settings"].get("started_at")
    if started is None:
        return 0.0
    end = run["finished_at"] or utc_now()
    began = datetime.fromisoformat(started).replace(tzinfo=None)
    return max(0.0, float((end - began).total_seconds()))


def _digits(name: str) -> list[str]:
    return re.findall(r"^dry([0-9]+)$", name)
