"""What runs are told: retraining, its parent and whose votes; a dry run, its judge's manner."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from conftest import add_pairs, add_song

from feedback_app.commands import build
from feedback_app.context import Context
from feedback_app.database import utc_now
from feedback_app.errors import InvalidError
from feedback_app.json_columns import insert
from feedback_app.services import Services
from feedback_app.snapshots import write_snapshot
from rlhf_core.simulate_votes import build_parser


def add_reward(services: Services, version: str, snapshot: str | None) -> None:
    row = {
        "version": version, "path": f"models/{version}.pt", "run_id": None, "snapshot": snapshot,
        "status": "available", "synthetic": snapshot is None, "metrics": "{}", "n_votes": 0,
        "created_at": utc_now(),
    }  # fmt: skip
    services.store.database.write(lambda cursor: insert(cursor, "reward_models", row))


def add_policy(services: Services, version: str, run_settings: dict[str, object]) -> None:
    run = {
        "run_id": f"run_of_{version}", "kind": "train-policy", "argv": "[]", "folder": "runs/x",
        "state": "finished", "ingested": True, "created_at": utc_now(),
        "settings": json.dumps(run_settings),
    }  # fmt: skip
    policy = {
        "version": version, "path": f"models/{version}.pt", "parent": None,
        "run_id": f"run_of_{version}",
        "status": "proposed", "algorithm": "ppo", "metrics": "{}", "created_at": utc_now(),
    }  # fmt: skip
    write = services.store.database.write
    write(lambda cursor: (insert(cursor, "runs", run), insert(cursor, "policies", policy)))


def argv_of(services: Services, tmp_path: Path, **chain: str) -> list[str]:
    folder = tmp_path / "run"
    context = Context(services.store, services.workspace, services.settings, folder)
    return build("train-reward", {"seed": 1, "chain": chain}, context)[0]


def test_the_parent_and_its_votes_are_passed_on(services: Services, tmp_path: Path) -> None:
    add_song(services)
    pairs = add_pairs(services, 2)
    votes = tmp_path / "votes.csv"
    votes.write_text(f"pair_id,annotator,choice,strength\n{pairs[0]},zoe,a,2\n", "utf-8")
    services.operations.import_votes(str(votes))
    made = write_snapshot(services.store, services.workspace, False)
    add_reward(services, "reward_v0", None)
    assert "--parent" not in argv_of(services, tmp_path, reward_model="reward_v0")
    add_reward(services, "reward_v1", made.sha256)
    argv = argv_of(services, tmp_path, reward_model="reward_v1")
    given = dict(pairwise(argv))
    assert given["--parent"].endswith("models/reward_v1.pt")
    assert given["--parent_preferences"] == str(made.path) != given["--reward_model"]
    assert given["--reward_model"].endswith("models/reward_v0.pt")  # the prior's, as ever
    made.path.rename(tmp_path / "moved.parquet")
    votes.write_text(f"pair_id,annotator,choice,strength\n{pairs[1]},zoe,b,2\n", "utf-8")
    services.operations.import_votes(str(votes))
    assert "--parent_preferences" not in argv_of(services, tmp_path, reward_model="reward_v1")


def test_a_policy_is_judged_by_votes_that_its_training_did_not_see(
    services: Services, tmp_path: Path
) -> None:
    add_song(services)
    pair = add_pairs(services, 1)[0]
    votes = tmp_path / "votes.csv"
    votes.write_text(f"pair_id,annotator,choice,strength\n{pair},zoe,a,2\n", "utf-8")
    services.operations.import_votes(str(votes))
    snapshot = write_snapshot(services.store, services.workspace, False)
    add_reward(services, "reward_v1", snapshot.sha256)
    context = Context(services.store, services.workspace, services.settings, tmp_path / "run")
    ppo = {
        "algorithm": "ppo", "total_steps": 4000, "learned_weight": 0.8, "dense_weight": 0.2,
        "device": "cpu", "seed": 1, "reward_model": "reward_v1", "parent": "policy_v1",
    }  # fmt: skip
    add_policy(services, "policy_v1", {})
    alone, settings = build("train-policy", ppo, context)
    assert dict(pairwise(alone))["--reward_model"].endswith("models/reward_v1.pt")
    assert "withheld" not in settings, "there is no second reward"
    apart = services.workspace.models / "reward_model_training.pt"
    apart.write_bytes(b"")
    argv, settings = build("train-policy", ppo, context)
    assert dict(pairwise(argv))["--reward_model"] == str(apart)
    dpo = ppo | {"algorithm": "dpo", "on_votes": True}
    assert dict(pairwise(build("train-policy", dpo, context)[0]))["--withheld_share"] == "0.15"
    add_policy(services, "policy_v9", settings)
    given = dict(pairwise(build("evaluate", {"policy": "policy_v9"}, context)[0]))
    assert given["--preferences"] == str(snapshot.path)
    assert given["--reward_model"] == str(apart)
    assert given["--data_dir"] == str(tmp_path / "run" / "data")


def test_a_dry_run_passes_on_how_its_judge_answers(services: Services, tmp_path: Path) -> None:
    context = Context(services.store, services.workspace, services.settings, tmp_path / "run")
    add_song(services)
    settings = {"judge": "tight", "seed": 1, "noise": 0.5, "skip": 0.1, "chain": {"pairs_run": "x"}}
    argv = build("simulate", settings, context)[0]
    given = dict(pairwise(argv))
    assert (given["--noise"], given["--skip"], given["--lapse"]) == ("0.5", "0.1", "0.02")
    known = build_parser().parse_args(argv[argv.index("--pairs") :])
    assert (known.tie_margin, known.side_bias, known.both_bad) == (0.25, 0.0, 0.0)


def test_pairs_against_a_version_are_all_against_it(services: Services, tmp_path: Path) -> None:
    context = Context(services.store, services.workspace, services.settings, tmp_path / "run")
    add_song(services)
    add_policy(services, "policy_v1", {})
    add_policy(services, "policy_v2", {})
    submitted: list[dict[str, Any]] = []
    services.jobs.submit = lambda kind, settings: submitted.append(settings) or "r"  # type: ignore
    services.operations.generate_pairs(12, "policy_v2", "policy_v1")
    services.operations.generate_pairs(12, "policy_v2")
    against, usual = (dict(pairwise(build("generate", s, context)[0])) for s in submitted)
    shares = {pool: float(against[f"--share_{pool}"]) for pool in ("broad", "chosen", "cross")}
    assert shares == {"broad": 0, "chosen": 0, "cross": 1 - float(against["--share_gold"])}
    assert against["--versus_name"] == "policy_v1"
    assert float(usual["--share_broad"]) > 0 and "--versus" not in usual


def test_a_manner_that_cannot_be_is_refused_in_words(services: Services) -> None:
    with pytest.raises(InvalidError, match="shares between 0 and 1"):
        services.operations.simulate(skip=3.0)
