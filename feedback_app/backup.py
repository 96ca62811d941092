"""Whole copies of a workspace, made while the app runs, and workspaces made from them.

    <folder>/backup-<UTC stamp>/
        manifest.json         what it is: schema, counts, and size and SHA-256 of every file
        preferences.duckdb    (with its log, where there is one)
        settings.json songs/ models/ snapshots/ runs/ cache/*.beats.json

The database is copied on its writer thread, right after a checkpoint, so that the copy is the state
between two commits; one that is shared over Quack is copied by the process that serves it, in one
transaction, which is such a state too. The files are copied afterwards, so that whatever the
database names is there.
Left out: the cache (computed again from the songs), exports, sessions (everybody signs in again).
A backup appears under its name only when it is whole and its database was opened and counted.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb

from feedback_app.cursors import first_row
from feedback_app.database import Database, Row
from feedback_app.errors import ConflictError, InvalidError, NotFoundError, WorkspaceError
from feedback_app.quack import SERVED, first_line
from feedback_app.schema import MIGRATIONS, schema_version
from feedback_app.workspace import Workspace
from rlhf_core.files import read_json, sha256_of, write_json

FOLDERS = ("songs", "models", "snapshots", "runs")
FORMAT = 1
COUNTED = ("votes", "pairs", "songs", "annotators", "policies", "reward_models", "runs")


def write_backup(database: Database, workspace: Workspace, folder: Path) -> Row:
    """Copy the workspace into a new folder below `folder`; {path, files, bytes, counts}."""
    name = time.strftime("backup-%Y%m%d-%H%M%S", time.gmtime())
    target, partial = folder / name, folder / f".{name}.partial"
    if target.exists() or partial.exists():
        raise ConflictError(f"{target} is there already; try again in a second")
    if partial.resolve().is_relative_to(workspace.root) and not _is_apart(workspace, partial):
        raise InvalidError(f"{folder} is copied itself; choose a folder outside of the workspace")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)  # names, votes and hashes of passwords: for its owner alone
        counts = _copied(database, partial)
        copied = _count(partial / database.path.name)
        if counts != copied:
            raise WorkspaceError(f"the copied database holds {copied}, it should be {counts}")
        for source in _files(workspace):
            _copy(source, partial / source.relative_to(workspace.root))
        files = {
            str(path.relative_to(partial)): {"size": path.stat().st_size, "sha256": sha256_of(path)}
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        manifest = {"format": FORMAT, "schema": len(MIGRATIONS), "counts": counts, "files": files,
                    "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
        write_json(partial / "manifest.json", manifest)
        partial.rename(target)
    except (OSError, duckdb.Error) as error:
        raise InvalidError(f"{target}: the backup could not be written ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return {"path": str(target), "files": len(files), "bytes": size, "counts": counts}


def _is_apart(workspace: Workspace, path: Path) -> bool:
    """Whether a folder inside the workspace is one that backups leave out."""
    return path.resolve().relative_to(workspace.root).parts[0] not in (*FOLDERS, "cache")


def _copied(database: Database, folder: Path) -> Row:
    """Copy the database into a folder; its counts."""
    if database.shared:
        return _copy_served(database.cursor(), folder / database.path.name)
    return database.between_commits(lambda cursor: _copy_database(cursor, database.path, folder))


def _copy_served(cursor: Any, target: Path) -> Row:
    """Through the process that serves the database; votes go on meanwhile."""
    name, path = f"copy_{uuid4().hex}", str(target).replace("'", "''")
    try:
        cursor.execute(f"ATTACH '{path}' AS {name}")
        try:
            cursor.execute("BEGIN")
            cursor.execute(f"COPY FROM DATABASE {SERVED} TO {name}")
            counts = _counts(cursor)
            cursor.execute("COMMIT")
        except duckdb.Error:
            cursor.execute("ROLLBACK")
            raise
        finally:
            cursor.execute(f"DETACH DATABASE IF EXISTS {name}")
    except duckdb.Error as error:
        raise InvalidError(
            f"{target.parent}: the process that serves the database could not write there "
            f"({first_line(error)}). Name a folder with room that it sees at the same path."
        ) from error
    if not target.exists():
        raise InvalidError(
            f"{target.parent} is another folder for the process that serves the database: it wrote "
            f"{target.name} on its own machine. Name a folder that both see at the same path."
        )
    return counts


def _copy_database(cursor: Any, path: Path, target: Path) -> Row:
    """On the writer thread: nothing is written meanwhile. The log is copied too if it is there.

    By `cp`: closing the file in this process would let go of DuckDB's lock on it (POSIX locks end
    with the first close of the file by the process).
    """
    cursor.execute("CHECKPOINT").fetchall()
    for source in (path, path.with_name(f"{path.name}.wal")):
        if source.exists():
            done = subprocess.run(
                ["cp", "--", str(source), str(target / source.name)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise OSError(done.stderr.strip())
    return _counts(cursor)


def _counts(cursor: Any) -> Row:
    return {
        table: int(first_row(cursor.execute(f"SELECT count(*) FROM {table}"))[0])
        for table in COUNTED
    }


def _count(path: Path) -> Row:
    """Open a copy, end everybody's session in it, and count its rows."""
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute("DELETE FROM sessions")
        return _counts(connection)


