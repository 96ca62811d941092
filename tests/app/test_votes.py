"""Votes over HTTP: leases, acknowledgement, repeats, contradictions, undo in any order."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent))

from conftest import add_pairs, add_song, client_of

from feedback_app.services import Services


def vote_of(assignment: dict, **values: object) -> dict:
    return {
        "vote_id": str(uuid4()),
        "assignment_id": assignment["assignment_id"],
        "choice": "left",
        "strength": 2,
        "tags": ["good flow"],
        "comment": "schön <b>",
        "listened": {"left_s": 3.0, "right_s": 2.0, "first_side": assignment["first_side"]},
        "response_ms": 4321,
        "client_version": "1",
    } | values


def current(services: Services) -> list[dict]:
    return services.store.database.rows("SELECT * FROM current_votes ORDER BY seq")


def test_a_vote_is_stored_in_terms_of_the_edits(services: Services) -> None:
    add_song(services), add_pairs(services, 1)
    client = client_of(services, "ann")
    shown = client.get("/api/next").json()
    answer = client.post("/api/vote", json=vote_of(shown))
    assert answer.status_code == 200, answer.text
    assert answer.json()["next"] is None
    assert answer.json()["progress"] == {"done": 1, "done_total": 1, "goal": 30}
    row = services.store.database.row("SELECT * FROM assignments")
    vote = current(services)[0]
    assert vote["choice"] == ("b" if row["b_first"] else "a")
    left_cut = 16 if row["b_first"] else 0
    removed = answer.json()["reveal"]["left"]["removed"]
    assert removed == [
        {"start_beat": left_cut, "end_beat": left_cut + 1,
         "start_s": left_cut * 0.5, "end_s": left_cut * 0.5 + 0.5}
    ]  # fmt: skip


def test_nothing_on_the_wire_tells_which_is_which(services: Services) -> None:
    add_song(services), add_pairs(services, 1)
    text = client_of(services, "ann").get("/api/next").text
    for secret in ("policy", "pair0000", "random", "b_first", "edit_", "temperature"):
        assert secret not in text


def test_a_repeat_is_acknowledged_and_other_content_is_refused(services: Services) -> None:
    add_song(services), add_pairs(services, 2)
    client = client_of(services, "ann")
    vote = vote_of(client.get("/api/next").json())
    assert client.post("/api/vote", json=vote).status_code == 200
    assert client.post("/api/vote", json=vote).status_code == 200
    assert len(current(services)) == 1
    refused = client.post("/api/vote", json=vote | {"choice": "right"})
    assert refused.status_code == 409 and "another vote" in refused.json()["error"]
    assert len(current(services)) == 1


def test_undo_reopens_the_pair(services: Services) -> None:
    add_song(services), add_pairs(services, 3)
    client = client_of(services, "ann")
    shown = client.get("/api/next").json()
    vote = vote_of(shown)
    client.post("/api/vote", json=vote)
    undo = {"vote_id": str(uuid4()), "undoes": vote["vote_id"]}
    answer = client.post("/api/undo", json=undo).json()
    assert answer["assignment"]["assignment_id"] == shown["assignment_id"]
    assert answer["assignment"]["left"] == shown["left"]
    assert current(services) == []
    assert client.post("/api/undo", json=undo).status_code == 200
    assert client.post("/api/vote", json=vote_of(shown, choice="tie", strength=None)).is_success
    assert [row["choice"] for row in current(services)] == ["tie"]


def test_an_undo_may_come_before_its_vote(services: Services) -> None:
    add_song(services), add_pairs(services, 1)
    client = client_of(services, "ann")
    shown = client.get("/api/next").json()
    vote = vote_of(shown)
    undo = {"vote_id": str(uuid4()), "undoes": vote["vote_id"]}
    assert client.post("/api/undo", json=undo).json()["assignment"] is None
    assert client.post("/api/vote", json=vote).status_code == 200
    assert current(services) == []
    assert client.get("/api/next").json()["assignment_id"] == shown["assignment_id"]


def test_nobody_undoes_or_votes_for_another(services: Services) -> None:
    add_song(services), add_pairs(services, 2)
    ann, bob = client_of(services, "ann"), client_of(services, "bob")
    shown = ann.get("/api/next").json()
    assert bob.post("/api/vote", json=vote_of(shown)).status_code == 404
    vote = vote_of(shown)
    ann.post("/api/vote", json=vote)
    undo = {"vote_id": str(uuid4()), "undoes": vote["vote_id"]}
    assert bob.post("/api/undo", json=undo).status_code == 404
    assert len(current(services)) == 1
    assert bob.get("/api/my-votes").json() == []
    assert ann.get("/api/my-votes").json()[0]["choice"] == "left"


def test_malformed_votes_are_refused_with_words(services: Services) -> None:
    add_song(services), add_pairs(services, 1)
    client = client_of(services, "ann")
    shown = client.get("/api/next").json()
    for change in (
        {"vote_id": "x"}, {"choice": "c"}, {"strength": 4}, {"strength": True}, {"tags": "x"},
        {"tags": [1]}, {"comment": "x" * 2001}, {"comment": 3}, {"listened": []},
        {"response_ms": -1}, {"response_ms": 1e300}, {"choice": "tie"}, {"vote_id": None},
    ):  # fmt: skip
        answer = client.post("/api/vote", json=vote_of(shown, **change))
        assert answer.status_code == 422, (change, answer.text)
        assert answer.json()["error"]
    assert client.post("/api/vote", content=b"[1").status_code == 422
    assert client.post("/api/vote", content=b"[" * 60000).status_code == 422
    assert current(services) == []


def test_prefetch_gives_another_pair_and_the_vote_keeps_it(services: Services) -> None:
    add_song(services), add_pairs(services, 5)
    client = client_of(services, "ann")
    first = client.get("/api/next").json()
    assert client.get("/api/next").json()["assignment_id"] == first["assignment_id"]
    second = client.get(f"/api/next?exclude={first['assignment_id']}").json()
    assert second["assignment_id"] != first["assignment_id"]
    answer = client.post("/api/vote", json=vote_of(first, exclude=[second["assignment_id"]])).json()
    third = answer["next"]["assignment_id"]
    assert third not in (first["assignment_id"], second["assignment_id"])


def test_my_pair_is_not_given_to_another(services: Services) -> None:
    add_song(services), add_pairs(services, 1)
    assert "assignment_id" in client_of(services, "ann").get("/api/next").json()
    assert client_of(services, "bob").get("/api/next").json()["empty"] is True


def test_an_abandoned_pair_returns_to_the_pool(services: Services) -> None:
    add_song(services), add_pairs(services, 1)
    ann, bob = client_of(services, "ann"), client_of(services, "bob")
    shown = ann.get("/api/next").json()
    services.store.database.execute("UPDATE assignments SET leased_until = TIMESTAMP '2020-01-01'")
    services.annotation.forget()  # what was written past it
    assert "assignment_id" in bob.get("/api/next").json()
    late = ann.post("/api/vote", json=vote_of(shown))
    assert late.status_code == 200  # a vote is never lost because it came late
    assert len(current(services)) == 1
