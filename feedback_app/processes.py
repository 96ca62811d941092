"""Starting, finding again and ending the processes of runs.

A run is the leader of its own session, so it outlives the app and is ended as a group. A process
id can be used again by the system, so a process is known by its id and the time that it started.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import rlhf_core
from feedback_app.errors import InvalidError
from feedback_app.settings import Settings

logger = logging.getLogger(__name__)
PACKAGE_ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
COMMAND = "{command}"  # where a launcher wants the whole command as one quoted word


@lru_cache(maxsize=1)
def code_version() -> str:
    """What code this is: `git describe` of a checkout, else the package's version."""
    if (PACKAGE_ROOT / ".git").exists() and shutil.which("git"):
        found = subprocess.run(
            ["git", "-C", str(PACKAGE_ROOT), "describe", "--always", "--tags", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode == 0 and found.stdout.strip():
            return f"{rlhf_core.__version__} ({found.stdout.strip()})"
    return rlhf_core.__version__


def launched(argv: Sequence[str], launcher: Sequence[str]) -> list[str]:
    """The command behind its launcher (torchrun, srun, ssh).

    Where a word of the launcher holds `{command}`, the command goes there as shell text; else it
    is appended word by word. Raises InvalidError where the launcher's program is not there.

    >>> launched(["python", "-m", "a b"], [])
    ['python', '-m', 'a b']
    """
    if not launcher:
        return list(argv)
    program = launcher[0]
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(program, path=places)
    if found is None:
        raise InvalidError(
            f"the launcher {program!r} (setting `launcher`) is not a program on this machine. "
            "Install it, give its full path, or empty the setting."
        )
    rest = list(launcher[1:])
    if any(COMMAND in word for word in rest):
        return [found, *(word.replace(COMMAND, shlex.join(argv)) for word in rest)]
    return [found, *rest, *argv]


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
    """Let a run's process give way to the app.

    Where Linux shares the processors out by session first (autogroup; a run is a session of its
    own), the nice value of a process counts inside its session alone: the session needs one too.
    """
    try:
        # an app that is nicer itself may not make its runs less so
        nice = max(nice, os.getpriority(os.PRIO_PROCESS, pid))
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    except ProcessLookupError:
        return  # it has ended already
    _lower_session(pid, nice)


def lower_sessions_below(pid: int, nice: int, done: set[int]) -> None:
    """Let the sessions that a run's launcher made give way too; torchrun makes one a worker.

    The nice value comes down to them by itself. done: leaders seen to; what is new is added.
    """
    for below in set(descendants(pid)) - done:
        try:
            leads = os.getsid(below) == below
        except ProcessLookupError:
            continue  # it ended while we looked
        if leads:  # one that does not may yet
            done.add(below)
            _lower_session(below, nice)


def _lower_session(pid: int, nice: int) -> None:
    for pause in (0.1, 0.3, 1.0, None):  # Linux takes ten a second from users, of all processes
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")
        except BlockingIOError as error:
            if pause is None:
                logger.warning("the run's session keeps its share of the processors (%s)", error)
            else:
                time.sleep(pause)
        except OSError as error:  # no such thing here, or not allowed to this user
            logger.info("the run's session keeps its share of the processors (%s)", error)
            return
        else:
            return


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
    """SIGTERM (or SIGKILL) to everything that the run started.

    A launcher such as torchrun gives its workers sessions of their own and passes SIGTERM on to
    them; SIGKILL it cannot pass on, so that goes to every descendant.
    """
    below = descendants(pid) if kill else []
    _signal_group(pid, signal.SIGKILL if kill else signal.SIGTERM)
    for child in below:
        _signal_group(child, signal.SIGKILL)


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself, or leads no group


def descendants(pid: int) -> list[int]:
    """Process ids below one, where the system tells (Linux); [] elsewhere."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def ending(status: int | None) -> str:
    """How a process ended, in words; status as `Popen.returncode` (None: not known)."""
    if status is None:
        return "the process is gone without a result (killed, or the machine was restarted)"
    if status == -signal.SIGKILL:
        return "the process was killed by the system, most often because memory ran out"
    if status < 0:
        return f"the process was ended by {signal.Signals(-status).name}"
    return f"the process ended with status {status} and without a result"


def tail(path: Path, lines: int = 40) -> str:
    """The last lines of a log, at most 32 KiB of it; progress bars count as their last state."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 32768))
        text = file.read().decode("utf-8", errors="replace")
    kept = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join([line for line in kept if line][-lines:])