def _files(workspace: Workspace) -> Iterator[Path]:
    """Everything that is copied, but half-written files (their names begin with a dot)."""
    settings = workspace.root / "settings.json"
    if settings.exists():
        yield settings
    yield from sorted(workspace.cache.glob("*.beats.json"))
    for name in FOLDERS:
        for path in sorted((workspace.root / name).rglob("*")):
            inside = path.relative_to(workspace.root)
            plain = path.is_file() and not path.is_symlink()  # a run's data/ links to songs
            if plain and not any(part.startswith(".") for part in inside.parts):
                yield path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy2(source, target)
    except FileNotFoundError:
        return  # a run replaced or removed it just now


def check_backup(folder: Path) -> Row:
    """The manifest of a backup whose every file is there as it was written."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise NotFoundError(
            f"{folder}: there is no manifest.json, so it is no backup. Give the folder "
            "backup-… that `backup` printed."
        )
    try:
        manifest: Row = read_json(path)
        files, known = manifest["files"], int(manifest["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(f"{path}: is not a manifest ({error!r})") from error
    if known > FORMAT:
        raise InvalidError(f"{folder}: written by a newer app (format {known}); use that one")
    for name, wanted in files.items():
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise InvalidError(f"{path}: names {name!r}, outside of the backup")
        if not (folder / name).is_file():
            raise InvalidError(f"{folder}: {name} is missing; use another backup")
        if sha256_of(folder / name) != wanted["sha256"]:
            raise InvalidError(f"{folder}: {name} has changed since; use another backup")
    return manifest


def restore_backup(folder: Path, root: Path) -> Row:
    """Make a workspace of a backup. Its place must not hold one; {path, files, counts}."""
    manifest, workspace = check_backup(folder), Workspace(root)
    if workspace.database.exists():
        raise ConflictError(
            f"{workspace.root} holds a workspace already; restore into another folder, or move "
            "this one away first"
        )
    workspace.acquire("")
    try:
        for name in sorted(manifest["files"], key=lambda name: name == workspace.database.name):
            target = workspace.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            shutil.copy2(folder / name, part)
            part.replace(target)  # the database comes last: without it, it is no workspace
        with closing(duckdb.connect(str(workspace.database))) as connection:
            counts, schema = _counts(connection), schema_version(connection)
    except (OSError, duckdb.Error) as error:
        raise InvalidError(f"{root}: could not be restored ({error})") from error
    finally:
        workspace.release()
    if counts != manifest["counts"]:
        raise WorkspaceError(f"{root}: holds {counts}, the backup said {manifest['counts']}")
    return {"path": str(workspace.root), "files": len(manifest["files"]), "schema": schema,
            "counts": counts}  # fmt: skip
