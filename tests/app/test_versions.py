"""Versions: lineage, promotion of simulated ones, deletion, examples; dry runs as a whole.

Runs are played by fake commands; all votes here are made up.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, add_song, client_of
from test_jobs import fake_commands, wait

from feedback_app.commands import BUILDERS
from feedback_app.context import Context
from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.services import Services, open_services
from feedback_app.snapshots import write_snapshot
from rlhf_core.runs import read_lines


def commands(kind: str, settings: Row, context: Context) -> tuple[list[str], Row]:
    """The fake commands, with what versions and dry runs ask of them."""
    store, given = context.store, dict(settings)
    chain = given.get("chain") or {}
    if kind == "train-policy":
        active = store.active_policy()
        parent = chain.get("policy") or (active and active["version"])
        reward = chain.get("reward_model") or (store.active_reward_model() or {}).get("version")
        argv, _ = fake_commands(kind, given, context)
        return argv, given | {"parent": parent, "reward_model": reward}
    if kind == "train-reward":
        simulated = bool(given.get("include_simulated"))
        made = write_snapshot(store, context.workspace, simulated, chain.get("dry_run"))
        given |= {"snapshot": made.sha256, "n_votes": made.rows}
        return fake_commands(kind, given, context)
    if kind == "examples":
        policy = store.policy(given.get("policy") or chain["policy"])
        given |= {"policy": policy["version"], "song": store.songs()[0]["song_id"]}
        given["versus"] = given.get("versus") or policy["parent"]
    if kind == "simulate":
        rows = read_lines(context.workspace.runs / chain["pairs_run"] / "pairs.jsonl")
        argv, _ = fake_commands(kind, given | {"pairs": [row["pair_id"] for row in rows]}, context)
        return argv, given
    if kind == "evaluate" and chain.get("dry_run"):
        decision = "reject" if given["round"] == 2 else "accept"
        return fake_commands(kind, given | {"decision": decision}, context)
    return fake_commands(kind, given, context)


SETTINGS: dict[str, Any] = {
    "auto_generate": False, "auto_prepare": False, "nice": 0, "first_pairs": 3,
    "version_examples": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a song, two human votes, reward_v1 and policy_v2 proposed; closed."""
    root = tmp_path_factory.mktemp("prepared")
    made = open_services(root / "w", commands=commands, **SETTINGS)
    made.operations.add_user("res", "researcher", PASSWORD)
    made.operations.add_user("ann", "annotator", PASSWORD)
    add_song(made)
    made.operations.prepare()
    settle(made)
    pairs = [pair["pair_id"] for pair in made.store.pairs()]
    lines = [f"{pair},zoe,{choice},2" for pair, choice in zip(pairs, "ab", strict=False)]
    (root / "votes.csv").write_text("\n".join(["pair_id,annotator,choice,strength", *lines]))
    made.operations.import_votes(str(root / "votes.csv"))
    made.operations.run_round(total_steps=10, seed=7)
    settle(made)
    made.close()
    return root / "w"


@pytest.fixture
def services(prepared: Path, tmp_path: Path) -> Iterator[Services]:
    """A copy of it, open."""
    shutil.copytree(prepared, tmp_path / "w")
    made = open_services(tmp_path / "w", commands=commands, **SETTINGS)
    yield made
    made.close()


def settle(services: Services) -> None:
    wait(services, lambda: not services.store.open_runs(), 400.0)


def policies(services: Services) -> dict[str, Row]:
    return {row["version"]: row for row in services.operations.list_policies()}


def rewards(services: Services) -> dict[str, Row]:
    return {row["version"]: row for row in services.operations.list_reward_models()}


def human_side(services: Services) -> dict[str, Any]:
    """What people's figures and pools are made of."""
    snapshot = write_snapshot(services.store, services.workspace, include_simulated=False)
    found = services.operations.results()
    return {
        "snapshot": (snapshot.sha256, snapshot.rows),
        "pool": services.operations.pairs_overview(),
        "pairs": [row["pair_id"] for row in services.operations.list_pairs()],
        "votes": found["votes_human"],
        "leaderboard": found["leaderboard"],
        "active": (
            services.store.active_policy()["version"],
            services.store.active_reward_model()["version"],
        ),
    }


