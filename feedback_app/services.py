"""A workspace opened for work: settings, database, sessions, jobs and operations, in one bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback_app.auth import Sessions
from feedback_app.commands import build
from feedback_app.database import Database
from feedback_app.jobs import Build, Jobs
from feedback_app.operations import Operations
from feedback_app.serving_database import read_token
from feedback_app.settings import Settings, load_settings
from feedback_app.shared_database import SharedDatabase
from feedback_app.store import Store
from feedback_app.votes import Annotation
from feedback_app.workspace import Holder, Workspace


@dataclass(frozen=True)
class Services:
    """Everything that routes, tabs and commands use. Close it to commit and let go."""

    workspace: Workspace
    settings: Settings
    holder: Holder
    store: Store
    sessions: Sessions
    annotation: Annotation
    jobs: Jobs
    operations: Operations

    def close(self) -> None:
        self.jobs.close()
        self.store.close()
        self.workspace.release()


def open_services(
    root: Path, url: str = "", *, commands: Build = build, **overrides: Any
) -> Services:
    """Take a workspace and open it. Raises WorkspaceError when another process has it.

    commands: what builds a run's argv (tests put their own in). overrides: settings.
    """
    workspace = Workspace(root)
    settings = load_settings(workspace.root, **overrides)
    holder = workspace.acquire(url, beside=bool(settings.database))
    try:
        store = Store(_database(workspace, settings))
    except BaseException:
        workspace.release()
        raise
    sessions = Sessions(store, settings.session_days)
    jobs = Jobs(store, workspace, settings, commands, keeper=lambda: workspace.keep(holder))
    operations = Operations(store, workspace, settings, sessions, jobs)
    annotation = Annotation(store, settings)
    return Services(workspace, settings, holder, store, sessions, annotation, jobs, operations)


def _database(workspace: Workspace, settings: Settings) -> Database:
    if not settings.database:
        return Database(workspace.database, min_free_mb=settings.min_free_mb)
    token = read_token(workspace.root, settings.database_token)
    return SharedDatabase(
        workspace.database, settings.database, token, min_free_mb=settings.min_free_mb
    )
