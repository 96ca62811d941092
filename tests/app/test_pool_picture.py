"""What the pool has followed, against what a pool that has just been read knows.

People vote, undo, skip, hold pairs until they run out, undo before they vote; pairs are made,
withdrawn and ranked meanwhile. Afterwards both pictures must be the same, whether one app did it
all, or two on a shared database in turn, each knowing of the other by the journal alone.
"""

from __future__ import annotations

import random
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_pairs, add_song
from test_shared_database import TOKEN, free_port

from feedback_app import database as database_module
from feedback_app.facts import Facts
from feedback_app.pool import Pool
from feedback_app.services import Services, open_services
from feedback_app.serving_database import DatabaseServer
from feedback_app.votes import VoteForm

PEOPLE = ("ann", "bob", "cem", "dia")
SETTINGS = PLAIN | {
    "votes_per_pair": 2, "repeat_rate": 0.2, "gold_rate": 0.1, "repeat_gap": 2, "lease_minutes": 5,
}  # fmt: skip
MORE = """INSERT INTO pairs SELECT p.* REPLACE ('new' || ? || '-' || i AS pair_id, pool_of AS pool,
    p.created_at + INTERVAL 1 HOUR AS created_at, 'batch' || ? AS run_id)
    FROM (FROM pairs LIMIT 1) AS p, (VALUES (0, 'random'), (1, 'cross'), (2, 'chosen'), (3, 'gold'))
    AS t(i, pool_of)"""

RETIRE = """UPDATE pairs SET retired = true WHERE pair_id = (SELECT pair_id FROM pairs
    WHERE NOT retired ORDER BY hash(pair_id) LIMIT 1 OFFSET ?)"""


def picture(services: Services) -> dict[str, Any]:
    """All that the pool knows, brought up to date on the writer thread."""
    pool = services.annotation._desk.pool

    def work(cursor: Any) -> dict[str, Any]:
        pool.refresh(cursor)
        pool.meet(cursor, PEOPLE)
        cursor.execute(
            "SELECT annotator, pair_id FROM assignments WHERE repeat_of IS NULL"
            " GROUP BY ALL HAVING count(*) > 1"
        )
        assert cursor.fetchall() == [], "one place of a pair for a person, and no second"
        return {
            "pairs": pool.pairs,
            "places": {pair: count for pair, count in pool.places.items() if count},
            "waiting": sorted(pool.early_undos),
            "pending": {key: row["state"] for key, row in sorted(pool.pending.items())},
            "gold": sorted(pool.gold),
            "ranking": pool.shelves._ranking,
            "bags": {key: sorted(bag) for key, bag in sorted(pool.shelves._bags.items())},
            "people": {
                name: {
                    "open": pool.people[name].open,
                    "expired": pool.people[name].expired,
                    "taken": pool.people[name].taken,
                    "heard": dict(sorted(pool.people[name].heard.items())),
                    "repeated": pool.people[name].repeated,
                    "total": pool.people[name].total,
                    "sitting": pool.people[name].sitting,
                    "recent": pool.people[name].recent,
                }
                for name in PEOPLE
            },
        }

    return services.store.database.write(work)


