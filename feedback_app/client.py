"""How a command reaches the operations: through the running app, or by opening the workspace.

`app.lock` says who holds the workspace. Where an app serves it, the command asks that app over
loopback with the workspace's token; where nobody holds it, the command opens it itself and looks
after the runs that it starts.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from feedback_app.errors import AppError, WorkspaceError
from feedback_app.services import Services, open_services
from feedback_app.store_runs import ENDED
from feedback_app.workspace import Holder, Workspace

POLL_S = 0.25
TIMEOUT_S = 600.0
LONG_S = 24 * 3600.0
LONG = ("backup", "doctor", "export", "export_pairs", "import_votes")  # in proportion to it all


class Caller(Protocol):
    """Something that carries out operations."""

    def call(self, operation: str, **arguments: Any) -> Any: ...


class Local:
    """This process holds the workspace."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def call(self, operation: str, **arguments: Any) -> Any:
        self.services.jobs.poll()
        return getattr(self.services.operations, operation)(**arguments)


class Remote:
    """A running app holds the workspace."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder

    def call(self, operation: str, **arguments: Any) -> Any:
        request = urllib.request.Request(
            f"{self.holder.url}/control/{operation}",
            data=json.dumps(arguments).encode(),
            headers={
                "authorization": f"Bearer {self.holder.token}",
                "content-type": "application/json",
            },
        )
        try:
            patience = LONG_S if operation in LONG else TIMEOUT_S
            with urllib.request.urlopen(request, timeout=patience) as response:
                return json.load(response)["result"]
        except urllib.error.HTTPError as error:
            raise AppError(_words(error)) from error
        except OSError as error:
            raise WorkspaceError(
                f"the app at {self.holder.url} (process {self.holder.pid}) does not answer"
                f" ({error}). Stop it and try again."
            ) from error


def _words(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the app answered {error.code} {error.reason}"


@contextmanager
def connected(root: Path) -> Iterator[Caller]:
    """The way to the operations of a workspace."""
    holder = Workspace(root).holder()
    if holder is not None and holder.url:
        yield Remote(holder)
        return
    services = open_services(root)
    try:
        yield Local(services)
    finally:
        services.close()


def follow(caller: Caller, run_id: str | None, until: Callable[[], bool] = lambda: False) -> None:
    """Show a run's progress, and that of what follows it, until the last has ended.

    It stops looking early when `until` says so; the runs go on.

    Raises AppError when one fails. Stopping to look (Ctrl-C) does not stop the run.
    """
    while run_id is not None:
        view = _follow_one(caller, run_id, until)
        if view["state"] not in ENDED:
            return
        if view["state"] != "finished":
            reason = f": {view['error']}" if view["error"] else ""
            raise AppError(f"{run_id} {view['state']}{reason}")
        run_id = view["next_run"]


def _follow_one(caller: Caller, run_id: str, until: Callable[[], bool]) -> dict[str, Any]:
    started = time.monotonic()
    form = "{desc:<14} {percentage:3.0f}% |{bar}| {elapsed}<{remaining} {postfix}"
    kind = run_id.rpartition("-")[0].rpartition("-")[0].rpartition("-")[0]
    with tqdm(total=100, desc=kind, bar_format=form, disable=None) as bar:
        while True:
            view: dict[str, Any] = caller.call("run_view", run_id=run_id)
            bar.set_postfix_str(str(view["message"])[:60], refresh=False)
            bar.update(round(100 * (view["progress"] or 0)) - bar.n)
            waiting = view["state"] == "finished" and view["steps_left"] and not view["next_run"]
            if (view["state"] in ENDED and not waiting) or until():
                break
            time.sleep(POLL_S)
    if not sys.stderr.isatty():
        spent = time.monotonic() - started
        print(f"{run_id}: {view['state']} after {spent:.1f} s", file=sys.stderr)
    return view
