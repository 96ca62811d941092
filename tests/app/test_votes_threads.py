"""Many annotators at once, doing anything in any order: what must hold of the database after it."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PLAIN, add_pairs, add_song

from feedback_app.errors import AppError
from feedback_app.services import Services, open_services
from feedback_app.votes import VoteForm

PEOPLE, STEPS, PLACES = 12, 25, 2


class Listener:
    """One annotator who votes, undoes and repeats requests, and knows what must be true then."""

    def __init__(self, services: Services, name: str, seed: int) -> None:
        self.annotation = services.annotation
        self.name = name
        self.rng = random.Random(seed)
        self.standing: dict[str, tuple[str, str]] = {}  # vote_id -> (assignment_id, choice)
        self.held: dict[str, dict[str, Any]] = {}

    def step(self) -> None:
        dice = self.rng.random()
        if dice < 0.25 or not self.held:
            found = self.annotation.next(self.name, tuple(self.held)).result()
            if found is not None:
                self.held[found["assignment_id"]] = found
        elif dice < 0.85:
            self.vote()
        elif self.standing:
            self.undo(self.rng.choice(list(self.standing)))

    def vote(self) -> None:
        assignment = self.rng.choice(list(self.held))
        del self.held[assignment]
        choice = self.rng.choice(("left", "right", "tie", "both_bad", "skip"))
        form = VoteForm(str(uuid4()), assignment, choice)
        for _ in range(self.rng.choice((1, 1, 2))):  # a repeat is harmless
            answer = self.annotation.vote(self.name, form, tuple(self.held)).result()
            if answer["next"] is not None:
                self.held[answer["next"]["assignment_id"]] = answer["next"]
        self.standing[form.vote_id] = (assignment, choice)
        with pytest.raises(AppError):
            other = VoteForm(form.vote_id, assignment, "tie" if choice != "tie" else "skip")
            self.annotation.vote(self.name, other).result()

    def undo(self, vote_id: str) -> None:
        assignment, _ = self.standing.pop(vote_id)
        answer = self.annotation.undo(self.name, str(uuid4()), vote_id).result()
        assert answer["assignment"]["assignment_id"] == assignment
        self.held[assignment] = answer["assignment"]


@pytest.mark.parametrize("seed", range(3))
def test_what_holds_after_anything(tmp_path: Path, seed: int) -> None:
    rates = {"repeat_rate": 0.3, "repeat_gap": 2, "gold_rate": 0.2, "votes_per_pair": PLACES}
    services = open_services(tmp_path, **(PLAIN | rates))
    add_song(services), add_pairs(services, 60)
    services.store.database.execute("UPDATE pairs SET pool = 'gold' WHERE pair_id < 'pair0004'")
    services.store.database.execute(
        "UPDATE pairs SET pool ="
        " ['random', 'chosen', 'cross', 'broad'][(hash(pair_id) % 4)::INTEGER + 1]"
        " WHERE pool <> 'gold'"
    )
    people = [Listener(services, f"listener{i}", 100 * seed + i) for i in range(PEOPLE)]
    barrier = threading.Barrier(PEOPLE + 1)

    def run(listener: Listener) -> None:
        barrier.wait()
        for _ in range(STEPS):
            listener.step()

    def disturb() -> None:
        """Other writes, good ones and faulty ones, and new rankings in the middle of it all."""
        barrier.wait()
        for i in range(20):
            if i % 5 == 0:
                rank(services, random.Random(i))
            services.store.database.execute("UPDATE pairs SET retired = false WHERE retired")
            with pytest.raises(ValueError):
                services.store.database.write(lambda cursor, i=i: [].index(i))

    with ThreadPoolExecutor(PEOPLE + 1) as pool:
        for done in [*(pool.submit(run, one) for one in people), pool.submit(disturb)]:
            done.result()
    check(services, people)
    before = services.store.database.rows("SELECT * FROM assignments ORDER BY ALL")
    services.close()
    again = open_services(tmp_path, **(PLAIN | rates))
    assert again.store.database.rows("SELECT * FROM assignments ORDER BY ALL") == before
    for one in people:  # what memory counted is what the database holds
        found = again.annotation.undo(one.name, str(uuid4()), str(uuid4())).result()
        assert found["progress"]["done_total"] == len(one.standing)
    again.close()


def rank(services: Services, rng: random.Random) -> None:
    """As a ranking run would: every pair gets a new place."""
    order = rng.sample(range(60), 60)
    rows = [
        {"pair_id": f"pair{number:04d}", "information": 0.1, "place": place}
        for place, number in enumerate(order)
    ]
    run = {"run_id": "rank-1", "settings": {"reward_model": "reward_v1"}}
    services.store.database.write(lambda cursor: services.store.put_scores(cursor, run, rows))


def check(services: Services, people: list[Listener]) -> None:
    database = services.store.database
    rows = database.rows("SELECT * FROM assignments JOIN pairs USING (pair_id)")
    first = [row for row in rows if row["repeat_of"] is None]
    assert max(Counter((row["pair_id"], row["annotator"]) for row in first).values()) == 1
    repeats = Counter((r["pair_id"], r["annotator"]) for r in rows if r["repeat_of"] is not None)
    assert repeats and max(repeats.values()) == 1
    plain = Counter(row["pair_id"] for row in first if row["pool"] != "gold")
    assert max(plain.values()) <= PLACES, "no place of a pair is given twice"
    by_id = {row["assignment_id"]: row for row in rows}
    by_reason = {"score": {"chosen", "broad"}, "gold": {"gold"}}
    for row in rows:
        assert row["pool"] in by_reason.get(row["reason"], {row["pool"]})
        assert (row["reason"] == "repeat") == (row["repeat_of"] is not None)
    assert {"score", "random", "cross", "gold", "repeat"} == {row["reason"] for row in rows}
    assert all(row["pair_id"] == by_id[row["repeat_of"]]["pair_id"] for row in rows
               if row["repeat_of"] is not None)  # fmt: skip
    stored = {
        str(row["vote_id"]): (row["assignment_id"], row["choice"])
        for row in database.rows("SELECT * FROM current_votes")
    }
    for one in people:
        for vote_id, (assignment, choice) in one.standing.items():
            row = by_id[assignment]
            sides = {
                "left": "b" if row["b_first"] else "a",
                "right": "a" if row["b_first"] else "b",
            }
            assert stored.pop(vote_id) == (assignment, sides.get(choice, choice))
            assert row["state"] == "done" and row["annotator"] == one.name
    assert stored == {}, "and no other vote counts"
