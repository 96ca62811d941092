"""What the parts of `Operations` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feedback_app.auth import Sessions
from feedback_app.database import Row
from feedback_app.jobs import Jobs
from feedback_app.settings import Settings
from feedback_app.store import Store
from feedback_app.workspace import Workspace


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
        ) -> Row: ...


def plain(row: Row) -> Row:
    """A row that JSON can write: times become ISO text in UTC."""
    return {
        name: value.isoformat() + "Z" if hasattr(value, "isoformat") else value
        for name, value in row.items()
    }
