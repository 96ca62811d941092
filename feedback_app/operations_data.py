"""Operations on the dataset as a whole: results, exports, imports."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from feedback_app import exchange, statistics
from feedback_app.database import Row
from feedback_app.errors import InvalidError
from feedback_app.operations_base import Base, plain
from feedback_app.transfers import Transfers
from rlhf_core.editing.actions import ACTION_NAMES


class DataOperations(Base):
    """What the loop has learned so far, and the data to take along."""

    def results(self) -> Row:
        """Votes, rounds (one per reward model), leaderboard from human votes, behaviour."""
        compared = statistics.comparisons(self.store.compared(include_simulated=False))
        policies = self.store.policies()
        return {
            **self.store.vote_totals(),
            "rounds": self._rounds(policies, compared),
            "leaderboard": statistics.leaderboard(compared),
            "policy_behaviour": [
                {"version": row["version"]}
                | statistics.behaviour(self.store.edits_of(row["version"]), ACTION_NAMES)
                for row in policies
            ],
        }

    def _rounds(self, policies: list[Row], compared: list[statistics.Comparison]) -> list[Row]:
        """One row per trained policy: its reward model's figures, and how it fared."""
        rewards = {row["version"]: row for row in self.store.reward_models()}
        rounds = []
        for number, policy in enumerate((p for p in policies if p["parent"]), start=1):
            reward = rewards.get(policy["reward_model"], {})
            figures = reward.get("metrics") or {}
            rounds.append(
                {
                    "round": number,
                    "policy": policy["version"],
                    "parent": policy["parent"],
                    "status": policy["status"],
                    "reward_model": policy["reward_model"],
                    "votes": reward.get("n_votes"),
                    "accuracy": figures.get("accuracy"),
                    "accuracy_low": figures.get("accuracy_low"),
                    "accuracy_high": figures.get("accuracy_high"),
                    "log_loss": figures.get("log_loss"),
                    "ceiling": figures.get("ceiling"),
                    "human": statistics.win_rate(compared, policy["version"], policy["parent"]),
                    "simulated": bool((policy["metrics"] or {}).get("simulated")),
                    "created_at": plain(policy)["created_at"],
                }
            )
        return rounds

    def export(
        self,
        format: str = "parquet",
        destination: str | None = None,
        include_simulated: bool = False,
    ) -> Row:
        """Write the dataset. destination: a folder or a file name; default: exports/ here."""
        if format not in exchange.SUFFIXES:
            raise InvalidError(f"format {format!r} is not one of {', '.join(exchange.SUFFIXES)}")
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        name = f"preferences-{format}-{stamp}{exchange.SUFFIXES[format]}"
        path = self.workspace.exports / name
        if destination is not None:
            target = Path(destination).expanduser()
            path = target if target.suffix == exchange.SUFFIXES[format] else target / name
        try:
            return exchange.export(self.store, path, format, include_simulated)
        except OSError as error:
            raise InvalidError(f"{path}: cannot be written ({error})") from error

    def export_file(self, name: str) -> Path:
        """A written export by its name."""
        return self.workspace.child(self.workspace.exports, name)

    def import_votes(self, path: str) -> Row:
        """{accepted, rejected: [{line, reason}]}"""
        return self._transfers().import_votes(Path(path))

    def export_pairs(self, directory: str) -> Row:
        """Pairs with their audio, for listening elsewhere; {path, pairs}."""
        return self._transfers().export_pairs(Path(directory))

    def _transfers(self) -> Transfers:
        return Transfers(self.store, self.workspace)

    def status(self) -> dict[str, Any]:
        """What the workspace holds, in a few numbers."""
        return {
            **self.store.vote_totals(),
            "pairs": self.store.pool_counts(self.settings.votes_per_pair)["total"],
            "songs": len(self.store.songs()),
        }
