"""Operations that start runs, and on the versions that runs make."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import rlhf_core
from feedback_app import processes
from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.jobs import read_status
from feedback_app.operations_base import Base, plain, policy_settings
from feedback_app.readings import metrics_of, results_of
from feedback_app.settings import (
    POLICY_STEPS,
    REBUILT_DEMO_SONGS,
    REBUILT_PAIRS,
    REBUILT_STEPS,
)

SHIPPED = Path(rlhf_core.__file__).parent / "models/reward_model_v8_long/reward_model_final.pt"
MAX_COUNT = 2000
ASKED_LATELY_S = 30.0


class TrainingOperations(Base):
    """Pairs, rewards, policies, rounds."""

    _looked_at = -1  # writes to the database when waiting pairs were last looked at
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
        """Pairs from a policy version (the active one), by the usual shares of the pools.

        versus: instead, all against that version, save for the share of gold pairs.
        """
        if not 1 <= count <= MAX_COUNT:
            raise InvalidError(f"count is {count}; it must be 1 to {MAX_COUNT}")
        found = self.store.policy(policy) if policy else self.store.active_policy()
        if found is None:
            raise ConflictError("there is no policy yet; add songs first, it is then made")
        if versus is not None:
            self.store.policy(versus)
        settings = {"count": count, "policy": policy, "versus": versus, "seed": seed}
        if versus is not None:
            settings["only_versus"] = True
        return {"run_id": self.jobs.submit("generate", settings)}

    def rank_pairs(self) -> Row:
        """Rank the waiting pairs by what a vote would tell the newest reward model."""
        reward = self.store.active_reward_model()
        if reward is None:
            raise ConflictError("there is no reward model yet that could rank pairs")
        return {"run_id": self._rank(reward, self._newest_unranked(reward))}

    def rebuild_bootstrap(
        self,
        demo_songs: int = REBUILT_DEMO_SONGS,
        steps: int = REBUILT_STEPS,
        pairs: int = REBUILT_PAIRS,
        seed: int = 0,
    ) -> Row:
        """A bootstrap reward model of this library's songs and so many demo songs, without votes.

        The next reward models that are trained on votes start from it.
        """
        for name, value, least in (
            ("demo_songs", demo_songs, 0),
            ("steps", steps, 1),
            ("pairs", pairs, 8),
        ):
            if value < least:
                raise InvalidError(f"{name} is {value}; it must be {least} or more")
        if not any(s["status"] == "ready" and s["split"] == "train" for s in self.store.songs()):
            raise ConflictError("there is no analysed song to train on yet; add songs first")
        settings = {"demo_songs": demo_songs, "steps": steps, "pairs": pairs, "seed": seed}
        return {"run_id": self.jobs.submit("bootstrap", {**settings, "time_limit_s": 0})}

    def retrain_reward(self, include_simulated: bool = False, seed: int = 0) -> Row:
        """A new reward model from the votes so far."""
        self._need_votes(include_simulated)
        settings = {"include_simulated": include_simulated, "seed": seed}
        return {"run_id": self.jobs.submit("train-reward", settings)}

    def train_policy(
        self,
        algorithm: str = "ppo",
        total_steps: int = POLICY_STEPS,
        learned_weight: float = 0.8,
        dense_weight: float = 0.2,
        device: str = "cpu",
        seed: int = 0,
        reward_model: str | None = None,
        on_votes: bool = False,
    ) -> Row:
        """A new policy, proposed and evaluated when it is done."""
        settings = policy_settings(
            self.store, algorithm, total_steps, learned_weight, dense_weight, device, seed,
            reward_model, on_votes,
        )  # fmt: skip
        train = {"kind": "train-policy", "settings": settings}
        return {"run_id": self._chain([train, *self._examined()])}

    def run_round(
        self,
        include_simulated: bool = False,
        algorithm: str = "ppo",
        total_steps: int = POLICY_STEPS,
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
        policy = policy_settings(
            self.store, algorithm, total_steps, learned_weight, dense_weight, device, seed,
            None, on_votes,
        )  # fmt: skip
        reward = {"include_simulated": include_simulated, "seed": seed}
        steps = [
            {"kind": "train-reward", "settings": reward},
            {"kind": "train-policy", "settings": policy},
            *self._examined(),
        ]
        return {"run_id": self._chain(steps)}

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
            "message": self._waits_for(run) or status.get("message") or "",
            "eta_s": None if ended else status.get("eta_s"),
            "error": run["error"],
            "command": shlex.join(run["argv"] or []),
            "metrics": metrics_of(folder),
            "log_tail": processes.tail(folder / "log.txt"),
            "results": results_of(folder),
            "settings": run["settings"],
            "folder": str(folder),
            "next_run": self.jobs.follower(run_id),
            "steps_left": len(run["settings"].get("then") or []),
        }

    def queue(self) -> list[Row]:
        """Runs that go on or wait, in their order: {run_id, kind, state, why, then}.

        why: what a waiting run waits for; then: the kinds of runs that will follow it.
        """
        return [
            {
                "run_id": run["run_id"],
                "kind": run["kind"],
                "state": run["state"],
                "why": self._waits_for(run),
                "then": [step["kind"] for step in run["settings"].get("then") or ()],
                "dry_run": (run["settings"].get("chain") or {}).get("dry_run"),
            }
            for run in self.store.open_runs()
            if run["state"] in ("queued", "running")
        ]

    def _waits_for(self, run: Row) -> str:
        """What a queued run waits for, in words; nothing for others."""
        if run["state"] != "queued":
            return ""
        others = [o for o in self.store.open_runs() if o["run_id"] != run["run_id"]]
        needed = [
            o["run_id"] for o in others if o["run_id"] in (run["settings"].get("needs") or ())
        ]
        before = [o["run_id"] for o in others if o["kind"] == run["kind"]]
        first = (needed or [o for o in before if o < run["run_id"]] or before or ["its turn"])[0]
        return f"waiting for {first}"

    def cancel_run(self, run_id: str) -> Row:
        self.jobs.cancel(run_id)
        return {"run_id": run_id}

    def resume_run(self, run_id: str) -> Row:
        return {"run_id": self.jobs.resume(run_id)}

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
        writes = self.store.database.foreign
        if writes == self._looked_at or self.settings.assign_score == 0:
            return  # nothing but votes came since: what waits was ranked or is under way
        if self.jobs.active("rank", "generate", "train-reward"):
            return
        self._looked_at = writes
        reward = self.store.active_reward_model()
        if reward is None:
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

    def _examined(self) -> list[Row]:
        """What follows a policy's training: the gate, and examples to listen to."""
        examples = {"count": self.settings.version_examples, "seed": 0}
        steps: list[Row] = [{"kind": "evaluate", "settings": {}}]
        return steps + ([{"kind": "examples", "settings": examples}] if examples["count"] else [])

    def _chain(self, steps: list[Row], chain: Row | None = None) -> str:
        first = steps[0]["settings"] | {"then": steps[1:], "chain": chain or {}}
        return self.jobs.submit(steps[0]["kind"], first)

    def _need_votes(self, include_simulated: bool) -> None:
        totals = self.store.vote_totals()
        if totals["votes_total" if include_simulated else "votes_human"] == 0:
            raise ConflictError("there are no votes to learn from yet; listen to some pairs first")
