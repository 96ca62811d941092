"""In which order waiting pairs are given: by rank, by chance, across versions; and who ranks."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PLAIN, add_pairs, add_song
from test_jobs import opened, wait

from feedback_app.errors import InvalidError
from feedback_app.services import Services, open_services
from feedback_app.settings import Settings
from feedback_app.votes import VoteForm

MADE = "reward_v1"


def filled(root: Path, pools: list[str], **settings: Any) -> Services:
    """A workspace with one pair of each named pool, in that order."""
    services = open_services(root, **(PLAIN | settings))
    add_song(services), add_pairs(services, 1)
    services.store.database.execute(
        "INSERT INTO pairs SELECT p.* REPLACE (format('pair{:04d}', i) AS pair_id)"
        " FROM pairs AS p, range(1, ?) AS t(i)",
        [len(pools)],
    )
    services.store.database.execute(
        "UPDATE pairs SET pool = list_extract(?, pair_id[5:]::INTEGER + 1)", [pools]
    )
    return services


def rank(services: Services, order: list[int]) -> None:
    """As a ranking run would: the pairs of these numbers, best first."""
    run = {"run_id": "rank-1", "settings": {"reward_model": MADE}}
    rows = [
        {"pair_id": f"pair{number:04d}", "information": 0.5 / (1 + place), "place": place}
        for place, number in enumerate(order)
    ]
    services.store.database.write(lambda cursor: services.store.put_scores(cursor, run, rows))


def sitting(services: Services, name: str, count: int) -> list[dict[str, Any]]:
    """The assignments of one listener's next pairs, in the order in which they were given."""
    seen = []
    for number in range(count):
        given = services.annotation.next(name).result()
        if given is None:
            break
        form = VoteForm(f"00000000-0000-0000-{len(name):04x}-{number:012d}", given["assignment_id"],
                        "left")  # fmt: skip
        services.annotation.vote(name, form).result()
        seen.append(given)
    return seen


def test_ranked_pairs_come_best_first_and_a_new_ranking_is_followed(tmp_path: Path) -> None:
    services = filled(tmp_path, ["chosen"] * 6, assign_score=0.98, assign_random=0.01,
                      assign_cross=0.01)  # fmt: skip
    rank(services, [3, 1, 5, 0, 2, 4])
    first = sitting(services, "ann", 2)
    assert [row["pair_id"] for row in first] == ["pair0003", "pair0001"]
    assert [(row["reason"], row["information"]) for row in first] == [
        ("score", 0.5), ("score", 0.25)]  # fmt: skip
    rank(services, [4, 2, 0])  # ann has been given the next one of the old ranking with her vote
    third = [row["pair_id"] for row in sitting(services, "anne", 9)]
    assert third == ["pair0004", "pair0002", "pair0000"]
    kept = services.store.database.rows("SELECT reason FROM assignments")
    assert len(kept) == 6 and all(row["reason"] == "score" for row in kept)
    assert services.store.reasons() == [
        {"reason": "score", "pool": "chosen", "given": 6, "voted": 5}
    ]
    services.close()


def test_shares_are_kept_and_random_pairs_never_look_at_a_score(tmp_path: Path) -> None:
    """Random pairs come in an order that has nothing to do with any score, even if they had one."""
    pools = ["chosen", "random", "broad", "cross"] * 60
    services = filled(tmp_path, pools, assign_score=0.5, assign_random=0.3, assign_cross=0.2)
    rank(services, list(range(239, -1, -1)))  # every pair, whatever its pool
    given = sitting(services, "ann", 100)
    reasons = Counter(row["reason"] for row in given)
    for reason, share in (("score", 50), ("random", 30), ("cross", 20)):  # 4.5 deviations
        assert abs(reasons[reason] - share) < 4.5 * (share * (100 - share) / 100) ** 0.5
    numbers: dict[str, list[int]] = {}
    for row in given:
        numbers.setdefault(row["reason"], []).append(int(row["pair_id"].removeprefix("pair")))
    assert numbers["score"] == sorted(numbers["score"], reverse=True)
    assert {pools[one] for one in numbers["score"]} == {"chosen", "broad"}
    for reason in ("random", "cross"):
        assert {pools[one] for one in numbers[reason]} == {reason}
        assert numbers[reason] != sorted(numbers[reason], reverse=True), "by chance"
    services.close()


def test_each_random_pair_is_equally_likely_whatever_the_scores(tmp_path: Path) -> None:
    """The first random pair of many listeners: even over the pairs (chi-square, 1 in 10,000)."""
    services = filled(tmp_path, ["random"] * 5 + ["chosen"] * 40, votes_per_pair=1000,
                      assign_score=0.01, assign_random=0.98, assign_cross=0.01)  # fmt: skip
    rank(services, list(range(45)))
    pool = services.annotation._desk.pool
    services.annotation.next("warm").result()
    counts = Counter(pool.shelves.drawn(0, "random", set(), pool.rng) for _ in range(2000))
    left = [counts[f"pair{number:04d}"] for number in range(5)]
    held = services.store.database.row("SELECT pair_id FROM assignments")
    expected = 2000 / sum(one > 0 for one in left)
    chi = sum((one - expected) ** 2 / expected for one in left if one > 0)
    assert chi < 23.5, left
    assert held is not None and sum(one == 0 for one in left) <= 1, "only the one that is held"
    assert set(counts) <= {f"pair{number:04d}" for number in range(5)}
    services.close()


