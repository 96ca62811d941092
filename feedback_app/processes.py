"""Starting, finding again and ending the processes of runs.

A run is the leader of its own session, so it outlives the app and is ended as a group. A process
id can be used again by the system, so a process is known by its id and the time that it started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedback_app.settings import Settings

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environment(settings: Settings) -> dict[str, str]:
    """What a run's process is given: threads set deliberately, our packages on its path."""
    paths = [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    return (
        dict(os.environ)
        | {name: str(settings.threads) for name in THREAD_VARIABLES}
        | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    )


def start(
    argv: Sequence[str], folder: Path, env: Mapping[str, str], nice: int
) -> subprocess.Popen[bytes]:
    """Start a run's command; its output goes to `log.txt` in its folder."""
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(env),
            start_new_session=True,
        )
    if nice:
        lower_priority(process.pid, nice)
    return process


def lower_priority(pid: int, nice: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    except ProcessLookupError:
        return  # it has ended already


def started_at(pid: int) -> str | None:
    """When a live process started, as the system counts; None where it is dead (or a zombie)."""
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, when = found.stdout.strip().partition(" ")
    return when.strip() if when and not state.startswith("Z") else None


def is_alive(pid: int | None, started: str | None) -> bool:
    """Whether the very process that was started still runs."""
    return pid is not None and started is not None and started_at(pid) == started


def end_group(pid: int, *, kill: bool) -> None:
    """SIGTERM (or SIGKILL) to everything that the run started."""
    try:
        os.killpg(pid, signal.SIGKILL if kill else signal.SIGTERM)
    except ProcessLookupError:
        return  # it has ended by itself


def tail(path: Path, lines: int = 40) -> str:
    """The last lines of a log, at most 32 KiB of it; progress bars count as their last state."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 32768))
        text = file.read().decode("utf-8", errors="replace")
    kept = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join([line for line in kept if line][-lines:])
