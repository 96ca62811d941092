"""Runs: starting them one per kind, watching their folders, taking in what they made.

A run is a process of its own session that knows nothing of the app; everything about it is in its
folder and in the `runs` table, so it survives the app, and the app finds it again. One `Jobs`
object per open workspace; `poll` may be called from any thread, as often as wanted.
"""

from __future__ import annotations

import json
import logging
import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from feedback_app import processes
from feedback_app.commands import KINDS, build
from feedback_app.context import Context
from feedback_app.database import Row, utc_now
from feedback_app.errors import AppError, ConflictError, InvalidError
from feedback_app.ingest import Ingest
from feedback_app.logs import about
from feedback_app.settings import Settings
from feedback_app.store import Store
from feedback_app.store_runs import ENDED
from feedback_app.workspace import Workspace
from rlhf_core.errors import CoreError
from rlhf_core.files import read_json

logger = logging.getLogger(__name__)
Build = Callable[[str, Row, Context], tuple[list[str], Row]]
FAULTS = (AppError, CoreError, OSError, duckdb.Error)
POLL_S = 0.5


class Jobs:
    """The runs of one workspace."""

    def __init__(
        self,
        store: Store,
        workspace: Workspace,
        settings: Settings,
        build: Build = build,
        keeper: Callable[[], bool] = lambda: True,
    ) -> None:
        """keeper: whether this process looks after runs; of several apps on a database, one."""
        self.store = store
        self.workspace = workspace
        self.settings = settings
        self.ingest = Ingest(store, workspace)
        self._build = build
        self._keeper = keeper
        if unknown := sorted(set(settings.launcher_kinds) - set(KINDS)):
            raise InvalidError(
                f"setting launcher_kinds names {', '.join(unknown)}; known: {', '.join(KINDS)}"
            )
        self._lock = threading.RLock()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._kill_at: dict[str, float] = {}
        self._lowered: dict[str, set[int]] = {}  # by run: processes whose session was looked at
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def submit(self, kind: str, settings: Row, previous: str | None = None) -> str:
        """Queue a run; it starts at once where none of its kind runs. Returns its id.

        Of its settings, three are for the queue: `needs` (ids of runs that must have ended first),
        `then` (what is submitted when it has finished) and `chain` (what earlier steps made).
        """
        if kind not in KINDS:
            raise InvalidError(f"unknown kind of run {kind!r}; known: {', '.join(KINDS)}")
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        run_id = f"{kind}-{stamp}-{secrets.token_hex(3)}"
        kept = dict(settings) | {"previous": previous}
        self.store.database.write(
            lambda cursor: self.store.add_run(cursor, run_id, kind, f"runs/{run_id}", kept)
        )
        logger.info("run submitted", extra={"run_id": run_id})
        self.poll()
        return run_id

    def poll(self) -> None:
        """Look at every open run once: take in rows, notice ends, start what waits."""
        if not self._keeper():
            return  # what is queued here is started by the app that looks after runs
        with self._lock:
            for run in self.store.open_runs():
                if run["state"] != "queued":
                    self._guarded(run, self._look)
            open_runs = self.store.open_runs()
            busy = {run["kind"] for run in open_runs if run["state"] == "running"}
            going = {run["run_id"] for run in open_runs}
            for run in open_runs:
                awaited = going & set(run["settings"].get("needs") or ())
                if run["state"] == "queued" and run["kind"] not in busy and not awaited:
                    self._guarded(run, self._start)
                    busy.add(run["kind"])

    def cancel(self, run_id: str) -> None:
        """End a run: politely first, by force after the grace that settings give."""
        with self._lock:
            run = self.store.run(run_id)
            if run["state"] in ENDED:
                raise ConflictError(f"{run_id} has ended already ({run['state']})")
            if run["state"] == "queued":
                self._end(run, "cancelled", None)
                return
            if not self._keeper():
                raise ConflictError(
                    f"{run_id} is looked after by another app on this workspace; "
                    "`python -m feedback_app` on that machine, or its own page, can cancel it"
                )
            if processes.is_alive(run["pid"], run["pid_started"]):
                processes.end_group(run["pid"], kill=False)
            self._kill_at[run_id] = time.monotonic() + self.settings.cancel_grace_s

    def resume(self, run_id: str) -> str:
        """Start again what ended early: a training from its last checkpoint, others anew."""
        run = self.store.run(run_id)
        if run["state"] not in ("failed", "cancelled"):
            raise ConflictError(f"{run_id} is {run['state']}; only an ended run can be resumed")
        settings = run["settings"] | {"resumed_from": run_id}
        if run["kind"] == "train-policy" and (last := last_checkpoint(self.folder(run))):
            settings["checkpoint"] = self.workspace.relative(last)
        return self.submit(run["kind"], settings, run["settings"].get("previous"))

    def folder(self, run: Row) -> Path:
        return self.workspace.resolve(run["folder"])

    def follower(self, run_id: str) -> str | None:
        """The run that was started because this one finished."""
        row = self.store.database.row(
            "SELECT run_id FROM runs WHERE settings ->> 'previous' = ? ORDER BY created_at LIMIT 1",
            [run_id],
        )
        return None if row is None else str(row["run_id"])

    def active(self, *kinds: str) -> bool:
        """Whether a run of one of the kinds is queued or running."""
        return any(run["kind"] in kinds for run in self.store.open_runs())

    def watch(self, tick: Callable[[], None]) -> None:
        """Poll in a thread until `close`; `tick` is called after each look."""

        def loop() -> None:
            while not self._stop.wait(POLL_S):
                try:
                    self.poll()
                    if self._keeper():
                        tick()
                except FAULTS:
                    logger.exception("looking after the runs failed; trying again")

        self._thread = threading.Thread(target=loop, name="jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking; the runs go on by themselves."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _guarded(self, run: Row, work: Callable[[Row], None]) -> None:
        try:
            with about(run_id=run["run_id"]):
                work(run)
        except FAULTS as error:
            logger.warning("run failed: %s", error, extra={"run_id": run["run_id"]})
            self._end(run, "failed", str(error))

    def _start(self, run: Row) -> None:
        folder = self.folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        context = Context(self.store, self.workspace, self.settings, folder)
        argv, settings = self._build(run["kind"], run["settings"], context)
        if run["kind"] in self.settings.launcher_kinds:
            argv = processes.launched(argv, self.settings.launcher)
        settings = settings | {
            "code_version": processes.code_version(),
            "started_at": utc_now().isoformat() + "Z",
        }
        env = processes.environment(self.settings)
        process = processes.start(argv, folder, env, self.settings.nice)
        self._children[run["run_id"]] = process
        logger.info("run started", extra={"pid": process.pid})
        started = processes.started_at(process.pid)
        self.store.database.write(
            lambda cursor: self.store.update_run(
                cursor,
                run["run_id"],
                state="running",
                argv=argv,
                settings=settings,
                pid=process.pid,
                pid_started=started or "",
            )
        )

    def _look(self, run: Row) -> None:
        alive = self._is_alive(run)
        status = read_status(self.folder(run))
        self.ingest.rows(run)  # of a failed run too: what it finished before stays
        if run["state"] == "running" and alive and status.get("state") != "finished":
            self._kill_if_due(run)
            self._lower_workers(run)
        elif status.get("state") == "finished":
            self._finish(run)
        elif status.get("state") == "cancelled" or run["run_id"] in self._kill_at:
            self._end(run, "cancelled", None)
        else:
            self._end(run, "failed", status.get("error") or self._last_words(run))

    def _is_alive(self, run: Row) -> bool:
        child = self._children.get(run["run_id"])
        if child is not None:
            return child.poll() is None
        return processes.is_alive(run["pid"], run["pid_started"])

    def _kill_if_due(self, run: Row) -> None:
        if time.monotonic() > self._kill_at.get(run["run_id"], float("inf")):
            processes.end_group(run["pid"], kill=True)

    def _lower_workers(self, run: Row) -> None:
        settings = self.settings
        if settings.nice and settings.launcher and run["kind"] in settings.launcher_kinds:
            done = self._lowered.setdefault(run["run_id"], set())
            processes.lower_sessions_below(run["pid"], settings.nice, done)

    def _last_words(self, run: Row) -> str:
        log = processes.tail(self.folder(run) / "log.txt", 12)
        errors = [line for line in log.splitlines() if line.startswith("error:")]
        if errors:
            return errors[-1].removeprefix("error:").strip()
        child = self._children.get(run["run_id"])
        words = processes.ending(None if child is None else child.poll())
        return f"{words}. The end of its log:\n{log}" if log else f"{words}. Its log is empty."

    def _finish(self, run: Row) -> None:
        made = self.ingest.results(run)
        self.ingest.leftovers(run)
        self._mark(run, state="finished", ingested=True)
        logger.info("run finished")
        steps = run["settings"].get("then") or []
        if steps and self.follower(run["run_id"]) is None:
            chain = run["settings"].get("chain", {}) | made
            following = dict(steps[0]["settings"]) | {"then": steps[1:], "chain": chain}
            self.submit(steps[0]["kind"], following, run["run_id"])

    def _end(self, run: Row, state: str, error: str | None) -> None:
        self.ingest.leftovers(run)
        self._mark(run, state=state, ingested=True, error=error)
        logger.info("run ended: %s", state, extra={"run_id": run["run_id"]})

    def _mark(self, run: Row, **values: Any) -> None:
        self.store.database.write(
            lambda cursor: self.store.update_run(cursor, run["run_id"], **values)
        )
        self._kill_at.pop(run["run_id"], None)
        self._lowered.pop(run["run_id"], None)
        child = self._children.pop(run["run_id"], None)
        if child is not None and child.poll() is None:
            threading.Thread(target=child.wait, daemon=True).start()  # reap it when it is gone


def read_status(folder: Path) -> Row:
    """status.json of a run; {} while there is none."""
    try:
        return dict(read_json(folder / "status.json"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError):
        return {}  # not written yet; a run that never writes it is told from its process


def last_checkpoint(folder: Path) -> Path | None:
    """The periodic checkpoint with the most steps."""
    found = {
        int(path.stem.rpartition("_")[2]): path
        for path in (folder / "models").glob("checkpoint_*.pt")
        if path.stem.rpartition("_")[2].isdigit()
    }
    return found[max(found)] if found else None
