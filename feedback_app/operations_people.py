"""Operations on people: accounts, what their votes say about them, and how much they count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import numpy as np

from feedback_app.auth import (
    ROLES,
    check_name,
    check_new_password,
    generate_password,
    hash_password,
)
from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.figures.agreement import agreement_by_person, alpha, kappas
from feedback_app.figures.annotators import people
from feedback_app.figures.leaderboard import leaderboard
from feedback_app.operations_base import Base, plain

MAX_FOUND = 1000
MAX_REASON = 500
MAX_ACTOR = 100


class PeopleOperations(Base):
    """Who may sign in, and as what; who votes, how well, and how much it counts."""

    def list_annotators(self) -> list[Row]:
        return [plain(row) for row in self.store.accounts()]

    def role_of(self, name: str) -> str | None:
        """annotator or researcher; None for a name that may not sign in."""
        row = self.store.annotator(name)
        if row is None or row["disabled"] or row["password"] is None:
            return None
        return str(row["role"])

    def add_user(
        self, name: str, role: str, password: str | None = None, *, one_time: bool = False
    ) -> dict[str, str]:
        """A new account; the password is made up where none is given, and told only here.

        A one-time password opens the account only together with a new one.
        """
        if role not in ROLES:
            raise InvalidError(f"role {role!r} is not one of {', '.join(ROLES)}")
        check_name(name)
        chosen = _password(password)
        self.store.add_annotator(name, role, hash_password(chosen, one_time=one_time))
        return {"name": name, "role": role, "password": chosen}

    def set_password(self, name: str, password: str | None = None) -> dict[str, str]:
        """A new password; ends the account's sessions."""
        chosen = _password(password)
        self.store.update_annotator(name, "password", hash_password(chosen))
        self.sessions.forget()
        return {"name": name, "password": chosen}

    def set_disabled(self, name: str, disabled: bool) -> dict[str, Any]:
        """Shut an account out, or let it in again."""
        researchers = {
            row["name"]
            for row in self.store.accounts()
            if row["role"] == "researcher" and not row["disabled"]
        }
        if disabled and researchers == {name}:
            raise ConflictError(f"{name} is the only researcher; add another one first")
        self.store.update_annotator(name, "disabled", disabled)
        self.sessions.forget()
        return {"name": name, "disabled": disabled}

    # -- what their votes say ---------------------------------------------------------------------

    def people(self) -> Row:
        """{people, agreement, pairs_of_people, votes_per_pair, tags, changes, reliability_from}.

        agreement: Krippendorff's alpha and raw agreement of those who count; pairs_of_people:
        Cohen's kappa of every two who judged the same pairs.
        """
        store = self.store
        weights = store.weights()
        common = store.answers_in_common(weights)
        rewards = [row for row in store.reward_models() if not row["synthetic"]]
        latest = next((row for row in reversed(rewards) if _reliability(row)), None)
        checks = store.headphone_outcomes()
        accounts = [plain(row) | {"headphones": checks.get(row["name"])} for row in
                    store.accounts()]  # fmt: skip
        return {
            "people": people(
                accounts,
                store.people_counts(),
                agreement_by_person(_in_common(common)),
                _reliability(latest),
            ),
            "reliability_from": None if latest is None else latest["version"],
            "agreement": self._agreement(weights),
            "pairs_of_people": kappas(common),
            "votes_per_pair": self.settings.votes_per_pair,
            "tags": store.tag_counts(),
            "changes": [plain(row) for row in store.weight_changes()],
        }

    def _agreement(self, weights: Mapping[str, float]) -> Any:
        patterns = self.store.answer_patterns(weights)
        counts = np.stack([patterns[name] for name in ("a", "neither", "b")], axis=1)
        return alpha(counts, patterns["items"])

    def search_votes(
        self,
        text: str = "",
        tag: str | None = None,
        annotator: str | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """People's votes with a comment or tags that hold the text, newest first."""
        if not 1 <= limit <= MAX_FOUND:
            raise InvalidError(f"limit is {limit}; it must be 1 to {MAX_FOUND}")
        found = self.store.search_votes(text.strip(), tag or None, annotator or None, limit)
        return [plain(row) for row in found]

    # -- how much they count ----------------------------------------------------------------------

    def weight_effect(self, name: str, weight: float) -> Row:
        """What the figures would be if somebody weighed something else; changes nothing.

        {name, before: {weight, votes, agreement, leaderboard}, after: the same}. The reward model
        learns of it when it is trained next.
        """
        now = self._weights_with(name, weight)
        sides = {"before": self.store.weights(), "after": now}
        return {"name": name} | {
            side: {"weight": weights[name], **self._figures(weights)}
            for side, weights in sides.items()
        }

    def _figures(self, weights: Mapping[str, float]) -> Row:
        board = leaderboard(self.store.comparisons(weights, ("song", "annotator")))
        return {
            "votes": self.store.weighted_votes(weights),
            "agreement": self._agreement(weights),
            "leaderboard": board["rows"],
        }

    def set_weight(
        self, name: str, weight: float, reason: str | None = None, by: str | None = None
    ) -> dict[str, Any]:
        """How much a person's votes count; 0 leaves them out. `undo_weight` takes it back.

        by: who does it, kept with the change.
        """
        self._weights_with(name, weight)
        if reason is not None and len(reason) > MAX_REASON:
            raise InvalidError(f"the reason is longer than {MAX_REASON} characters")
        before = self.store.change_weight(
            uuid4().hex, name, float(weight), reason or None, _actor(by)
        )
        return {"name": name, "weight": weight, "before": before}

    def undo_weight(self, by: str | None = None) -> dict[str, Any]:
        """Take the newest change of a weight back; the one before it is then the newest."""
        taken = self.store.take_back_weight(_actor(by))
        if taken is None:
            raise ConflictError("no change of a weight is left to take back")
        return {"name": taken["annotator"], "weight": taken["before"], "before": taken["after"]}

    def _weights_with(self, name: str, weight: float) -> dict[str, float]:
        weights = self.store.weights()
        if name not in weights:
            raise NotFoundError(f"there is nobody called {name!r}")
        if isinstance(weight, bool) or not 0 <= weight <= 1:
            raise InvalidError(f"a weight is 0 to 1, got {weight}")
        return weights | {name: float(weight)}


def _in_common(rows: list[Row]) -> list[Row]:
    """Sums by person of answers shared with others, from pairs of people."""
    sums: dict[str, list[int]] = {}
    for row in rows:
        same = row["n"] * (row["answer_first"] == row["answer_second"])
        for name in (row["first"], row["second"]):
            total = sums.setdefault(name, [0, 0])
            total[0] += same
            total[1] += row["n"]
    return [{"annotator": name, "same": s, "others": n} for name, (s, n) in sums.items()]


def _reliability(reward: Row | None) -> dict[str, float]:
    """By annotator, relative to the others (1: as the rest), from a reward model's fit."""
    metrics = {} if reward is None else reward["metrics"] or {}
    return dict((metrics.get("head") or {}).get("reliability") or {})


def _actor(by: str | None) -> str | None:
    if by is not None and len(by) > MAX_ACTOR:
        raise InvalidError(f"the name of who does it is longer than {MAX_ACTOR} characters")
    return by or None


def _password(password: str | None) -> str:
    return check_new_password(password or generate_password())