def live(apps: list[Services], rng: random.Random, clock: list[timedelta]) -> None:
    """A few weeks of a study in a second: some action at some app, again and again."""
    held: dict[str, list[Any]] = {name: [] for name in PEOPLE}
    cast: dict[str, list[str]] = {name: [] for name in PEOPLE}
    for step in range(160):
        name, app = rng.choice(PEOPLE), rng.choice(apps)
        action = rng.random()
        clock[0] += timedelta(seconds=rng.randint(1, 40))
        if action < 0.25:
            found = app.annotation.next(name, tuple(held[name])).result(30)
            held[name] += [found["assignment_id"]] if found else []
        elif action < 0.7 and held[name]:
            choice = rng.choice(("left", "right", "tie", "skip"))
            form = VoteForm(str(uuid4()), held[name].pop(0), choice, response_ms=100)
            app.annotation.vote(name, form, tuple(held[name])).result(30)
            cast[name].append(form.vote_id)
        elif action < 0.76 and cast[name]:
            undone = cast[name].pop(rng.randrange(len(cast[name])))
            app.annotation.undo(name, str(uuid4()), undone).result(30)
        elif action < 0.82 and held[name]:
            early = str(uuid4())
            app.annotation.undo(name, str(uuid4()), early).result(30)
            if rng.random() < 0.5:
                form = VoteForm(early, held[name][0], "tie")
                app.annotation.vote(name, form).result(30)
        elif action < 0.84 and held[name]:
            app.annotation.withdraw(held[name].pop()).result(30)
        elif action < 0.91:
            app.store.database.execute(MORE, [step, step])
        elif action < 0.93:  # as when a song is removed
            app.store.database.execute(RETIRE, [rng.randrange(6)])
        elif action < 0.95:
            ranking(app, rng)
        else:
            clock[0] += timedelta(minutes=6)  # what is open runs out at the next look
            for one in apps:
                one.annotation._desk._expired_at = float("-inf")


def ranking(app: Services, rng: random.Random) -> None:
    run = {"run_id": "rank", "settings": {"reward_model": "reward_v1"}}
    ids = [row["pair_id"] for row in app.store.database.rows("SELECT pair_id FROM pairs")]
    rng.shuffle(ids)
    rows = [{"pair_id": one, "information": 0.1, "place": place} for place, one in enumerate(ids)]
    app.store.database.write(lambda cursor: app.store.put_scores(cursor, run, rows))


@pytest.mark.parametrize("shared", [False, True])
def test_what_was_followed_is_what_is_read(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = None
    settings = dict(SETTINGS)
    if shared:
        pytest.importorskip("duckdb_extension_quack", reason="Quack is not installed")
        server = DatabaseServer(tmp_path / "workspace", "127.0.0.1", free_port(), TOKEN)
        settings |= {"database": server.address, "database_token": TOKEN}
    apps = [open_services(tmp_path / "workspace", **settings) for _ in range(1 + shared)]
    clock, real = [timedelta()], database_module.clock
    monkeypatch.setattr(database_module, "clock", lambda: real() + clock[0])
    read: list[Pool] = []
    whole = Pool._read_assignments
    monkeypatch.setattr(
        Pool, "_read_assignments", lambda pool, cursor: (read.append(pool), whole(pool, cursor))
    )
    try:
        for name in PEOPLE:
            apps[0].operations.add_user(name, "annotator", PASSWORD)
        add_song(apps[0]), add_pairs(apps[0], 6)
        for app in apps:
            picture(app)  # both have read everything once: from here on they follow
        assert len(read) == len(apps)
        live(apps, random.Random(5), clock)
        given = apps[0].annotation.next("ann", ()).result(30)
        for app in apps:
            picture(app)
        apps[0].store.database.execute(RETIRE, [0])
        apps[0].annotation.withdraw(given["assignment_id"]).result(30)  # before another app looks
        followed = [picture(app) for app in apps]
        assert len(read) == len(apps), "everything was read again"
        for app, was in zip(apps, followed, strict=True):
            app.annotation.forget()
            assert picture(app) == was
        votes = apps[0].store.database.rows("SELECT kind, count(*) AS n FROM votes GROUP BY kind")
        assert all(row["n"] > 10 for row in votes) and len(votes) == 2, "little has happened"
        assert was["pending"] and was["ranking"] and was["bags"]
    finally:
        for app in reversed(apps):
            app.close()
        if server is not None:
            server.close()


def test_what_is_read_ahead_is_not_read_for_the_first_visitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_services(tmp_path, **SETTINGS)
    add_song(app), add_pairs(app, 2)
    app.warm()
    monkeypatch.delattr(Pool, "_read_pairs")
    monkeypatch.delattr(Facts, "_take_in")
    assert app.annotation.next("ann").result(30)["pair_id"].startswith("pair")
    assert app.operations.status()["votes_total"] == 0
    app.close()
