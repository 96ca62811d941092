"""Counts behind Results and People on a real workspace: against plain recounts in Python."""

from __future__ import annotations

import json
import random
import sys
from datetime import datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

sys.path.insert(0, str(Path(__file__).parent))

from conftest import add_pairs, add_song

from feedback_app.__main__ import main
from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.services import Services

START = datetime(2026, 11, 1, 12)
CHOICES = ("a", "b", "tie", "both_bad", "skip")


def vote(pair: str, who: str, choice: str, second: float = 0.0, **more: Any) -> dict[str, Any]:
    """A row of `votes` with an assignment's id; `more` overrides."""
    return {
        "vote_id": str(uuid4()), "pair_id": pair, "annotator": who, "kind": "vote",
        "choice": choice, "simulated": False, "source": "app", "repeat": False, "tags": [],
        "comment": "", "flags": [], "response_ms": 4000, "listened": {"first_side": "left"},
        "created_at": START + timedelta(seconds=second),
    } | more  # fmt: skip


def undo(row: dict[str, Any]) -> dict[str, Any]:
    return {"vote_id": str(uuid4()), "pair_id": row["pair_id"], "annotator": row["annotator"],
            "kind": "undo", "undoes": row["vote_id"], "simulated": row["simulated"],
            "source": row["source"], "created_at": row["created_at"]}  # fmt: skip


def put(services: Services, *rows: dict[str, Any], b_first: bool = False) -> None:
    """Append votes as the app does, each with an assignment that says which side was which."""

    def work(cursor: Any) -> None:
        for row in rows:
            if row["kind"] == "vote" and row["source"] == "app":
                row["assignment_id"] = uuid4().hex
                cursor.execute(
                    "INSERT INTO assignments (assignment_id, pair_id, annotator, b_first,"
                    " first_side, media_left, media_right, media_original, state, leased_until,"
                    " created_at) VALUES (?, ?, ?, ?, 'left', '', '', '', 'done', ?, ?)",
                    [row["assignment_id"], row["pair_id"], row["annotator"], b_first, START, START],
                )
            cursor.execute(
                "INSERT INTO annotators VALUES (?, 'annotator', NULL, ?, false, 1.0)"
                " ON CONFLICT DO NOTHING",
                [row["annotator"], START],
            )
            services.store.add_vote(cursor, row)

    services.store.database.write(work)


@pytest.fixture
def desk(services: Services) -> Services:
    """Twelve pairs; edit b of the later six comes from policy_v2; the last pair is gold."""
    add_song(services), add_pairs(services, 12)
    run = services.store.database.execute
    run("UPDATE edits SET policy = 'policy_v2' WHERE edit_id LIKE '%-b' AND edit_id >= 'pair0006'")
    run("UPDATE edits SET policy = 'gold', preset = 'broken' WHERE edit_id = 'pair0011-b'")
    run("UPDATE pairs SET pool = 'gold' WHERE pair_id = 'pair0011'")
    return services


def seen(services: Services) -> list[tuple[Any, ...]]:
    rows = services.store.facts.rows(
        "SELECT vote_id::VARCHAR, annotator, simulated, repeat FROM facts WHERE is_current"
    )
    return sorted(tuple(row.values()) for row in rows)


def test_facts_follow_the_votes_whatever_comes(desk: Services) -> None:
    """Votes, votes again, undos before and after, judges: the view `current_votes` is the truth."""
    rng, cast, held = random.Random(3), [], []
    truth = ("SELECT vote_id::VARCHAR AS v, annotator, simulated, coalesce(repeat, false) AS r"
             " FROM current_votes")  # fmt: skip
    for step in range(60):
        row = vote(f"pair{rng.randrange(6):04d}", rng.choice("xyz"), rng.choice(CHOICES), step,
                   simulated=rng.random() < 0.2, repeat=rng.random() < 0.2)  # fmt: skip
        if cast and rng.random() < 0.3:
            put(desk, undo(rng.choice(cast)))
        elif rng.random() < 0.1:  # an undo that comes before its vote
            put(desk, undo(row))
            held.append(row)
        elif held and rng.random() < 0.3:
            put(desk, held.pop())
        else:
            put(desk, row)
            cast.append(row)
        if step % 6 == 0:
            assert seen(desk) == sorted(tuple(r.values()) for r in desk.store.database.rows(truth))
    assert seen(desk) == sorted(tuple(r.values()) for r in desk.store.database.rows(truth))
    desk.store.database.execute("DELETE FROM votes WHERE annotator = 'x'")
    assert seen(desk) == sorted(tuple(r.values()) for r in desk.store.database.rows(truth))


