"""A full disk during a vote, a render, a checkpoint, an export: words, nothing half, then on.

Each scenario runs in a process of its own on a real full disk, a tmpfs of 40 MB in a mount
namespace (needs `unshare -rm`). Where that is not allowed, votes, checkpoint, render and export run
under a limit on the size of files, which fails their writes in the middle as well; what needs a
disk that is really full (DuckDB giving the database up, the reserve of room) is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("disk_full.py")


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs -o size=1m tmpfs /mnt"
    return (
        subprocess.run(["unshare", "-rm", "sh", "-c", probe], capture_output=True).returncode == 0
    )


MOUNTS = can_mount()
FREE = "0 MB are free" if MOUNTS else "MB are free"
on_tmpfs = pytest.mark.skipif(not MOUNTS, reason="no tmpfs may be mounted here")


def told_by(scenario: str, folder: Path, *, limit: bool = False) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), scenario, str(folder)]
    if not limit:
        mount = 'mount -t tmpfs -o size=40m tmpfs "$0" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, str(folder), *command]
    env = dict(os.environ) | ({"BY_LIMIT": "1"} if limit else {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def votes_went_on(told: dict[str, Any]) -> None:
    assert len(told["refused"]) == 3
    for words in told["refused"]:
        assert words.startswith("StorageError: preferences.duckdb could not be written")
        assert "Nothing was stored. Make room on the disk" in words
    assert told["readable"] and told["stored"] and told["kept"]


@on_tmpfs
@pytest.mark.parametrize("scenario", ["log", "fatal", "reserve"])
def test_votes_on_a_full_disk(tmp_path: Path, scenario: str) -> None:
    """The log cannot grow; DuckDB gives the database up; the reserve refuses before either."""
    told = told_by(scenario, tmp_path)
    votes_went_on(told)
    if scenario == "log":
        assert told["cast"] > 0 and "No space left" in told["refused"][0]
    if scenario == "fatal":
        assert "FATAL" in " ".join(told["refused"])
    if scenario == "reserve":
        assert told["cast"] == 0 and "min_free_mb" in told["refused"][0]


@on_tmpfs
@pytest.mark.parametrize("scenario", ["served", "served reserve"])
def test_votes_on_a_full_disk_under_a_served_database(tmp_path: Path, scenario: str) -> None:
    pytest.importorskip("duckdb_extension_quack", reason="the Quack extension is not installed")
    told = told_by(scenario, tmp_path)
    assert len(told["refused"]) == 3 and told["kept"]
    # the page keeps a vote that is answered 503, which both are, and sends it again
    unavailable = ("StorageError: ", "WorkspaceError: ")
    assert all(words.startswith(unavailable) for words in told["refused"]), told["refused"]
    if scenario == "served reserve":
        assert told["cast"] == 0 and "min_free_mb" in told["refused"][0]
    else:
        assert told["ended"] == 2


def test_votes_when_a_file_may_not_grow(tmp_path: Path) -> None:
    told = told_by("log", tmp_path, limit=True)
    votes_went_on(told)
    assert "File too large" in told["refused"][0]


def test_a_checkpoint_on_a_full_disk_leaves_the_older_one(tmp_path: Path) -> None:
    told = told_by("checkpoint", tmp_path, limit=not MOUNTS)
    assert "could not be written" in told["told"] and FREE in told["told"]
    assert told["kept"] == 1000 and told["names"] == ["x.pt"] and told["after"] == 1_000_000


def test_a_render_on_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    told = told_by("render", tmp_path, limit=not MOUNTS)
    assert "cannot be written" in told["told"] and FREE in told["told"]
    assert told["names"] == [] and told["after"] == 441_000


def test_an_export_on_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    told = told_by("export", tmp_path, limit=not MOUNTS)
    early = {f"{form} 8000" for form in ("parquet", "csv", "jsonl", "trl")}
    assert set(told["told"]) == early | {"csv 100000", "jsonl 100000"}
    assert all("be written" in words for words in told["told"].values()), told["told"]
    assert all("the export" in told["told"][f"{form} 100000"] for form in ("csv", "jsonl"))
    assert told["names"] == [] and told["rows"] == 100