def test_begun_pairs_are_finished_first_and_nobody_gets_one_twice(tmp_path: Path) -> None:
    services = filled(tmp_path, ["chosen", "random", "cross", "broad"] * 3, votes_per_pair=2)
    rank(services, [0, 4, 8, 3, 7, 11])
    sitting(services, "ann", 5)
    begun = {row["pair_id"] for row in services.store.database.rows("SELECT * FROM assignments")}
    second = [row["pair_id"] for row in sitting(services, "bobby", 12)]
    assert len(begun) == 6 and set(second[:6]) == begun and len(set(second)) == len(second) == 12
    services.close()


def test_without_a_ranking_chance_decides_and_says_so(tmp_path: Path) -> None:
    services = filled(tmp_path, ["chosen"] * 4)
    assert [row["reason"] for row in sitting(services, "ann", 4)] == ["random"] * 4
    services.close()
    services = filled(tmp_path / "off", ["chosen"] * 4, assign_score=0.0, assign_random=0.85)
    rank(services, [0, 1, 2, 3])
    assert {row["reason"] for row in sitting(services, "ann", 4)} == {"random"}
    services.close()


@pytest.mark.parametrize(
    "values",
    [
        {"assign_score": 0.9},
        {"assign_score": 1.0, "assign_random": 0.0, "assign_cross": 0.0},
        {"assign_score": 1.2, "assign_random": -0.3, "assign_cross": 0.1},
    ],
)
def test_shares_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidError, match="assign_"):
        Settings(**values)


def reward_model(services: Services, version: str) -> None:
    services.store.database.execute("UPDATE reward_models SET status = 'available'")
    services.store.database.execute(
        "INSERT INTO reward_models (version, path, status, synthetic, created_at)"
        " VALUES (?, 'models/none.pt', 'active', true, now()::TIMESTAMP)", [version]
    )  # fmt: skip


def test_the_app_ranks_again_for_a_new_reward_model_and_for_new_pairs(tmp_path: Path) -> None:
    services = opened(tmp_path / "w", **(PLAIN | {"assign_score": 0.9, "assign_random": 0.05,
                                                   "assign_cross": 0.05}))  # fmt: skip
    add_song(services), add_pairs(services, 6)
    services.store.database.execute("UPDATE pairs SET pool = 'chosen' WHERE pair_id > 'pair0001'")

    def runs() -> list[dict[str, Any]]:
        services.operations.tick()
        wait(services, lambda: not services.store.open_runs())
        services.operations.tick()
        return [run for run in services.store.runs(20) if run["kind"] == "rank"]

    assert runs() == [], "there is no reward model"
    reward_model(services, "reward_v1")
    assert [run["settings"]["reward_model"] for run in runs()] == ["reward_v1"]
    found = services.store.database.rows("SELECT * FROM pair_scores ORDER BY place")
    assert [row["pair_id"] for row in found] == ["pair0005", "pair0004", "pair0003", "pair0002"]
    assert {row["reward_model"] for row in found} == {"reward_v1"}
    assert len(runs()) == 1, "once is enough"
    assert sitting(services, "ann", 1)[0]["pair_id"] != "pair0002"
    reward_model(services, "reward_v2")
    assert len(runs()) == 2
    left = services.store.database.rows("SELECT reward_model FROM pair_scores")
    assert Counter(row["reward_model"] for row in left)["reward_v2"] >= 3, "what still waits"
    services.store.database.execute(
        "UPDATE pairs SET pool = 'broad', created_at = now()::TIMESTAMP + INTERVAL 1 HOUR"
        " WHERE pair_id = 'pair0000'"
    )
    assert len(runs()) == 3
    services.close()


def test_the_file_that_is_ranked_holds_what_the_command_reads(tmp_path: Path) -> None:
    from feedback_app.commands import build
    from feedback_app.context import Context

    services = filled(tmp_path / "w", ["chosen", "random", "broad"])
    reward_model(services, "reward_v1")
    folder = tmp_path / "w" / "runs" / "rank-1"
    folder.mkdir(parents=True)
    argv, settings = build(
        "rank", {}, Context(services.store, services.workspace, services.settings, folder)
    )
    assert settings["reward_model"] == "reward_v1" and settings["pairs"] == 2
    lines = Path(argv[argv.index("--pairs") + 1]).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["pair_id"] for row in rows] == ["pair0000", "pair0002"]
    assert rows[0]["passage"] == {"start_beat": 0, "end_beat": 32}
    assert sum(rows[0]["edit_a"]["actions"]) == 1 and len(rows[0]["edit_b"]["actions"]) == 32
    services.close()
