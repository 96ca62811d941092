"""A ready workspace: demo songs, analysis, bootstrap reward model, first policy, first pairs.

What is there already is left as it is, so a second start does nothing. Each step is a run like any
other, with its folder, log and progress.
"""

from __future__ import annotations

import subprocess
import sys

from feedback_app import processes
from feedback_app.client import Local, follow
from feedback_app.errors import AppError
from feedback_app.services import Services

SONGS = 8
FIRST_SEED = 40  # eight styles, none of the songs that the shipped bootstrap has heard (0 to 39)
FIRST = 4


def make_ready(services: Services) -> None:
    """Fill what the workspace lacks, with progress bars."""
    caller, store = Local(services), services.store
    if not store.songs():
        print("Making the demo library (first start only) …", flush=True)
        folder = services.workspace.root / "demo"
        _demo_songs(services, str(folder))
        added = services.operations.add_songs([str(folder)], synthetic=True)
        follow(caller, added["run_id"])
    if store.active_policy() is None:
        print("Making the first models and pairs (first start only) …", flush=True)
        follow(caller, services.operations.prepare()["run_id"], until=lambda: _pairs(services))


def _pairs(services: Services) -> bool:
    """Whether there are enough pairs to begin with; the rest is made while people listen."""
    return services.operations.pairs_overview()["total"] >= FIRST


def _demo_songs(services: Services, folder: str) -> None:
    argv = [sys.executable, "-m", "rlhf_core.audio.demo_songs", folder]
    argv += ["--count", str(SONGS), "--seed", str(FIRST_SEED)]
    env = processes.environment(services.settings)
    if subprocess.run(argv, env=env, check=False).returncode != 0:
        raise AppError("the demo songs could not be made; see the messages above")
