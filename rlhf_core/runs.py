"""A run's folder: how a training or generating process tells the world where it is.

    config.json     kind, argv, settings, lineage             written once at the start
    status.json     state, progress, message, eta_s, pid, …   replaced atomically as it goes on
    metrics.jsonl   one JSON object a line, appended          what live curves are drawn from
    results.json    what the run made                         written last; its presence means done

The app only ever reads this folder, and a person can with `cat`. Commands write it through
`RunFolder`; SIGTERM and Ctrl-C both arrive as KeyboardInterrupt (see `running`).
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rlhf_core.errors import CoreError
from rlhf_core.files import read_json, write_json

STATES = ("running", "finished", "failed", "cancelled")


def _finite(value: Any) -> Any:
    """NaN and infinities are not JSON: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


class RunFolder:
    """Writer of one run's folder. Create it once per process."""

    def __init__(self, path: Path, kind: str, settings: dict[str, Any] | None = None) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.started = time.time()
        self._last_status = 0.0
        config = {
            "kind": kind,
            "argv": [sys.executable, *sys.orig_argv[1:]],
            "settings": settings or {},
        }
        write_json(path / "config.json", _finite(config))
        self.status("running", 0.0, "starting")

    def status(
        self, state: str, progress: float, message: str, *, error: str | None = None
    ) -> None:
        """Replace status.json. progress is 0..1; the ETA follows from it."""
        now = time.time()
        spent = now - self.started
        eta = spent * (1 - progress) / progress if state == "running" and progress > 0 else None
        self._last_status = now
        write_json(
            self.path / "status.json",
            _finite(
                {
                    "state": state,
                    "progress": progress,
                    "message": message,
                    "eta_s": eta,
                    "pid": os.getpid(),
                    "started_at": self.started,
                    "updated_at": now,
                    "error": error,
                }
            ),
        )

    def progress(self, progress: float, message: str, every_s: float = 0.5) -> None:
        """Say how far the run is, at most every so many seconds."""
        if time.time() - self._last_status >= every_s:
            self.status("running", progress, message)

    def metric(self, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        self.append("metrics.jsonl", values)

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Append one JSON object as a line; readers ignore a last line without its newline."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(row), allow_nan=False) + "\n")

    def finish(self, results: dict[str, Any], message: str = "done") -> None:
        write_json(self.path / "results.json", _finite(results))
        self.status("finished", 1.0, message)


@contextmanager
def running(run: RunFolder) -> Iterator[None]:
    """Record how a run ended: cancelled on Ctrl-C or SIGTERM, failed (in words) on an error."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt:
        _record(run, "cancelled", None)
        raise
    except CoreError as error:
        _record(run, "failed", str(error))
        raise
    except Exception as error:
        _record(run, "failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _record(run: RunFolder, state: str, error: str | None) -> None:
    """Write how a run ended. A full disk must not hide why: then only the log tells it."""
    try:
        run.status(state, _progress_of(run.path), state, error=error)
    except OSError as full:
        print(f"the run's end could not be written to status.json ({full})", file=sys.stderr)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _progress_of(path: Path) -> float:
    return float(read_json(path / "status.json").get("progress", 0.0))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Complete lines of a JSON-lines file; [] where there is none; a torn last line is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line]
