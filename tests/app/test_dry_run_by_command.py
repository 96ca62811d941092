"""A dry run for real, by commands alone: judges who listen, PPO, gate; then not a trace of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.test_round import app
from tests.rounds import make_song


@pytest.mark.long
def test_a_dry_run_by_command_leaves_nothing_behind(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    app(workspace, "songs", "add", str(make_song(tmp_path)))
    before = app(workspace, "status"), app(workspace, "versions")
    files = {path.name for path in (workspace / "runs").iterdir()}
    options = ("--judge", "heard_big_finish", "--votes", "8", "--total-steps", "2048")
    app(workspace, "simulate", *options)
    told = app(workspace, "dry-runs", "list")
    assert "dry1 (simulated): finished" in told and "judge=heard_big_finish" in told
    assert "judge prefers dry1_policy_v1 to its parent" in told
    assert "dry1_reward_v1" in app(workspace, "versions")
    assert "simulated votes" in app(workspace, "promote", "dry1_policy_v1", ok=False)
    assert "no votes to learn from" in app(workspace, "retrain-reward", ok=False)
    assert app(workspace, "compare", "dry1_policy_v1", "policy_v1").count("* ") > 3
    app(workspace, "dry-runs", "remove", "dry1")
    assert (app(workspace, "status"), app(workspace, "versions")) == before
    assert {path.name for path in (workspace / "runs").iterdir()} == files
