"""The loop, round by round: a trained policy, its reward model's figures, and how it fared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_app.figures.ceiling import ceiling_of
from feedback_app.figures.leaderboard import Columns, win_rate

ACCURACY = ("accuracy", "accuracy_low", "accuracy_high", "log_loss")


def is_simulated(policy: Mapping[str, Any]) -> bool:
    """Whether a version came out of a dry run."""
    return bool((policy.get("metrics") or {}).get("simulated"))


def rounds(
    policies: Sequence[Mapping[str, Any]],
    rewards: Sequence[Mapping[str, Any]],
    human: Columns,
    simulated: Columns,
) -> list[dict[str, Any]]:
    """A row per policy that has a parent, oldest first.

    human, simulated: counts of people's and of judges' votes by versions, never added up. `human`
    in a row is the win rate against the parent by people, `judged` by judges (dry runs only).
    """
    by_version = {row["version"]: row for row in rewards}
    out = []
    for number, policy in enumerate((p for p in policies if p["parent"]), start=1):
        reward = by_version.get(policy["reward_model"], {})
        figures = reward.get("metrics") or {}
        dry = is_simulated(policy)
        meeting = (policy["version"], policy["parent"])
        out.append(
            {
                "round": number,
                "policy": policy["version"],
                "parent": policy["parent"],
                "status": policy["status"],
                "reward_model": policy["reward_model"],
                "votes": reward.get("n_votes"),
                **{name: figures.get(name) for name in ACCURACY},
                **ceiling_of(figures),
                "human": win_rate(human, *meeting),
                "judged": win_rate(simulated, *meeting) if dry else None,
                "simulated": dry,
                "created_at": policy["created_at"],
            }
        )
    return out
