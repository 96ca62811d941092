"""A workspace opened for work: settings, database, sessions, jobs and operations, in one bundle."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from feedback_app.auth import Sessions
from feedback_app.commands import build
from feedback_app.database import Database
from feedback_app.errors import AppError
from feedback_app.jobs import Build, Jobs
from feedback_app.operations import Operations
from feedback_app.serving_database import read_token
from feedback_app.settings import Settings, load_settings
from feedback_app.shared_database import SharedDatabase
from feedback_app.store import Store
from feedback_app.votes import Annotation
from feedback_app.workspace import Holder, Workspace

logger = logging.getLogger(__name__)


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

    def warm(self) -> None:
        """Read what the first annotator and the first researcher would otherwise wait for.

        With a million votes that is some seconds; votes are taken meanwhile.
        """
        try:
            self.annotation.warm().result()
            self.store.vote_totals()
        except (AppError, duckdb.Error) as error:
            logger.warning("not read ahead, the first visitor waits for it: %s", error)

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
        return Database(
            workspace.database,
            min_free_mb=settings.min_free_mb,
            memory_mb=settings.database_memory_mb,
        )
    token = read_token(workspace.root, settings.database_token)
    return SharedDatabase(
        workspace.database, settings.database, token, min_free_mb=settings.min_free_mb
    )