def cast_by_three(services: Services, seed: int = 0) -> list[dict[str, Any]]:
    """ann, bob and eve on all pairs, eve mostly by chance; some of it weighed later."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(11):
        liked = CHOICES[rng.integers(3)]
        for place, who in enumerate(("ann", "bob", "eve")):
            chance = 0.9 if who == "eve" else 0.15
            choice = CHOICES[rng.integers(5)] if rng.random() < chance else liked
            rows.append(vote(f"pair{index:04d}", who, choice, 60 * index + place))
    put(services, *rows)
    return rows


def answer(row: dict[str, Any]) -> int | None:
    return {"a": 0, "tie": 1, "both_bad": 1, "b": 2}.get(row["choice"])


def test_agreement_is_that_of_a_recount_by_name(desk: Services) -> None:
    rows = cast_by_three(desk)
    put(desk, vote("pair0000", "judge", "b", simulated=True, source="simulate"))
    given = {(row["annotator"], row["pair_id"]): answer(row) for row in rows}
    found = desk.operations.people()
    kappas = {(row["first"], row["second"]): row for row in found["pairs_of_people"]}
    for first, second in combinations(("ann", "bob", "eve"), 2):
        both = [
            (given[first, f"pair{i:04d}"], given[second, f"pair{i:04d}"])
            for i in range(11)
            if None not in (given[first, f"pair{i:04d}"], given[second, f"pair{i:04d}"])
        ]
        row = kappas[first, second]
        assert row["items"] == len(both)
        assert row["raw"] == pytest.approx(np.mean([x == y for x, y in both]))
        assert row["kappa"] == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)))
    assert len(kappas) == 3  # the judge is not among the people
    import krippendorff

    table = [[given[who, f"pair{i:04d}"] for i in range(11)] for who in ("ann", "bob", "eve")]
    data = np.array([[np.nan if x is None else x for x in row] for row in table], dtype=float)
    assert found["agreement"]["alpha"] == pytest.approx(
        krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
    )
    people = {row["name"]: row for row in found["people"]}
    with_others = [
        given["eve", pair] == given[who, pair]
        for pair in {pair for _, pair in given}
        for who in ("ann", "bob")
        if None not in (given["eve", pair], given[who, pair])
    ]
    assert people["eve"]["figures"]["agrees"]["of"] == len(with_others)
    assert people["eve"]["figures"]["agrees"]["share"] == pytest.approx(np.mean(with_others))
    assert people["judge"]["figures"] is None and people["judge"]["simulated"] == 1


def test_a_person_s_figures_are_counted_from_their_own_votes(desk: Services) -> None:
    left = [vote(f"pair{i:04d}", "ann", "a", 30 * i) for i in range(8)]  # edit a is on the left
    put(desk, *left, vote("pair0008", "ann", "tie", 240), vote("pair0009", "ann", "skip", 270))
    right = vote("pair0010", "ann", "a", 5000, listened={"first_side": "right"},
                 flags=["too_fast", "one_sided"], response_ms=100)  # fmt: skip
    put(desk, right, b_first=True)
    again = [vote("pair0000", "ann", "a", 5030, repeat=True),
             vote("pair0001", "ann", "b", 5060, repeat=True),
             vote("pair0008", "ann", "both_bad", 5090, repeat=True)]  # fmt: skip
    put(desk, *again, b_first=True)
    put(desk, vote("pair0011", "ann", "b", 5120), vote("pair0011", "bob", "a", 0))
    put(desk, vote("pair0003", "ann", "b", 9000, source="import", pair_id="pair0003",
                   annotator="guest", listened=None, response_ms=None))  # fmt: skip
    desk.store.add_headphone_check({"check_id": "1", "annotator": "ann", "outcome": "failed",
                                    "created_at": START})  # fmt: skip
    desk.store.add_headphone_check({"check_id": "2", "annotator": "ann", "outcome": "passed",
                                    "created_at": START})  # fmt: skip
    desk.store.add_headphone_check({"check_id": "3", "annotator": "bob", "outcome": "skipped",
                                    "created_at": START})  # fmt: skip
    people = {row["name"]: row for row in desk.operations.people()["people"]}
    ann, figures = people["ann"], people["ann"]["figures"]
    assert ann["votes"] == 15 and ann["headphones"] == "passed"
    assert people["bob"]["headphones"] == "skipped" and people["res"]["figures"] is None
    # ten gaps of half a minute, then a pause that is no sitting, then four more gaps
    assert figures["sitting_hours"] == pytest.approx((9 + 4) * 30 / 3600)
    assert figures["votes_per_hour"] == pytest.approx(120)
    # left: the first 8, and the repeat that chose b; right: pair0010, one repeat, the gold pair
    assert (figures["left"]["share"], figures["left"]["of"]) == (pytest.approx(9 / 12), 12)
    # first played was the left side everywhere but once, where it was the right, and chosen
    assert (figures["first"]["share"], figures["first"]["of"]) == (pytest.approx(10 / 12), 12)
    assert figures["repeats"]["share"] == pytest.approx(2 / 3) and figures["repeats"]["of"] == 3
    assert figures["gold"] == pytest.approx({"share": 1.0, "of": 1, "low": 0.2065, "high": 1.0},
                                            abs=1e-3)  # fmt: skip
    assert people["bob"]["figures"]["gold"]["share"] == 0
    assert figures["skipped"] == 1 and figures["one_sided"] == 1
    assert figures["too_fast"]["share"] == pytest.approx(1 / 14)
    assert figures["median_s"] == 4
    guest = people["guest"]["figures"]
    assert guest["votes_per_hour"] is None and guest["left"] is None and guest["median_s"] is None


def test_excluding_somebody_changes_the_figures_as_foretold_and_can_be_taken_back(
    desk: Services,
) -> None:
    cast_by_three(desk)
    operations = desk.operations
    before = operations.people()["agreement"]
    told = operations.weight_effect("eve", 0.0)
    assert told["before"]["agreement"] == before
    assert operations.people()["agreement"] == before  # asking changes nothing
    operations.set_weight("eve", 0.0, "votes by chance", by="rita")
    now = operations.people()
    assert now["agreement"] == told["after"]["agreement"]
    assert now["agreement"]["alpha"] > before["alpha"]
    assert operations.results()["leaderboard"] == told["after"]["leaderboard"]
    assert operations.results()["left_out"] == ["eve"]
    assert {row["first"] for row in now["pairs_of_people"]} == {"ann"}
    assert told["after"]["votes"] < told["before"]["votes"]
    assert next(row for row in now["people"] if row["name"] == "eve")["figures"]["agrees"] is None
    operations.set_weight("bob", 0.5)
    assert operations.undo_weight() == {"name": "bob", "weight": 1.0, "before": 0.5}
    assert operations.undo_weight(by="otto")["name"] == "eve"
    assert operations.people()["agreement"] == before
    changes = operations.people()["changes"]
    assert [row["undone_at"] is not None for row in changes] == [True, True]
    assert [changes[1][name] for name in ("reason", "changed_by", "undone_by")] == [
        "votes by chance", "rita", "otto",
    ]  # fmt: skip
    assert changes[0]["changed_by"] is None
    with pytest.raises(ConflictError, match="left to take back"):
        operations.undo_weight()
    for name, weight, error in (("nobody", 0.5, NotFoundError), ("ann", 1.5, InvalidError),
                                ("ann", float("nan"), InvalidError)):  # fmt: skip
        with pytest.raises(error):
            operations.set_weight(name, weight)
        with pytest.raises(error):
            operations.weight_effect(name, weight)


def test_weights_and_versions_reach_the_leaderboard_and_judges_do_not(desk: Services) -> None:
    rows = [vote(f"pair{i:04d}", who, "b", i) for i in range(6, 11) for who in ("ann", "bob")]
    rows += [vote(f"pair{i:04d}", "eve", "a", i) for i in range(6, 11)]
    rows += [vote("pair0011", "eve", "b"), vote("pair0006", "ann", "a", 99, repeat=True)]
    put(desk, *rows)
    put(desk, *[vote(f"pair{i:04d}", "judge", "a", simulated=True, source="simulate")
                for i in range(6, 11)])  # fmt: skip
    found = desk.operations.results()
    board = {row["version"]: row for row in found["leaderboard"]}
    assert set(board) == {"policy_v1", "policy_v2"}  # neither gold nor repeats are in it
    assert board["policy_v2"]["votes"] == 15 and board["policy_v2"]["strength"] > 0
    dry = {row["version"]: row for row in found["simulated_leaderboard"]}
    assert dry["policy_v1"]["votes"] == 5 and dry["policy_v1"]["strength"] > 0
    desk.operations.set_weight("eve", 0.5)
    weighed = desk.operations.results()["leaderboard_about"]
    assert weighed["votes"] == 12.5
    assert found["votes_human"] == 17 and found["votes_simulated"] == 5
    only = [row for row in found["policy_behaviour"] if row["edits"]]
    assert only == []  # no policy version is registered in this workspace
    json.dumps(found, allow_nan=False), json.dumps(desk.operations.people(), allow_nan=False)


def test_comments_and_tags_are_found_as_they_were_typed(desk: Services) -> None:
    typed = '100%_sure "Größe" <b>$${x}</b>'
    put(desk, vote("pair0001", "ann", "a", 1, comment=typed, tags=["good flow"]),
        vote("pair0002", "bob", "b", 2, comment="groove lost", tags=["lost groove", "good flow"]),
        vote("pair0003", "bob", "b", 3, comment=""),
        vote("pair0004", "judge", "b", 4, comment="groove", simulated=True))  # fmt: skip
    taken_back = vote("pair0005", "bob", "b", 5, comment="groove, taken back")
    put(desk, taken_back, undo(taken_back))
    search = desk.operations.search_votes
    assert [row["comment"] for row in search()] == ["groove lost", typed]
    assert [row["comment"] for row in search("GRÖSSE")] == []
    assert [row["comment"] for row in search("größe")] == [typed]
    assert [row["comment"] for row in search("%_s")] == [typed]
    assert [row["pair_id"] for row in search("lost groove")] == ["pair0002"]
    assert [row["pair_id"] for row in search(tag="good flow")] == ["pair0002", "pair0001"]
    assert [row["pair_id"] for row in search(tag="good flow", annotator="ann")] == ["pair0001"]
    assert search("' OR 1=1 --") == []
    assert desk.operations.people()["tags"] == [{"tag": "good flow", "votes": 2},
                                                {"tag": "lost groove", "votes": 1}]  # fmt: skip
    with pytest.raises(InvalidError):
        search(limit=0)


def test_any_pair_is_found_by_song_version_or_id(desk: Services) -> None:
    cast_by_three(desk)
    find = desk.operations.find_pairs
    assert len(find()) == 12
    assert [row["pair_id"] for row in find("PAIR0007")] == ["pair0007"]
    assert find("pair0007")[0]["votes"] == 3
    assert {row["pair_id"] for row in find(version="policy_v2")} == {
        f"pair{i:04d}" for i in range(6, 11)
    }
    assert len(find("größe")) == 12 and find("broken")[0]["pool"] == "gold"
    assert find("%") == [] and len(find(limit=3)) == 3


def test_the_commands_print_what_the_page_shows(
    desk: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    cast_by_three(desk)
    put(desk, vote("pair0001", "ann", "a", 999, comment="rough \x1b[31m join", tags=["rough join"]))
    where = ["--workspace", str(desk.workspace.root)]
    results, people = desk.operations.results(), desk.operations.people()
    desk.close()

    def say(*words: str) -> str:
        assert main([*words, *where]) == 0
        return capsys.readouterr().out

    assert json.loads(say("results", "--json")) == json.loads(json.dumps(results))
    assert json.loads(say("people", "list", "--json")) == json.loads(json.dumps(people))
    table = say("results")
    assert "policy_v2" in table and "by people" in table and "resampled" in table
    assert "Krippendorff" in say("people", "list")
    assert "rough ?[31m join" in say("people", "comments", "--text", "ROUGH")
    assert "would" in say("people", "weigh", "eve", "0", "--dry-run")
    assert "before: 1" in say("people", "weigh", "eve", "0", "--reason", "by chance")
    assert "weight: 1" in say("people", "undo")
    listed = say("people", "list")
    assert listed.count("(command)") == 2 and "by chance" in listed  # who did it, who undid it
    assert say("people", "disable", "bob").startswith("name: bob")
    assert "pair0007" in say("pairs", "find", "--text", "pair0007")
    assert main(["people", "weigh", "nobody", "0", *where]) == 2
