"""Runs as processes: taken in once, found again, ended, resumed, chained, by fake commands."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, add_song, write_audio

from feedback_app import processes
from feedback_app.context import Context
from feedback_app.database import Row
from feedback_app.errors import AppError, ConflictError
from feedback_app.services import Services, open_services

FAKE = Path(__file__).with_name("fake_run.py")


def fake_commands(kind: str, settings: Row, context: Context) -> tuple[list[str], Row]:
    given: dict[str, Any] = dict(settings)
    if kind == "analyse":
        given["paths"] = [context.path(context.store.song(s)["path"]) for s in settings["songs"]]
    if kind == "generate":
        policy = context.store.policy(settings["policy"]) if settings.get("policy") else None
        policy = policy or context.store.active_policy() or {"version": "policy_v1"}
        given["of"] = [context.store.songs()[0]["song_id"], policy["version"]]
    if kind == "rank":  # newest first
        waiting = context.store.waiting_pairs(context.settings.votes_per_pair)
        given["waiting"] = [row["pair_id"] for row in reversed(waiting)]
    if kind == "train-policy":
        settings = settings | {"parent": "policy_v1"}
    if kind == "evaluate":
        settings = settings | {"evaluated_on": "test songs"}
    argv = [sys.executable, str(FAKE), kind, str(context.folder), json.dumps(given)]
    return argv, settings


def opened(root: Path, **settings: Any) -> Services:
    values = {"auto_generate": False, "auto_prepare": False, "nice": 0, "cancel_grace_s": 0.5}
    return open_services(root, commands=fake_commands, **(values | settings))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = opened(tmp_path / "workspace")
    made.operations.add_user("res", "researcher", PASSWORD)
    yield made
    made.close()


def wait(services: Services, done: Callable[[], bool], seconds: float = 18.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, services.operations.list_runs()
        services.jobs.poll()
        time.sleep(0.02)


def ended(services: Services, run_id: str) -> Row:
    def over() -> bool:
        return services.store.run(run_id)["state"] in ("finished", "failed", "cancelled")

    wait(services, over)
    return services.store.run(run_id)


def test_songs_are_taken_in_and_a_bad_one_harms_no_other(
    services: Services, tmp_path: Path
) -> None:
    write_audio(tmp_path / 'gut "ß" <script>.wav', 4.0, 1)
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    answer = services.operations.add_songs(
        [str(path) for path in tmp_path.iterdir() if path.suffix == ".wav"]
    )
    assert answer["added"] == 3 and answer["skipped"] == []
    assert ended(services, answer["run_id"])["state"] == "finished"
    songs = {song["title"]: song for song in services.operations.list_songs()}
    good = songs['gut "ß" <script>.wav']
    assert good["status"] == "ready" and good["n_beats"] == 32
    view = services.operations.song_view(good["song_id"])
    assert len(view["waveform"]) == 400 and len(view["beat_times"]) == 33
    for name in ("text.wav", "empty.wav"):
        assert songs[name]["status"] == "failed" and "cannot be read" in songs[name]["error"]
    again = services.operations.add_songs([str(tmp_path / 'gut "ß" <script>.wav')])
    assert again["run_id"] is None and "already" in again["skipped"][0]["reason"]


def test_pairs_are_taken_in_once_however_often_it_looks(services: Services) -> None:
    add_song(services)
    run_id = services.jobs.submit("generate", {"count": 3, "policy": None})
    ended(services, run_id)
    for _ in range(3):
        services.jobs.ingest._seen.clear()
        services.jobs.ingest.rows(services.store.run(run_id))
        services.jobs.poll()
    assert services.operations.pairs_overview() == {"open": 3, "done": 0, "total": 3}
    pair = services.store.pairs()[0]
    assert services.operations.original_audio(pair["pair_id"]).is_file()
    assert services.operations.edit_audio(pair["edit_a"]).is_file()


def test_a_failed_run_says_why_and_keeps_its_folder(services: Services) -> None:
    add_song(services)
    run = ended(services, services.jobs.submit("generate", {"count": 1, "fail": True}))
    assert run["state"] == "failed" and run["error"] == "the snapshot is empty; vote first"
    assert (services.jobs.folder(run) / "log.txt").is_file()
    run = ended(services, services.jobs.submit("generate", {"count": 1, "crash": True}))
    assert run["state"] == "failed" and "without a result" in run["error"]


def test_a_command_that_cannot_be_built_fails_in_words(tmp_path: Path) -> None:
    services = open_services(tmp_path / "w", auto_generate=False, auto_prepare=False)
    run_id = services.jobs.submit("imitation", {"seed": 0})
    run = services.store.run(run_id)
    assert run["state"] == "failed" and "no analysed song" in run["error"]
    services.close()


def test_one_run_of_a_kind_at_a_time(services: Services) -> None:
    add_song(services)
    first = services.jobs.submit("generate", {"count": 1, "slow": 10})
    second = services.jobs.submit("generate", {"count": 1})
    other = services.jobs.submit("evaluate", {"policy": "policy_v1", "slow": 10})
    states = {run["run_id"]: run["state"] for run in services.operations.list_runs()}
    assert (states[first], states[second], states[other]) == ("running", "queued", "running")
    services.operations.cancel_run(other)
    assert ended(services, second)["state"] == "finished"
    assert services.store.run(first)["state"] == "finished"


def test_cancel_ends_the_process_and_resume_starts_it_again(services: Services) -> None:
    add_song(services)
    run_id = services.jobs.submit("generate", {"count": 2, "slow": 1000})
    status = services.jobs.folder(services.store.run(run_id)) / "status.json"
    wait(services, status.exists)
    pid = services.store.run(run_id)["pid"]
    services.operations.cancel_run(run_id)
    assert ended(services, run_id)["state"] == "cancelled"
    assert processes.started_at(pid) is None
    with pytest.raises(ConflictError):
        services.operations.cancel_run(run_id)
    services.store.database.execute(
        "UPDATE runs SET settings = json_merge_patch(settings, '{\"slow\": 1}')"
    )
    again = services.operations.resume_run(run_id)["run_id"]
    assert ended(services, again)["state"] == "finished"


def test_a_queued_run_is_cancelled_without_starting(services: Services) -> None:
    add_song(services)
    first = services.jobs.submit("generate", {"count": 1, "slow": 20})
    second = services.jobs.submit("generate", {"count": 1})
    services.operations.cancel_run(second)
    assert services.store.run(second)["state"] == "cancelled"
    services.operations.cancel_run(first)
    assert ended(services, first)["state"] == "cancelled"


def test_a_run_survives_the_app_and_is_found_again(tmp_path: Path) -> None:
    services = opened(tmp_path / "w")
    add_song(services)
    run_id = services.jobs.submit("generate", {"count": 2, "slow": 12})
    services.close()
    again = opened(tmp_path / "w")
    assert again.store.run(run_id)["state"] == "running"
    assert ended(again, run_id)["state"] == "finished"
    assert again.operations.pairs_overview()["total"] == 2
    again.close()


def test_a_run_killed_while_the_app_was_down_is_failed(tmp_path: Path) -> None:
    services = opened(tmp_path / "w")
    add_song(services)
    run_id = services.jobs.submit("generate", {"count": 2, "slow": 1000})
    run = services.store.run(run_id)
    services.close()
    os.kill(run["pid"], signal.SIGKILL)
    child = services.jobs._children[run_id]
    child.wait()
    again = opened(tmp_path / "w")
    assert ended(again, run_id)["state"] == "failed"
    again.close()


def test_the_first_versions_and_a_round_end_to_end(tmp_path: Path) -> None:
    services = opened(tmp_path / "w", first_pairs=3)
    operations, song_id = services.operations, add_song(services)
    assert song_id
    with pytest.raises(AppError):
        operations.train_policy()
    run_id = operations.prepare()["run_id"]
    assert operations.prepare()["run_id"] is None
    wait(services, lambda: operations.pairs_overview()["total"] == 3)
    wait(services, lambda: not services.store.open_runs())
    assert [p["status"] for p in operations.list_policies()] == ["active"]
    rewards = operations.list_reward_models()
    assert [(r["version"], r["synthetic"]) for r in rewards] == [("reward_v0", True)]
    with pytest.raises(ConflictError):
        operations.run_round()
    votes = tmp_path / "votes.csv"
    pair = services.store.pairs()[0]["pair_id"]
    votes.write_text(f"pair_id,annotator,choice,strength\n{pair},zoe,a,2\n")
    assert operations.import_votes(str(votes)) == {"accepted": 1, "rejected": []}
    operations.run_round(total_steps=10)
    wait(services, lambda: len(operations.list_policies()) == 2 and not services.store.open_runs())
    version = operations.list_policies()[1]
    assert version["status"] == "proposed" and version["metrics"]["win_rate"] == 0.6
    installed = services.workspace.resolve(services.store.policy("policy_v2")["path"])
    assert installed.name == "policy_best.pt" and b"held-out" in installed.read_bytes()
    assert version["metrics"]["gate"] == {"verdict": "pass", "reasons": ["it is better"]}
    assert [r["version"] for r in operations.list_reward_models()] == ["reward_v0", "reward_v1"]
    assert operations.list_reward_models()[1]["status"] == "active"
    operations.promote("policy_v2")
    assert [p["status"] for p in operations.list_policies()] == ["retired", "active"]
    operations.roll_back()
    assert [p["status"] for p in operations.list_policies()] == ["active", "retired"]
    operations.reject("policy_v2")
    with pytest.raises(ConflictError):
        operations.reject("policy_v1")
    view = operations.run_view(run_id)
    assert view["progress"] == 1.0 and "fake_run.py" in view["command"] and view["next_run"]
    json.dumps([operations.results(), view, operations.list_runs(), operations.list_pairs()])
    services.close()


def test_new_pairs_are_made_when_the_pool_runs_low(tmp_path: Path) -> None:
    services = opened(
        tmp_path / "w", auto_generate=True, auto_prepare=True, low_water=2, generate_count=2,
        first_pairs=1,
    )  # fmt: skip
    add_song(services)
    services.operations.tick()
    wait(services, lambda: services.operations.pairs_overview()["total"] == 1)
    wait(services, lambda: not services.store.open_runs())
    services.operations.tick()
    wait(services, lambda: services.operations.pairs_overview()["total"] == 3)
    wait(services, lambda: not services.store.open_runs())
    services.operations.tick()
    assert not services.jobs.active("generate")
    services.close()
