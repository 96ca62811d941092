"""Snapshots: the current votes as one Parquet file, named by its content's hash, never changed.

A run reads a snapshot and not the database, so a checkpoint names the exact votes that made it.
Rows are in the order in which the votes came in; the same votes give the same bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from feedback_app.exchange.query import Query
from feedback_app.store import Store
from feedback_app.workspace import Workspace
from rlhf_core.files import sha256_of

KEPT_RECORDS = 8


@dataclass(frozen=True)
class Snapshot:
    """A written snapshot."""

    path: Path
    sha256: str
    rows: int


def write_snapshot(
    store: Store, workspace: Workspace, include_simulated: bool, dry_run: str | None = None
) -> Snapshot:
    """Write the votes as they are now, or find the same snapshot written before.

    dry_run: the simulated votes of this dry run, and nothing else.
    """
    temporary = workspace.snapshots / f".{uuid4().hex}.parquet"
    try:
        rows = store.copy_snapshot(temporary, include_simulated or dry_run is not None)
        if dry_run is not None:
            rows = store.keep_votes_of_dry_run(temporary, dry_run)
        digest = sha256_of(temporary)
        target = workspace.snapshots / f"{digest}.parquet"
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return Snapshot(target, digest, rows)


def write_records(store: Store, folder: Path) -> Path:
    """The full record of all votes, simulated ones too, named by its hash: what queries read.

    Only the newest few are kept: unlike the snapshots of runs, nothing depends on them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{uuid4().hex}.parquet"
    try:
        store.copy_record(temporary, Query(voters="both"))
        target = folder / f"{sha256_of(temporary)}.parquet"
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    written = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    for old in written[:-KEPT_RECORDS]:
        old.unlink(missing_ok=True)
    return target
