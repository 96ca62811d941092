"""Is a workspace whole? What is wrong with it is told with what to do about it.

Four areas: the workspace (folders, rights, room, leftovers of crashes), the database (every table
can be read, rows that contradict each other), audio files (the songs' content is as their names
say, renders are whole), checkpoints and snapshots (SHA-256 as recorded). Nothing is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import duckdb

from feedback_app.database import Row
from feedback_app.doctor_files import (
    checkpoint_problem,
    content_problem,
    file_problem,
    sound_problem,
)
from feedback_app.quack import first_line
from feedback_app.workspace import FOLDERS, Workspace

ERROR, WARNING = "error", "warning"
MEGABYTE = 1024 * 1024
# What this project calls a file or folder until it is whole: `atomic_path`, snapshots, exports,
# backups and what `restore` copies.
LEFTOVER = re.compile(
    r"\..+\.[0-9a-f]{8}\.\w+(\.wal)?|\.(record-|export-)?[0-9a-f]{32}(\.parquet)?|\.file-\w+"
    r"|\.backup-.+\.partial|\..+\.part"
)
OLD_S = 24 * 3600.0  # nothing takes a day to write
TABLES = (
    "SELECT table_name AS name FROM duckdb_tables()"
    " WHERE database_name = current_database() AND NOT internal ORDER BY 1"
)
RESTORE = "stop the app, keep the file, and `restore` the last backup into a new folder"
FAULTS = (
    # what the rows are, how many there are, and what to do
    ("votes of pairs that do not exist",
     "SELECT count(*) FROM votes WHERE pair_id IS NOT NULL AND pair_id NOT IN"
     " (SELECT pair_id FROM pairs)", "restore a backup into a new folder and compare"),
    ("votes twice in one assignment",
     "SELECT count(*) FROM (SELECT assignment_id FROM current_votes WHERE source = 'app'"
     " GROUP BY 1 HAVING count(*) > 1)", "take one of each back with an undo; please report it"),
    ("assignments done without a vote",
     "SELECT count(*) FROM assignments AS a WHERE state = 'done' AND NOT EXISTS (SELECT 1 FROM"
     " votes AS v WHERE v.assignment_id = a.assignment_id AND v.kind = 'vote')",
     "they only keep a place of their pair; please report it"),
    ("pairs whose edits do not exist",
     "SELECT count(*) FROM pairs WHERE edit_a NOT IN (SELECT edit_id FROM edits)"
     " OR edit_b NOT IN (SELECT edit_id FROM edits)", "restore a backup into a new folder"),
    ("pairs whose song does not exist",
     "SELECT count(*) FROM pairs WHERE song_id NOT IN (SELECT song_id FROM songs)",
     "add the song again: its name in the library is its content's hash"),
    ("votes by names without an account",
     "SELECT count(*) FROM votes WHERE annotator NOT IN (SELECT name FROM annotators)",
     "users add NAME"),
    ("policy versions active at once (there should be one)",
     "SELECT greatest(count(*) - 1, 0) FROM policies WHERE status = 'active'",
     "promote the one that you want"),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and how to mend it. severity: error or warning."""

    area: str
    severity: str
    text: str
    mend: str


class Rows(Protocol):
    """What the doctor asks of a database."""

    def rows(self, sql: str, parameters: Any = ()) -> list[Row]: ...


def examine(workspace: Workspace, database: Rows | None, min_free_mb: int) -> Row:
    """{checked: {area: how many things}, findings: [...]}; database None: it does not open."""
    findings: list[Finding] = []
    checked: dict[str, int] = {}

    def take(area: str, found: Iterator[Finding | None]) -> None:
        """None is a thing that is in order."""
        checked.setdefault(area, 0)
        try:
            for thing in found:
                checked[area] += 1
                findings.extend([] if thing is None else [thing])
        except duckdb.Error as error:
            text = f"{area}: the rest was not checked, the database does not tell it"
            findings.append(Finding("database", ERROR, f"{text} ({first_line(error)})", RESTORE))

    take("workspace", _workspace(workspace, min_free_mb))
    take("snapshots", _snapshots(workspace))
    if database is not None:
        take("database", _database(database))
        take("audio", _songs(workspace, database))
        take("audio", _audio(workspace, database))
        take("checkpoints", _checkpoints(workspace, database))
        take("runs", _runs(workspace, database))
    return {"checked": checked, "findings": [asdict(finding) for finding in findings]}


def _workspace(workspace: Workspace, min_free_mb: int) -> Iterator[Finding | None]:
    for name in FOLDERS:
        path = workspace.root / name
        if not path.is_dir():
            yield Finding("workspace", ERROR, f"{name}/ is missing", f"mkdir {path}")
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            yield Finding("workspace", ERROR, f"{name}/ may not be written",
                          f"chown -R the user of the app {path}")  # fmt: skip
        else:
            yield None
    if workspace.root.stat().st_mode & 0o007:
        yield Finding("workspace", WARNING, "every user of this machine may open the workspace: "
                      "names, votes, hashes of passwords", f"chmod 700 {workspace.root}"
                      )  # fmt: skip
    else:
        yield None
    free = shutil.disk_usage(workspace.root).free // MEGABYTE
    if free < min_free_mb:
        yield Finding("workspace", ERROR, f"only {free} MB are free, {min_free_mb} are kept back: "
                      "no vote is taken", "make room on the disk")  # fmt: skip
    elif free < 10 * min_free_mb:
        yield Finding("workspace", WARNING, f"only {free} MB are free", "make room on the disk")
    else:
        yield None
    for path in sorted(workspace.root.rglob(".*")):
        if LEFTOVER.fullmatch(path.name) and time.time() - path.stat().st_mtime > OLD_S:
            yield Finding("workspace", WARNING, f"{path.relative_to(workspace.root)} was left half "
                          "written by a process that ended", f"rm -r {path}")  # fmt: skip