def test_a_version_says_where_it_came_from(services: Services) -> None:
    row = policies(services)["policy_v2"]
    assert (row["parent"], row["reward_model"], row["seed"]) == ("policy_v1", "reward_v1", 7)
    assert row["settings"]["total_steps"] == 10 and row["settings"]["algorithm"] == "ppo"
    assert row["code_version"] and not row["simulated"] and row["dry_run"] is None
    reward = rewards(services)["reward_v1"]
    snapshot = services.workspace.snapshots / f"{reward['snapshot']}.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM '{snapshot}'").fetchone() == (2,)
    view = services.operations.version_view("policy_v2")
    assert view["kind"] == "policy" and view["curves"]
    json.dumps(view)


def test_examples_are_of_the_same_passage_and_only_researchers_hear_them(
    services: Services,
) -> None:
    found = services.operations.version_view("policy_v2")["examples"]
    assert len(found["rows"]) == 2
    assert found["rows"][0]["policies"] == {"a": "policy_v2", "b": "policy_v1"}
    assert services.operations.pairs_overview()["total"] == 3  # none of them is a pair to vote on
    url = f"/research/example/{found['run_id']}/0/a"
    assert client_of(services, "res").get(url).status_code == 200
    assert client_of(services, "ann").get(url).status_code == 403
    assert client_of(services).get(url).status_code == 401
    for wrong in (f"{found['run_id']}/9/a", f"{found['run_id']}/0/x", "no-run/0/a"):
        assert client_of(services, "res").get(f"/research/example/{wrong}").status_code == 404
    other = next(r["run_id"] for r in services.operations.list_runs() if r["kind"] == "generate")
    assert client_of(services, "res").get(f"/research/example/{other}/0/a").status_code == 404


def test_any_two_versions_of_a_kind_are_compared(services: Services) -> None:
    found = services.operations.compare("policy_v2", "policy_v1")
    assert found["left"]["version"] == "policy_v2" and found["examples"]["rows"]
    assert services.operations.compare("reward_v0", "reward_v1")["examples"] is None
    with pytest.raises(InvalidError, match="one kind"):
        services.operations.compare("policy_v2", "reward_v1")
    with pytest.raises(NotFoundError):
        services.operations.compare("policy_v2", "policy_v9")


def test_a_version_in_use_is_not_deleted_and_says_why(services: Services) -> None:
    operations = services.operations
    with pytest.raises(ConflictError) as error:
        operations.delete_version("policy_v1", confirmed=True)
    for reason in ("it is active", "policy_v2 came from it", "votes on 2 pair(s)"):
        assert reason in str(error.value)
    for version, reason in (("reward_v1", "policy_v2 came from it"), ("reward_v0", "starts from")):
        with pytest.raises(ConflictError, match=reason):
            operations.delete_version(version, confirmed=True)
    operations.promote("policy_v2")
    operations.generate_pairs(1)
    settle(services)
    operations.roll_back()
    with pytest.raises(ConflictError, match="wait for votes"):
        operations.delete_version("policy_v2", confirmed=True)


def test_a_version_is_deleted_with_its_files_and_its_name_is_not_given_again(
    services: Services,
) -> None:
    operations, workspace = services.operations, services.workspace
    row = policies(services)["policy_v2"]
    run = services.jobs.folder(services.store.run(row["run_id"]))
    examples = operations.version_view("policy_v2")["examples"]["run_id"]
    told = operations.delete_version("policy_v2")
    assert not told["deleted"] and told["bytes"] > 0 and "policy_v2" in policies(services)
    told = operations.delete_version("policy_v2", confirmed=True)
    assert told["deleted"] and told["files"] >= 2
    assert not (workspace.models / "policy_v2").exists()
    assert not list((run / "models").glob("*.pt"))
    assert (run / "log.txt").is_file() and (run / "metrics.jsonl").is_file()
    assert not list((workspace.runs / examples / "audio").rglob("*.flac"))
    assert list(policies(services)) == ["policy_v1"]
    for wrong in (operations.promote, operations.reject, operations.version_view):
        with pytest.raises(NotFoundError, match="deleted"):
            wrong("policy_v2")
    operations.train_policy(total_steps=10)
    settle(services)
    assert list(policies(services)) == ["policy_v1", "policy_v3"]


