"""The pool runs dry: the app makes more pairs by itself, and the page is told what is happening."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_song, client_of
from test_jobs import opened, wait

from feedback_app.services import Services


def prepared(root: Path, **settings: object) -> Services:
    values = {"auto_prepare": True, "first_pairs": 2, "generate_count": 2, "low_water": 1}
    services = opened(root, **(PLAIN | values | {"auto_generate": True} | settings))
    services.operations.add_user("ann", "annotator", PASSWORD)
    add_song(services)
    services.operations.tick()
    wait(services, lambda: services.operations.pairs_overview()["total"] == 2)
    wait(services, lambda: not services.store.open_runs())
    return services


def skip_all(client: object) -> str:
    """Pass over every pair; returns what is said when there is none left."""
    while "assignment_id" in (shown := client.get("/api/next").json()):
        vote = {"vote_id": str(uuid4()), "assignment_id": shown["assignment_id"], "choice": "skip"}
        assert client.post("/api/vote", json=vote).status_code == 200
    return str(shown["message"])


def test_a_listener_who_heard_all_gets_more_though_others_have_not(tmp_path: Path) -> None:
    services = prepared(tmp_path / "w", votes_per_pair=2)
    client = client_of(services, "ann")
    assert "More will be made now" in skip_all(client)
    assert services.store.free_pairs(2) == 2, "both still need a second listener"
    services.operations.tick()
    assert "are being made" in client.get("/api/next").json()["message"]
    wait(services, lambda: services.operations.pairs_overview()["total"] == 4)
    wait(services, lambda: not services.store.open_runs())
    assert "assignment_id" in client.get("/api/next").json()
    services.operations.tick()
    assert services.operations.pairs_overview()["total"] == 4, "once asked, once made"
    assert not services.jobs.active("generate")
    services.close()


def test_a_listener_who_holds_too_many_pairs_asks_for_none(tmp_path: Path) -> None:
    """Else a page that cannot play what it holds would have pairs made for ever."""
    services = prepared(tmp_path / "w", first_pairs=2, low_water=0, generate_count=6)
    services.operations.generate_pairs(6)
    wait(services, lambda: services.operations.pairs_overview()["total"] == 8)
    wait(services, lambda: not services.store.open_runs())
    client, held = client_of(services, "ann"), []
    while "assignment_id" in (shown := client.get(f"/api/next?exclude={','.join(held)}").json()):
        held.append(shown["assignment_id"])
    assert len(held) == 4
    services.operations.tick()
    assert not services.jobs.active("generate")
    services.close()


def test_a_failed_run_is_told_and_not_repeated(tmp_path: Path) -> None:
    services = prepared(tmp_path / "w")
    run = services.jobs.submit("generate", {"count": 1, "fail": True})
    wait(services, lambda: services.store.run(run)["state"] == "failed")
    assert "failed" in skip_all(client_of(services, "ann"))
    services.operations.tick()
    assert not services.jobs.active("generate")
    services.close()


def test_without_leave_to_make_pairs_the_page_says_so(tmp_path: Path) -> None:
    services = prepared(tmp_path / "w")
    services.close()
    services = opened(tmp_path / "w", **(PLAIN | {"auto_generate": False}))
    assert "come back later" in skip_all(client_of(services, "ann"))
    services.operations.tick()
    assert not services.jobs.active("generate")
    services.close()