def _database(database: Rows) -> Iterator[Finding | None]:
    """Read every table to its end: DuckDB checks a block's checksum when it is read."""
    for row in database.rows(TABLES):
        try:
            database.rows(f'SELECT bit_xor(hash(t)) AS content FROM "{row["name"]}" AS t')
        except duckdb.Error as error:
            yield Finding("database", ERROR, f"table {row['name']} is damaged "
                          f"({first_line(error)})", RESTORE)  # fmt: skip
        else:
            yield None
    for what, sql, mend in FAULTS:
        (count,) = database.rows(sql)[0].values()
        yield Finding("database", ERROR, f"{count} {what}", mend) if count else None


def _songs(workspace: Workspace, database: Rows) -> Iterator[Finding | None]:
    for row in database.rows(
        "SELECT song_id, path, title FROM songs WHERE status NOT IN ('failed', 'removed')"
    ):
        problem = file_problem(
            workspace.resolve(row["path"]), partial(content_problem, digest=row["song_id"])
        )
        if problem is None:
            yield None
        else:
            yield Finding("audio", ERROR, f"song {row['title']!r}: {row['path']} {problem}",
                          "put it back from a backup, or add the same file again: its beats and "
                          "pairs are of that content")  # fmt: skip


def _audio(workspace: Workspace, database: Rows) -> Iterator[Finding | None]:
    """Renders of pairs that people still hear."""
    stored = database.rows(
        "SELECT pair_id, unnest([original_path, a.audio_path, b.audio_path]) AS path,"
        " unnest([original_duration_s, a.duration_s, b.duration_s]) AS seconds FROM pairs"
        " JOIN edits AS a ON a.edit_id = edit_a JOIN edits AS b ON b.edit_id = edit_b"
        " WHERE NOT retired"
    )
    broken: dict[str, list[str]] = {}
    for row in stored:
        look = partial(sound_problem, duration_s=row["seconds"])
        problem = file_problem(workspace.resolve(row["path"]), look)
        if problem is None:
            yield None
        else:
            broken.setdefault(row["pair_id"], []).append(f"{row['path']} {problem}")
    for pair_id, problems in broken.items():
        yield Finding("audio", ERROR, f"pair {pair_id}: {'; '.join(problems)}",
                      "put the run's folder back from a backup; until then the pair cannot be heard"
                      )  # fmt: skip


def _checkpoints(workspace: Workspace, database: Rows) -> Iterator[Finding | None]:
    """Of every version its checkpoint and those that lie beside it."""
    for table in ("policies", "reward_models"):
        for row in database.rows(f"SELECT version, path FROM {table}"):
            named = workspace.resolve(row["path"])
            beside = [p for p in sorted(named.parent.glob("*.pt")) if not p.name.startswith(".")]
            for path in dict.fromkeys((named, *beside)):
                problem = checkpoint_problem(path)
                if problem is None:
                    yield None
                else:
                    shown = workspace.relative(path)
                    yield Finding("checkpoints", ERROR, f"{row['version']}: {shown} {problem}",
                                  "put it back from a backup or from its run's folder, or train "
                                  "again")  # fmt: skip


def _snapshots(workspace: Workspace) -> Iterator[Finding | None]:
    for path in sorted(workspace.snapshots.rglob("*.parquet")):
        if not re.fullmatch(r"[0-9a-f]{64}", path.stem):
            continue
        problem = file_problem(path, partial(content_problem, digest=path.stem))
        if problem is None:
            yield None
        else:
            yield Finding("snapshots", ERROR, f"{path.name} {problem}",
                          "remove it; the run that used it can be told by its results.json only"
                          )  # fmt: skip


def _runs(workspace: Workspace, database: Rows) -> Iterator[Finding | None]:
    for row in database.rows("SELECT run_id, folder FROM runs WHERE state <> 'queued'"):
        if workspace.resolve(row["folder"]).is_dir():
            yield None
        else:
            yield Finding("runs", WARNING, f"{row['run_id']}: its folder is missing",
                          "its log is gone; what it made stands in models/")  # fmt: skip


def told(report: Row) -> list[str]:
    """The report as lines for a terminal."""
    lines = [f"{area}: {count} checked" for area, count in sorted(report["checked"].items())]
    for finding in report["findings"]:
        lines.append(f"{finding['severity'].upper()} {finding['area']}: {finding['text']}")
        lines.append(f"  mend: {finding['mend']}")
    errors = sum(finding["severity"] == ERROR for finding in report["findings"])
    warnings = len(report["findings"]) - errors
    if report["findings"]:
        return [*lines, f"{errors} errors, {warnings} warnings"]
    return [*lines, "all is well"]