def test_a_reward_of_simulated_votes_does_not_become_active_by_itself(services: Services) -> None:
    operations = services.operations
    operations.retrain_reward(include_simulated=True)
    settle(services)
    row = rewards(services)["reward_v2"]
    assert row["simulated"] and row["status"] == "available"
    assert rewards(services)["reward_v1"]["status"] == "active"
    with pytest.raises(ConflictError, match="simulated"):
        operations.promote("reward_v2")
    operations.promote("reward_v2", simulated=True)
    assert rewards(services)["reward_v2"]["status"] == "active"
    with pytest.raises(ConflictError, match="active"):
        operations.reject("reward_v2")
    operations.train_policy(total_steps=10)
    settle(services)
    assert policies(services)["policy_v3"]["simulated"]  # its reward was
    with pytest.raises(ConflictError, match="simulated"):
        operations.promote("policy_v3")
    operations.promote("reward_v1")
    operations.reject("reward_v2")
    assert rewards(services)["reward_v2"]["status"] == "rejected"


def test_a_rebuilt_bootstrap_is_what_the_next_rewards_start_from(services: Services) -> None:
    operations = services.operations
    with pytest.raises(InvalidError, match="steps is 0"):
        operations.rebuild_bootstrap(steps=0)
    run_id = operations.rebuild_bootstrap(demo_songs=3, steps=20)["run_id"]
    settle(services)
    made = rewards(services)["reward_v2"]
    assert made["synthetic"] and made["status"] == "available"
    assert rewards(services)["reward_v1"]["status"] == "active"  # people taught it
    assert services.store.bootstrap_reward_model()["version"] == "reward_v2"
    run = services.store.run(run_id)
    folder = services.workspace.resolve(run["folder"])
    context = Context(services.store, services.workspace, services.settings, folder)
    argv, _ = BUILDERS["bootstrap"](dict(run["settings"]), context)
    said = dict(pairwise(argv))
    assert (said["--demo_songs"], said["--steps"], said["--time_limit"]) == ("3", "20", "0")
    argv, _ = BUILDERS["train-reward"]({"include_simulated": False}, context)
    assert argv[argv.index("--reward_model") + 1].endswith("reward_v2/policy_final.pt")
    operations.reject("reward_v2")
    assert services.store.bootstrap_reward_model()["version"] == "reward_v0"


def test_a_dry_run_mixes_with_nothing_and_goes_without_a_trace(services: Services) -> None:
    operations, before = services.operations, human_side(services)
    tables = ("runs", "pairs", "edits", "votes", "policies", "reward_models", "annotators")
    counts = {t: services.store.database.row(f"SELECT count(*) AS n FROM {t}") for t in tables}
    started = operations.simulate("heard_even", rounds=3, votes=2, total_steps=10, seed=3)
    settle(services)
    assert human_side(services) == before
    assert operations.queue() == []
    (view,) = operations.dry_runs()
    json.dumps(view)
    assert (view["dry_run"], view["state"], view["progress"]) == ("dry1", "finished", 1.0)
    assert view["dry_run"] == started["dry_run"] and view["began_with"] == "policy_v1"
    first, second, third = view["rounds"]
    assert (first["policy"], first["parent"]) == ("dry1_policy_v1", "policy_v1")
    assert (second["policy"], second["parent"]) == ("dry1_policy_v2", "dry1_policy_v1")
    # as the gate would have it: the second was worse than its parent, so the third begins there
    assert [row["verdict"] for row in view["rounds"]] == ["pass", "fail", "pass"]
    assert third["parent"] == "dry1_policy_v1"
    assert [row["n_votes"] for row in view["rounds"]] == [2, 4, 6]  # its own votes, no others
    assert first["accuracy"] == 0.7 and first["judge_parent"]["low"] == 0.6
    assert view["seconds"] > 0
    assert policies(services)["dry1_policy_v2"]["dry_run"] == "dry1"
    with pytest.raises(ConflictError, match="simulated votes"):
        operations.promote("dry1_policy_v2")
    with pytest.raises(ConflictError, match="dry run"):
        operations.delete_version("dry1_policy_v2", confirmed=True)
    operations.train_policy(total_steps=10)
    settle(services)
    assert "policy_v3" in policies(services)  # numbers of people's versions go on
    assert not policies(services)["policy_v3"]["simulated"]
    operations.delete_version("policy_v3", confirmed=True)
    folders = {path.name for path in services.workspace.runs.iterdir()}
    removed = operations.remove_dry_run("dry1")
    assert removed == {"dry_run": "dry1", "runs": 18, "pairs": 6, "votes": 6, "versions": 6}
    assert operations.dry_runs() == [] and human_side(services) == before
    left = {t: services.store.database.row(f"SELECT count(*) AS n FROM {t}") for t in tables}
    counts["runs"]["n"] += 3  # training, evaluation, examples of policy_v3
    counts["policies"]["n"] += 1
    assert left == counts
    gone = folders - {path.name for path in services.workspace.runs.iterdir()}
    assert len(gone) == 18
    assert not list(services.workspace.models.glob("dry1*"))
    with pytest.raises(NotFoundError):
        operations.remove_dry_run("dry1")


