"""What the parts of `Operations` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feedback_app.auth import Sessions
from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.jobs import Jobs
from feedback_app.settings import Settings
from feedback_app.store import Store
from feedback_app.workspace import Workspace

ALGORITHMS = ("ppo", "dpo")


class Base:
    """The services that operations use."""

    if TYPE_CHECKING:
        store: Store
        workspace: Workspace
        settings: Settings
        sessions: Sessions
        jobs: Jobs

        def makes_pairs_itself(self) -> bool: ...

        def _chain(self, steps: list[Row], chain: Row | None = None) -> str: ...

        def _generate_for(self, version: str) -> str: ...


def plain(row: Row) -> Row:
    """A row that JSON can write: times become ISO text in UTC."""
    return {
        name: value.isoformat() + "Z" if hasattr(value, "isoformat") else value
        for name, value in row.items()
    }


def policy_settings(
    store: Store,
    algorithm: str,
    total_steps: int,
    learned_weight: float,
    dense_weight: float,
    device: str,
    seed: int,
    reward_model: str | None,
    on_votes: bool,
) -> Row:
    """The settings of a policy's training.

    Raises InvalidError for settings that make no sense, ConflictError before the first policy,
    NotFoundError for a reward model that there is not.
    """
    if algorithm not in ALGORITHMS:
        raise InvalidError(f"algorithm {algorithm!r} is not one of {', '.join(ALGORITHMS)}")
    if not 1 <= total_steps <= 10**9:
        raise InvalidError(f"total_steps is {total_steps}; it must be 1 to 1,000,000,000")
    if learned_weight < 0 or dense_weight < 0 or learned_weight + dense_weight == 0:
        raise InvalidError("the weights must be 0 or more, and not both 0")
    if on_votes and algorithm != "dpo":
        raise InvalidError("only DPO trains on votes; choose it, or turn `on votes` off")
    if store.active_policy() is None:
        raise ConflictError("there is no policy yet; add songs first, it is then made")
    if reward_model is not None:
        store.reward_model(reward_model)
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
