"""A launcher before a run's command: a stand-in prefix, a shell word, and torchrun for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from feedback_app import processes
from feedback_app.context import Context
from feedback_app.database import Row
from feedback_app.errors import InvalidError
from feedback_app.services import Services, open_services

TOGETHER = """
import sys, time
from pathlib import Path
import torch
from rlhf_core.reward.parallel import process_group, world
from rlhf_core.runs import RunFolder, running
with process_group() as rank:
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    if rank == 0:
        run = RunFolder(Path(sys.argv[1]), "generate")
        with running(run):
            (run.path / "workers").write_text(str(int(total)))
            time.sleep(float(sys.argv[2]))
            run.finish({"pairs": 0})
    else:
        time.sleep(float(sys.argv[2]))
"""


def opened(root: Path, script: str, *arguments: str, **settings: Any) -> Services:
    """A workspace whose every run is a script: its folder and the arguments are its own."""
    path = root / "script.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script, "utf-8")

    def build(kind: str, given: Row, context: Context) -> tuple[list[str], Row]:
        return [sys.executable, str(path), str(context.folder), *arguments], dict(given)

    values = {"auto_generate": False, "auto_prepare": False, "nice": 0, "cancel_grace_s": 15.0}
    kinds = ("generate",)
    return open_services(root / "w", commands=build, launcher_kinds=kinds, **(values | settings))


def ended(services: Services, run_id: str) -> Row:
    deadline = time.monotonic() + 60
    while (run := services.store.run(run_id))["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, services.operations.run_view(run_id)
        services.jobs.poll()
        time.sleep(0.05)
    return run


SCRIPT = """
import os, sys
from pathlib import Path
from rlhf_core.runs import RunFolder, running
run = RunFolder(Path(sys.argv[1]), "generate")
with running(run):
    run.finish({"pairs": 0, "niceness": os.nice(0), "argument": sys.argv[2]})
"""


@pytest.mark.parametrize(
    "launcher",
    [("nice", "-n", "7"), ("sh", "-c", "exec nice -n 7 {command}")],
    ids=["prefix", "shell word"],
)
def test_a_run_starts_behind_its_launcher(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    argument = 'it\'s <a> "b" $HOME'
    services = opened(tmp_path / "a folder's", SCRIPT, argument, launcher=launcher)
    run_id = services.jobs.submit("generate", {"count": 1})
    assert ended(services, run_id)["state"] == "finished"
    view = services.operations.run_view(run_id)
    before = os.nice(0)
    assert view["results"] == {"pairs": 0, "niceness": min(before + 7, 19), "argument": argument}
    assert view["command"].startswith(str(shutil.which(launcher[0])))
    services.close()


def test_a_launcher_that_is_not_there_is_named(tmp_path: Path) -> None:
    services = opened(tmp_path, SCRIPT, "x", launcher=("no-such-launcher",))
    run = ended(services, services.jobs.submit("generate", {"count": 1}))
    assert run["state"] == "failed" and "no-such-launcher" in run["error"]
    services.close()
    with pytest.raises(InvalidError, match="launcher_kinds names analyze"):
        open_services(tmp_path / "other", launcher_kinds=("analyze",))
    with pytest.raises(InvalidError, match="empty word"):
        open_services(tmp_path / "other", launcher=("torchrun", " "))


def test_torchrun_starts_two_processes_that_work_together(tmp_path: Path) -> None:
    launcher = ("torchrun", "--nproc-per-node=2", "--no-python")
    services = opened(tmp_path, TOGETHER, "0", launcher=launcher)
    run = ended(services, services.jobs.submit("generate", {"count": 1}))
    assert run["state"] == "finished", run["error"]
    assert (services.jobs.folder(run) / "workers").read_text() == "2"
    services.close()


@pytest.mark.long
def test_cancelling_torchrun_ends_its_workers_too(tmp_path: Path) -> None:
    launcher = ("torchrun", "--nproc-per-node=2", "--no-python")
    services = opened(tmp_path, TOGETHER, "100", launcher=launcher)
    run_id = services.jobs.submit("generate", {"count": 1})
    run = services.store.run(run_id)
    deadline = time.monotonic() + 60
    while not (services.jobs.folder(run) / "workers").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    below = processes.descendants(run["pid"])
    assert len(below) >= 2
    services.operations.cancel_run(run_id)
    assert ended(services, run_id)["state"] == "cancelled"
    left = time.monotonic() + 20
    while any(processes.started_at(pid) for pid in (run["pid"], *below)):
        assert time.monotonic() < left
        time.sleep(0.05)
    services.close()


def test_descendants_are_found_below_a_process() -> None:
    sleeper = subprocess.Popen(["sh", "-c", "sleep 30 & sleep 30"])
    deadline = time.monotonic() + 10
    while len(processes.descendants(sleeper.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    below = processes.descendants(sleeper.pid)
    assert sleeper.pid in processes.descendants(os.getpid())
    for pid in below:
        os.kill(pid, 9)
    sleeper.wait()


def test_a_run_gives_way_to_the_app(tmp_path: Path) -> None:
    process = processes.start(["sleep", "30"], tmp_path, os.environ, nice=7)
    try:
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 7
        share = Path(f"/proc/{process.pid}/autogroup")  # what counts between sessions, on Linux
        if os.access(share, os.W_OK):
            assert share.read_text(encoding="ascii").split()[1:] == ["nice", "7"]
    finally:
        process.kill()
        process.wait()


ASIDE = """
import subprocess, sys
sys.exit(subprocess.run(sys.argv[1:], start_new_session=True).returncode)
"""
PATIENT = """
import os, sys, time
from pathlib import Path
from rlhf_core.runs import RunFolder, running
share = Path("/proc/self/autogroup")
run = RunFolder(Path(sys.argv[1]), "generate")
with running(run):
    until = time.monotonic() + 30
    while share.read_text("ascii").split()[2] != sys.argv[2] and time.monotonic() < until:
        time.sleep(0.02)
    told = share.read_text("ascii").split()[1:]
    run.finish({"pairs": 0, "share": told, "niceness": os.nice(0)})
"""


@pytest.mark.skipif(not os.access("/proc/self/autogroup", os.W_OK), reason="no autogroup here")
def test_sessions_that_a_launcher_makes_give_way_too(tmp_path: Path) -> None:
    """As torchrun does it: each worker in a session of its own."""
    launcher = (sys.executable, "-c", ASIDE)
    services = opened(tmp_path, PATIENT, "7", launcher=launcher, nice=7)
    run = ended(services, services.jobs.submit("generate", {"count": 1}))
    assert run["state"] == "finished", run["error"]
    results = services.operations.run_view(run["run_id"])["results"]
    assert results["share"] == ["nice", "7"] and results["niceness"] == 7
    services.close()
