"""The machine's clock is set back (or jumps ahead) while people vote. The clock is injected."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_pairs, add_song, client_of

from feedback_app import votes
from feedback_app.services import open_services

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("feedback_app.database.clock", made)
    monkeypatch.setattr(votes, "EXPIRY_CHECK_S", -1.0)  # look at leases with every request
    return made


def cast(client: Any, shown: dict[str, Any], choice: str = "left") -> tuple[str, dict[str, Any]]:
    vote = {
        "vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": choice,
    }  # fmt: skip
    answer = client.post("/api/vote", json=vote)
    assert answer.status_code == 200, answer.text
    return vote["vote_id"], answer.json()["next"]


def test_votes_sessions_and_leases_outlive_a_clock_that_is_set_back(
    tmp_path: Path, clock: Clock
) -> None:
    services = open_services(tmp_path, **PLAIN)
    for name in ("ann", "bob"):
        services.operations.add_user(name, "annotator", PASSWORD)
    add_song(services), add_pairs(services, 5)
    ann, bob = client_of(services, "ann"), client_of(services, "bob")
    first, shown = cast(ann, ann.get("/api/next").json())
    second, shown = cast(ann, shown, "right")
    left = bob.get("/api/next").json()  # bob is given a pair and goes away

    clock.now = NOON - timedelta(days=3)
    services.sessions.forget()
    assert ann.get("/api/me").status_code == 200
    assert ann.get("/api/next").json()["assignment_id"] == shown["assignment_id"]
    third, shown = cast(ann, shown)
    listed = [row["vote_id"] for row in ann.get("/api/my-votes").json()]
    assert listed == [third, second, first]  # as they came in, whatever the clock said
    undone = ann.post("/api/undo", json={"vote_id": str(uuid4()), "undoes": first})
    assert undone.status_code == 200
    listed = [row["vote_id"] for row in ann.get("/api/my-votes").json()]
    assert listed == [third, second]

    clock.now += timedelta(minutes=services.settings.lease_minutes + 1)
    seen, row = set(), ann.get("/api/next").json()
    while row and "assignment_id" in row:  # bob's pair has come back, three days before its time
        seen.add(services.store.database.row(
            "SELECT pair_id FROM assignments WHERE assignment_id = ?", [row["assignment_id"]]
        )["pair_id"])  # fmt: skip
        _, row = cast(ann, row)
    held = services.store.database.row(
        "SELECT pair_id FROM assignments WHERE assignment_id = ?", [left["assignment_id"]]
    )
    assert held["pair_id"] in seen
    current = services.store.database.rows("SELECT pair_id FROM current_votes")
    assert len({row["pair_id"] for row in current}) == len(current) == 5
    services.close()

    clock.now = NOON - timedelta(days=30)  # and what was stored opens at any time
    again = open_services(tmp_path, **PLAIN)
    assert len(again.store.database.rows("SELECT * FROM current_votes")) == 5
    again.close()


def test_a_clock_that_jumps_ahead_ends_sessions_and_leases_and_nothing_else(
    tmp_path: Path, clock: Clock
) -> None:
    services = open_services(tmp_path, **PLAIN)
    services.operations.add_user("ann", "annotator", PASSWORD)
    add_song(services), add_pairs(services, 2)
    ann = client_of(services, "ann")
    vote, _ = cast(ann, ann.get("/api/next").json())
    clock.now = NOON + timedelta(days=services.settings.session_days + 1)
    services.sessions.forget()
    assert ann.get("/api/me").status_code == 401
    again = client_of(services, "ann")
    assert [row["vote_id"] for row in again.get("/api/my-votes").json()] == [vote]
    cast(again, again.get("/api/next").json())
    services.close()