def test_a_dry_run_is_cancelled_and_kept_while_people_rest_on_it(services: Services) -> None:
    operations = services.operations
    name = operations.simulate("tight", rounds=20, votes=2, total_steps=10)["dry_run"]
    wait(services, lambda: "dry1_policy_v1" in policies(services), 400.0)
    with pytest.raises(ConflictError, match="still going on"):
        operations.remove_dry_run(name)
    operations.cancel_dry_run(name)
    settle(services)
    assert operations.dry_run_view(name)["state"] == "cancelled"
    operations.promote("dry1_policy_v1", simulated=True)
    with pytest.raises(ConflictError, match="dry1_policy_v1 is active"):
        operations.remove_dry_run(name)
    operations.roll_back()
    operations.remove_dry_run(name)
    for wrong in ({"judge": "nobody"}, {"rounds": 0}, {"votes": 9999}, {"noise": -1}):
        with pytest.raises(InvalidError):
            operations.simulate(**wrong)


def test_the_queue_says_what_waits_for_what(services: Services) -> None:
    operations = services.operations
    services.store.database.execute("UPDATE runs SET ingested = true")
    first = services.jobs.submit("generate", {"count": 1, "slow": 1000})
    second = services.jobs.submit("generate", {"count": 1})
    policy = operations.train_policy(total_steps=10)["run_id"]
    rows = {row["run_id"]: row for row in operations.queue()}
    assert rows[first]["state"] == "running" and rows[first]["why"] == ""
    assert rows[second]["why"] == f"waiting for {first}"
    assert operations.run_view(second)["message"] == f"waiting for {first}"
    assert rows[policy]["then"] == ["evaluate", "examples"]
    operations.cancel_run(second)
    assert second not in {row["run_id"] for row in operations.queue()}
    operations.cancel_run(first)
    settle(services)


def test_votes_on_pairs_of_both_settle_the_gate_s_verdict(
    services: Services, tmp_path: Path
) -> None:
    """Twelve pairs, three listeners: a pair counts once, for whom its weightier votes are."""

    def verdict() -> Row:
        return dict(policies(services)["policy_v2"]["metrics"]["gate"])

    def vote(name: str, choice: str, pairs: list[str]) -> None:
        lines = [f"{pair},{name},{choice},1" for pair in pairs]
        (tmp_path / "v.csv").write_text("\n".join(["pair_id,annotator,choice,strength", *lines]))
        told = services.operations.import_votes(str(tmp_path / "v.csv"))
        assert told["accepted"] == len(pairs)

    before, pair = verdict(), services.store.pairs()[-1]["pair_id"]
    services.store.database.execute(
        "UPDATE edits SET policy = 'policy_v2' WHERE edit_id ="
        " (SELECT edit_a FROM pairs WHERE pair_id = ?)",
        [pair],
    )
    services.store.database.execute(
        "INSERT INTO pairs SELECT p.* REPLACE ('again' || i AS pair_id)"
        " FROM (FROM pairs WHERE pair_id = ?) AS p, range(12) AS t(i)",
        [pair],
    )
    assert verdict() == before  # nobody voted on them
    pairs = [f"again{number}" for number in range(12)]
    for name in ("light", "lighter"):
        vote(name, "b", pairs[:9])
    gate = verdict()
    assert gate["verdict"] == before["verdict"] and "10 are needed" in gate["reasons"][0]
    vote("heavy", "a", pairs[:9])
    for name in ("light", "lighter"):
        vote(name, "b", pairs[9:])
    gate = verdict()
    assert gate["verdict"] == "fail" and gate["reasons"][1:] == before["reasons"]
    assert gate["reasons"][0].startswith("0 of 12 pairs of both")
    services.operations.reject("policy_v2")
    assert verdict() == gate, "the votes stay said when it is decided"
    for name in ("light", "lighter"):
        services.operations.set_weight(name, 0.4, "a test")
    assert verdict()["reasons"][0].startswith("9 of 12 pairs of both")
