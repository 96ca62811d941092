"""Asking the SQL box: its process is started for one query and ended when that takes too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from feedback_app.database import Row
from feedback_app.errors import InvalidError
from feedback_app.processes import PACKAGE_ROOT

SECONDS = 20.0  # for the query itself
GRACE = 20.0  # for starting and copying the snapshot
MEMORY_MB = 512
MAX_QUERY = 20_000
_turn = threading.Semaphore(2)  # queries at once


def ask_box(query: str, records: Path, rows: int, target: Path, seconds: float = SECONDS) -> Row:
    """The answer of `sql_box.ask`. Raises InvalidError with what is wrong in words."""
    if len(query) > MAX_QUERY:
        raise InvalidError(f"the query has {len(query)} characters; at most {MAX_QUERY}")
    if not 0 < rows <= 10_000:
        raise InvalidError(f"rows is {rows}; it must be 1 to 10,000")
    argv = [
        sys.executable, "-m", "feedback_app.sql_box", "--records", str(records),
        "--rows", str(rows), "--seconds", f"{seconds:g}", "--memory_mb", str(MEMORY_MB),
        "--csv", str(target),
    ]  # fmt: skip
    env = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(PACKAGE_ROOT),
        "PYTHONIOENCODING": "utf-8",
    }
    with _turn:
        try:
            done = subprocess.run(
                argv,
                input=query.encode("utf-8", errors="replace"),
                capture_output=True,
                timeout=seconds + GRACE,
                env=env,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InvalidError(f"stopped after {seconds:g} s; ask for less") from error
    try:
        answer: Row = json.loads(done.stdout)
    except ValueError as error:
        raise InvalidError(
            f"the query ended its process (status {done.returncode}), probably for want of "
            "memory; ask for less"
        ) from error
    if "error" in answer:
        raise InvalidError(str(answer["error"]))
    return answer
