"""Commands that look after a workspace: restore, doctor, settings.

They work where the app does not start, so they do not need it: `doctor` asks a running app, else it
opens the workspace itself, and where that fails it says why and checks the files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import duckdb

from feedback_app import doctor
from feedback_app.backup import restore_backup
from feedback_app.client import connected
from feedback_app.database import Row
from feedback_app.errors import InvalidError, WorkspaceError
from feedback_app.settings import PREFIX, change_settings, load_settings, sources_of
from feedback_app.workspace import Workspace


def _restore(options: argparse.Namespace) -> int:
    made = restore_backup(options.backup.expanduser().resolve(), options.workspace)
    print(f"{made['path']}: {made['files']} files restored")
    print(", ".join(f"{count} {name}" for name, count in made["counts"].items()))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    report = _report(Workspace(options.workspace))
    print("\n".join(doctor.told(report)))
    return int(any(finding["severity"] == doctor.ERROR for finding in report["findings"]))


def _report(workspace: Workspace) -> Row:
    if not workspace.database.exists():
        raise InvalidError(
            f"{workspace.root} holds no workspace; name one with --workspace, or `restore` a backup"
        )
    try:
        with connected(workspace.root) as caller:
            found: Row = caller.call("doctor")
            return found
    except (WorkspaceError, InvalidError, duckdb.Error) as error:
        report = doctor.examine(workspace, None, 0)
        mend = "see the message; for a damaged file: `restore` the last backup into a new folder"
        report["findings"].append(
            {"area": "database", "severity": doctor.ERROR, "text": str(error), "mend": mend}
        )
        return report


def _settings(options: argparse.Namespace) -> int:
    return _show(options) if options.action == "show" else _change(options)


def _change(options: argparse.Namespace) -> int:
    """Write settings or take them out, and say from when on they hold."""
    workspace, unset = Workspace(options.workspace), getattr(options, "names", ())
    values = {}
    for word in getattr(options, "values", ()):
        name, found, value = word.partition("=")
        if not found:
            raise InvalidError(f"{word!r} is not NAME=VALUE")
        values[name] = value
    if not workspace.root.is_dir():
        raise InvalidError(f"there is no folder {workspace.root}; name one with --workspace")
    change_settings(workspace.root, values, unset)
    print(f"written: {workspace.root / 'settings.json'}")
    for name in values:
        if (source := sources_of(workspace.root)[name]) != "settings.json":
            print(f"{name} is also set in the {source}, which is stronger")
    if (holder := workspace.holder()) is not None:
        print(f"the app at {holder.url or f'process {holder.pid}'} takes it when it is restarted")
    return 0


def _show(options: argparse.Namespace) -> int:
    """name = value, where it comes from; what is wrong is refused as at the start of the app."""
    root = Workspace(options.workspace).root
    sources = sources_of(root)
    for name, value in load_settings(root).to_json().items():
        shown = ",".join(value) if isinstance(value, (list, tuple)) else value
        if name.endswith("_token") and value:
            shown = "(hidden)"
        print(f"{name} = {shown}  ({sources.get(name, 'default')})")
    print(f"\nSet one by `settings set NAME=VALUE`, or as {PREFIX}<NAME> in the environment.")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "restore": _restore,
    "doctor": _doctor,
    "settings": _settings,
}
