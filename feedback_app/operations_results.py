"""Operations on what the loop has learned so far: the figures of the Results tab."""

from __future__ import annotations

from typing import Any

from feedback_app.database import Row
from feedback_app.errors import InvalidError
from feedback_app.figures.behaviour import behaviour, dense_components
from feedback_app.figures.leaderboard import leaderboard, with_covariates
from feedback_app.figures.rounds import is_simulated, rounds
from feedback_app.operations_base import Base, plain
from rlhf_core.editing.actions import ACTION_NAMES

EDITS_LOOKED_AT = 120  # a version's, for what it does
MAX_FOUND = 1000


class ResultsOperations(Base):
    """Rounds, leaderboards, what policies do, pairs to listen to."""

    def results(self) -> Row:
        """Rounds, leaderboard by people, what length and loudness explain, behaviour by version.

        Votes of judges (dry runs) have a leaderboard of their own and enter nothing else.
        """
        store, weights = self.store, self.store.weights()
        policies = [plain(row) for row in store.policies()]
        human = self._comparisons(weights, simulated=False)
        judged = self._comparisons(weights, simulated=True)
        board, dry = leaderboard(human), leaderboard(judged)
        bins = store.comparisons(weights, ("longer_s", "louder_db"))
        return {
            **store.vote_totals(),
            "rounds": rounds(policies, store.reward_models(), human, judged),
            "leaderboard": board.pop("rows"),
            "leaderboard_about": board,
            "covariates": with_covariates(bins),
            "simulated_leaderboard": dry.pop("rows"),
            "simulated_about": dry,
            "policy_behaviour": self._behaviour(policies),
            "left_out": sorted(name for name, weight in weights.items() if weight == 0),
        }

    def _comparisons(self, weights: dict[str, float], *, simulated: bool) -> dict[str, Any]:
        """By song where there are enough songs to resample, else by song and annotator."""
        return self.store.comparisons(weights, ("song", "annotator"), simulated=simulated)

    def _behaviour(self, policies: list[Row]) -> list[Row]:
        """What each version does, oldest first, over a fixed sample of its edits."""
        edits: dict[str, list[Row]] = {row["version"]: [] for row in policies}
        for edit in self.store.sampled_edits(list(edits), EDITS_LOOKED_AT):
            edits[edit["version"]].append(edit)
        return [
            {
                "version": row["version"],
                "simulated": is_simulated(row),
                **behaviour(edits[row["version"]], ACTION_NAMES),
                "dense_components": dense_components(row),
            }
            for row in policies
        ]

    def find_pairs(self, text: str = "", version: str | None = None, limit: int = 100) -> list[Row]:
        """Pairs to listen to: whose song, id, versions or pool hold the text, newest first."""
        if not 1 <= limit <= MAX_FOUND:
            raise InvalidError(f"limit is {limit}; it must be 1 to {MAX_FOUND}")
        found = self.store.find_pairs(text.strip(), version or None, limit)
        return [plain(row) for row in found]
