"""Operations that start runs, and on the versions that runs make."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import rlhf_core
from feedback_app import processes
from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.jobs import read_status
from feedback_app.operations_base import Base, plain
from rlhf_core.files import read_json
from rlhf_core.runs import read_lines

ALGORITHMS = ("ppo", "dpo")
SHIPPED = Path(rlhf_core.__file__).parent / "models/reward_model_v8_long/reward_model_final.pt"
MAX_METRICS = 500
MAX_COUNT = 2000
ASKED_LATELY_S = 30.0


class TrainingOperations(Base):
    """Pairs, rewards, policies, rounds, dry runs; and what becomes of the versions."""

    _asked_at = float("-inf")  # when an annotator last found nothing to hear

    def prepare(self) -> Row:
        """Make what a fresh workspace lacks: reward_v0 beside policy_v1, then the first pairs.

        Returns {run_id, message}; run_id is None where nothing is lacking or it is under way.
        """
        ready = [s for s in self.store.songs() if s["status"] == "ready" and s["split"] == "train"]
        if not ready:
            return {"run_id": None, "message": "there is no analysed song to train on yet"}
        if self.jobs.active("bootstrap", "imitation"):
            return {"run_id": None, "message": "the first versions are being made"}
        if self.store.active_policy() is not None:
            return {"run_id": None, "message": "there is a policy already"}
        needs: list[str] = []
        if self.store.bootstrap_reward_model() is None:
            if SHIPPED.is_file():
                self.store.add_shipped_reward_model(str(SHIPPED))
            else:
                needs = [self.jobs.submit("bootstrap", {"seed": 0})]
        pairs = {"count": self.settings.first_pairs, "needs": needs}
        run_id = self._chain(
            [
                {"kind": "imitation", "settings": {"seed": 0}},
                {"kind": "generate", "settings": pairs},
            ]
        )
        return {"run_id": run_id, "message": "the first versions and pairs are being made"}

    def generate_pairs(
        self,
        count: int,
        policy: str | None = None,
        versus: str | None = None,
        seed: int | None = None,
    ) -> Row:
        """Pairs from a policy version (the active one), optionally against another version."""
        if not 1 <= count <= MAX_COUNT:
            raise InvalidError(f"count is {count}; it must be 1 to {MAX_COUNT}")
        found = self.store.policy(policy) if policy else self.store.active_policy()
        if found is None:
            raise ConflictError("there is no policy yet; add songs first, it is then made")
        if versus is not None:
            self.store.policy(versus)
        settings = {"count": count, "policy": policy, "versus": versus, "seed": seed}
        return {"run_id": self.jobs.submit("generate", settings)}

    def rank_pairs(self) -> Row:
        """Rank the waiting pairs by what a vote would tell the newest reward model."""
        reward = self.store.active_reward_model()
        if reward is None:
            raise ConflictError("there is no reward model yet that could rank pairs")
        return {"run_id": self._rank(reward, self._newest_unranked(reward))}

    def retrain_reward(self, include_simulated: bool = False, seed: int = 0) -> Row:
        """A new reward model from the votes so far."""
        self._need_votes(include_simulated)
        settings = {"include_simulated": include_simulated, "seed": seed}
        return {"run_id": self.jobs.submit("train-reward", settings)}

    def train_policy(
        self,
        algorithm: str = "ppo",
        total_steps: int = 40000,
        learned_weight: float = 0.8,
        dense_weight: float = 0.2,
        device: str = "cpu",
        seed: int = 0,
        reward_model: str | None = None,
        on_votes: bool = False,
    ) -> Row:
        """A new policy, proposed and evaluated when it is done."""
        settings = self._policy_settings(
            algorithm, total_steps, learned_weight, dense_weight, device, seed, reward_model,
            on_votes,
        )  # fmt: skip
        return {"run_id": self._chain([{"kind": "train-policy", "settings": settings}, EVALUATE])}

    def run_round(
        self,
        include_simulated: bool = False,
        algorithm: str = "ppo",
        total_steps: int = 40000,
        learned_weight: float = 0.8,
        dense_weight: float = 0.2,
        device: str = "cpu",
        seed: int = 0,
        reward_model: str | None = None,
        on_votes: bool = False,
    ) -> Row:
        """Retrain the reward, train the policy on it, evaluate. Promoting stays with people.

        reward_model is taken as what the round's own retraining makes.
        """
        self._need_votes(include_simulated)
        policy = self._policy_settings(
            algorithm, total_steps, learned_weight, dense_weight, device, seed, None, on_votes
        )
        reward = {"include_simulated": include_simulated, "seed": seed}
        steps = [
            {"kind": "train-reward", "settings": reward},
            {"kind": "train-policy", "settings": policy},
            EVALUATE,
        ]
        return {"run_id": self._chain(steps)}

    def simulate(
        self,
        judge: str = "mixture",
        rounds: int = 1,
        votes: int = 50,
        noise: float = 1.0,
        total_steps: int = 20000,
        seed: int = 0,
    ) -> Row:
        """A dry run with a program that votes; nothing of it mixes with people's votes.

        Its pairs are never shown to people, its votes are marked, its versions only proposed.
        """
        if not 1 <= rounds <= 20 or not 1 <= votes <= MAX_COUNT:
            raise InvalidError(f"rounds must be 1 to 20 and votes 1 to {MAX_COUNT}")
        policy = self._policy_settings("ppo", total_steps, 0.8, 0.2, "cpu", seed, None, False)
        steps: list[Row] = []
        for number in range(rounds):
            each = seed + number
            steps += [
                {"kind": "generate", "settings": {"count": votes, "seed": each}},
                {"kind": "simulate", "settings": {"judge": judge, "noise": noise, "seed": each}},
                {"kind": "train-reward", "settings": {"include_simulated": True, "seed": each}},
                {"kind": "train-policy", "settings": policy},
                EVALUATE,
            ]
        return {"run_id": self._chain(steps, {"simulated": True})}

    def list_runs(self, limit: int = 20) -> list[Row]:
        """Runs, newest first."""
        names = ("run_id", "kind", "state", "created_at", "finished_at", "error", "settings")
        return [plain({name: run[name] for name in names}) for run in self.store.runs(limit)]

    def run_view(self, run_id: str) -> Row:
        """Everything about a run, from its folder."""
        run = self.store.run(run_id)
        folder = self.jobs.folder(run)
        status = read_status(folder)
        ended = run["state"] not in ("queued", "running")
        return {
            "run_id": run_id,
            "kind": run["kind"],
            "state": run["state"],
            "progress": 1.0 if run["state"] == "finished" else status.get("progress", 0.0),
            "message": status.get("message") or ("waiting" if run["state"] == "queued" else ""),
            "eta_s": None if ended else status.get("eta_s"),
            "error": run["error"],
            "command": shlex.join(run["argv"] or []),
            "metrics": _metrics(folder / "metrics.jsonl"),
            "log_tail": processes.tail(folder / "log.txt"),
            "results": _results(folder / "results.json"),
            "settings": run["settings"],
            "next_run": self.jobs.follower(run_id),
            "steps_left": len(run["settings"].get("then") or []),
        }

    def cancel_run(self, run_id: str) -> Row:
        self.jobs.cancel(run_id)
        return {"run_id": run_id}

    def resume_run(self, run_id: str) -> Row:
        return {"run_id": self.jobs.resume(run_id)}

    def list_policies(self) -> list[Row]:
        return [plain(row) for row in self.store.policies()]

    def list_reward_models(self) -> list[Row]:
        return [plain(row) for row in self.store.reward_models()]

    def promote(self, version: str) -> Row:
        """Make a policy version the one that new pairs come from, and make some."""
        self.store.activate_policy(version)
        run_id = None
        if self.settings.auto_generate:
            self.store.retire_unheard_pairs(but_of=version)
            run_id = self._generate_for(version)
        return {"version": version, "run_id": run_id}

    def reject(self, version: str) -> Row:
        self.store.reject_policy(version)
        return {"version": version}

    def roll_back(self) -> Row:
        """Make the active version's parent active again."""
        active = self.store.active_policy()
        if active is None or active["parent"] is None:
            raise ConflictError("the active policy has no parent to go back to")
        self.store.activate_policy(active["parent"])
        return {"version": active["parent"]}

    def tick(self) -> None:
        """What the app does by itself, called after each look at the runs."""
        if self.settings.auto_prepare and not self.jobs.active("analyse"):
            latest = self.store.latest_run("imitation") or self.store.latest_run("bootstrap")
            if self.store.active_policy() is None and latest is None:
                self.prepare()
        self._rank_waiting()
        active = self.store.active_policy()
        if active is None or self.jobs.active("generate") or not self.makes_pairs_itself():
            return
        free = self.store.free_pairs(self.settings.votes_per_pair)
        if free < self.settings.low_water or time.monotonic() - self._asked_at < ASKED_LATELY_S:
            self._asked_at = float("-inf")
            self._generate_for(active["version"])

    def _rank_waiting(self) -> None:
        """Once per reward model and batch of new pairs; what failed is not repeated by itself."""
        reward = self.store.active_reward_model()
        if reward is None or self.settings.assign_score == 0:
            return
        if self.jobs.active("rank", "generate", "train-reward"):
            return
        newest = self._newest_unranked(reward)
        latest = self.store.latest_run("rank")
        done = None if latest is None else latest["settings"]
        if newest is not None and (
            done is None
            or done.get("newest") != newest
            or done.get("reward_model") != reward["version"]
        ):
            self._rank(reward, newest)

    def _newest_unranked(self, reward: Row) -> str | None:
        newest = self.store.newest_unranked(self.settings.votes_per_pair, reward["version"])
        return None if newest is None else newest.isoformat()

    def _rank(self, reward: Row, newest: str | None) -> str:
        settings = {"reward_model": reward["version"], "newest": newest}
        return self.jobs.submit("rank", settings)

    def ask_for_pairs(self) -> None:
        """Somebody has heard every pair that could be given to them: the next tick makes more."""
        if not self.jobs.active("generate"):
            self._asked_at = time.monotonic()

    def makes_pairs_itself(self) -> bool:
        """Whether the pool is filled without anybody's doing.

        A failed or cancelled run is not repeated by itself; making the first pairs is `prepare`'s.
        """
        if not self.settings.auto_generate or self.store.active_policy() is None:
            return False
        last = self.store.latest_run("generate")
        return last is not None and last["state"] == "finished"

    def _generate_for(self, version: str) -> str:
        policy = self.store.policy(version)
        versus = policy["parent"] if self.settings.share_cross > 0 else None
        settings = {"count": self.settings.generate_count, "policy": version, "versus": versus}
        return self.jobs.submit("generate", settings)

    def _chain(self, steps: list[Row], chain: Row | None = None) -> str:
        first = steps[0]["settings"] | {"then": steps[1:], "chain": chain or {}}
        return self.jobs.submit(steps[0]["kind"], first)

    def _need_votes(self, include_simulated: bool) -> None:
        totals = self.store.vote_totals()
        if totals["votes_total" if include_simulated else "votes_human"] == 0:
            raise ConflictError("there are no votes to learn from yet; listen to some pairs first")

    def _policy_settings(
        self,
        algorithm: str,
        total_steps: int,
        learned_weight: float,
        dense_weight: float,
        device: str,
        seed: int,
        reward_model: str | None,
        on_votes: bool,
    ) -> Row:
        if algorithm not in ALGORITHMS:
            raise InvalidError(f"algorithm {algorithm!r} is not one of {', '.join(ALGORITHMS)}")
        if not 1 <= total_steps <= 10**9:
            raise InvalidError(f"total_steps is {total_steps}; it must be 1 to 1,000,000,000")
        if learned_weight < 0 or dense_weight < 0 or learned_weight + dense_weight == 0:
            raise InvalidError("the weights must be 0 or more, and not both 0")
        if on_votes and algorithm != "dpo":
            raise InvalidError("only DPO trains on votes; choose it, or turn `on votes` off")
        if self.store.active_policy() is None:
            raise ConflictError("there is no policy yet; add songs first, it is then made")
        if reward_model is not None:
            self.store.reward_model(reward_model)
        return {
            "algorithm": algorithm,
            "total_steps": total_steps,
            "learned_weight": learned_weight,
            "dense_weight": dense_weight,
            "device": device,
            "seed": seed,
            "reward_model": reward_model,
            "on_votes": on_votes,
        }


EVALUATE: Row = {"kind": "evaluate", "settings": {}}


def _metrics(path: Path) -> list[Row]:
    """At most 500 rows of a run's metrics, evenly spaced, the last one always there."""
    rows = read_lines(path)
    if len(rows) <= MAX_METRICS:
        return rows
    step = -(-len(rows) // MAX_METRICS)
    return rows[(len(rows) - 1) % step :: step]


def _results(path: Path) -> dict[str, Any] | None:
    try:
        return dict(read_json(path)) if path.exists() else None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError):
        return None  # damaged: the run's state says so, for it cannot have been taken in
