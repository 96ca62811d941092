"""`python -m feedback_app`: serve the app, or do by command what its buttons do."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from feedback_app import care
from feedback_app.arguments import build_parser, command_names
from feedback_app.client import Caller, connected, follow
from feedback_app.commands_figures import figure_commands
from feedback_app.errors import AppError
from feedback_app.readings import flat
from feedback_app.serve import serve
from feedback_app.serving_database import serve_database
from rlhf_core.errors import CoreError

LINES = 20


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the doctor found something, 2 an explained error, 130 stopped."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not set(given) & (command_names() | {"-h", "--help"}):
        given.insert(0, "serve")
    options = build_parser().parse_args(given)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    try:
        if options.command == "serve":
            return serve(
                options.workspace, host=options.host, port=options.port, demo=options.demo,
                database=options.database,
            )  # fmt: skip
        if options.command == "database":
            return serve_database(options.workspace, host=options.host, port=options.port)
        if options.command in care.COMMANDS:
            return care.COMMANDS[options.command](options)
        with connected(options.workspace) as caller:
            _commands()[_name(options)](caller, _arguments(options))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing at exit either
        return 128 + signal.SIGPIPE
    except (AppError, CoreError, OSError) as error:  # or a full disk, a folder not to be written
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; runs that were started go on by themselves", file=sys.stderr)
        return 130
    except (duckdb.IOException, duckdb.FatalException) as error:
        print(f"error: {error}\n`python -m feedback_app doctor` tells more", file=sys.stderr)
        return 2
    return 0


def _name(options: argparse.Namespace) -> str:
    action = getattr(options, "action", None)
    return options.command if action is None else f"{options.command} {action}"


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What the operation is called with; paths are absolute, for the app may stand elsewhere."""
    plain = ("command", "action", "workspace")
    values = {name: value for name, value in vars(options).items() if name not in plain}
    for name in ("path", "directory", "destination", "csv"):
        if values.get(name) is not None:
            values[name] = str(Path(values[name]).expanduser().resolve())
    if "paths" in values:
        values["paths"] = [str(Path(path).expanduser().resolve()) for path in values["paths"]]
    return values


Command = Callable[[Caller, dict[str, Any]], None]


def _commands() -> dict[str, Command]:
    return {
        "status": _shown("status"),
        "songs add": _add_songs,
        "songs list": _table("list_songs", "song_id", "status", "split", "pairs", "title", "error"),
        "songs remove": _remove_song,
        "songs split": _shown("set_split"),
        "songs correct": _run("correct_beats"),
        "pairs generate": _run("generate_pairs"),
        "pairs rank": _run("rank_pairs"),
        "pairs export": _shown("export_pairs"),
        "votes import": _import_votes,
        "export": _export,
        "sql": _sql,
        "users add": _account("add_user"),
        "users password": _account("set_password"),
        "users list": _table("list_annotators", "name", "role", "votes", "simulated", "disabled"),
        "rebuild-bootstrap": _run("rebuild_bootstrap"),
        "retrain-reward": _run("retrain_reward"),
        "train-policy": _run("train_policy"),
        "round": _run("run_round"),
        "simulate": _run("simulate"),
        "backup": _backup,
        "promote": _shown("promote"),
        "reject": _shown("reject"),
        "delete": _delete,
        "examples": _run("make_examples"),
        "compare": _compare,
        "dry-runs list": _dry_runs,
        "dry-runs cancel": _shown("cancel_dry_run"),
        "dry-runs remove": _shown("remove_dry_run"),
        "runs queue": _table("queue", "run_id", "state", "why", "then", "dry_run"),
        "roll-back": _shown("roll_back"),
        "versions": _versions,
        "runs list": _table("list_runs", "run_id", "state", "created_at", "error"),
        "runs show": _show_run,
        "runs cancel": _shown("cancel_run"),
        "runs resume": _run("resume_run"),
        "runs wait": lambda caller, values: follow(caller, values["run_id"]),
        **figure_commands(),
    }


def _shown(operation: str) -> Command:
    """Call an operation and print what it answers, a line for each value."""

    def command(caller: Caller, values: dict[str, Any]) -> None:
        for name, value in caller.call(operation, **values).items():
            if value is not None:
                print(f"{name}: {value}")

    return command


def _run(operation: str) -> Command:
    """Start a run, follow it and what follows it, print the figures of each."""

    def command(caller: Caller, values: dict[str, Any]) -> None:
        run_id: str | None = caller.call(operation, **values)["run_id"]
        follow(caller, run_id)
        while run_id is not None:
            view = caller.call("run_view", run_id=run_id)
            print(f"{run_id}: {view['message']}")
            _print_figures((view["results"] or {}).get("metrics") or {})
            run_id = view["next_run"]

    return command


def _print_figures(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if isinstance(value, (int, float)):
            print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")


def _table(operation: str, *columns: str) -> Command:
    def command(caller: Caller, values: dict[str, Any]) -> None:
        _print_table(caller.call(operation, **values), columns)

    return command


def _print_table(rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in (list(columns), *cells):
        text = "  ".join(cell.ljust(n) for cell, n in zip(line, widths, strict=True))
        print(text.rstrip())


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def _add_songs(caller: Caller, values: dict[str, Any]) -> None:
    answer = caller.call("add_songs", **values)
    for skipped in answer["skipped"]:
        print(f"skipped {_cell(skipped['path'])}: {_cell(skipped['reason'])}")
    follow(caller, answer["run_id"])
    for song in caller.call("list_songs"):
        if song["status"] == "failed":
            print(f"failed  {_cell(song['title'])}: {_cell(song['error'])}")
    if not caller.call("list_policies"):
        follow(caller, caller.call("prepare")["run_id"])
    _shown("status")(caller, {})


def _remove_song(caller: Caller, values: dict[str, Any]) -> None:
    told = caller.call("remove_song", **values)
    print(f"{_cell(told['title'])}: {told['pairs']} pairs, {told['votes']} votes of people")
    what = f"{told['files']} files, {told['bytes'] / 1e6:.1f} MB"
    print(f"removed {what}" if told["removed"] else f"would remove {what}; say --yes to do it")


def _backup(caller: Caller, values: dict[str, Any]) -> None:
    made = caller.call("backup", **values)
    print(f"{made['path']}: {made['files']} files, {made['bytes'] / 1e6:.1f} MB")
    print(", ".join(f"{count} {name}" for name, count in made["counts"].items()))


def _import_votes(caller: Caller, values: dict[str, Any]) -> None:
    answer = caller.call("import_votes", **values)
    for row in answer["rejected"]:
        print(f"line {row['line']}: {_cell(row['reason'])}")
    print(f"{answer['accepted']} votes taken in, {len(answer['rejected'])} rows refused")


def _export(caller: Caller, values: dict[str, Any]) -> None:
    made = caller.call("export", **values)
    if "run_id" in made:
        follow(caller, made["run_id"])
        made = caller.call("run_view", run_id=made["run_id"])["results"]
    for name in ("path", "rows", "sha256"):
        print(f"{name}: {made[name]}")
    if made.get("missing_files"):
        print(f"{made['missing_files']} files of audio or features were not there any more")


def _sql(caller: Caller, values: dict[str, Any]) -> None:
    answer = caller.call("sql", **values)
    rows = [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]
    _print_table(rows, answer["columns"])
    more = "more than " if answer["more"] else ""
    print(f"{more}{answer['count']} rows in {answer['csv']}; snapshot {answer['snapshot']}")


def _account(operation: str) -> Command:
    def command(caller: Caller, values: dict[str, Any]) -> None:
        made = caller.call(operation, **values)
        print(f"name {made['name']}  password {made['password']}")

    return command


def _versions(caller: Caller, values: dict[str, Any]) -> None:
    _table("list_policies", "version", "status", "algorithm", "parent", "reward_model")(caller, {})
    print()
    _table("list_reward_models", "version", "status", "n_votes", "synthetic")(caller, {})


def _delete(caller: Caller, values: dict[str, Any]) -> None:
    told = caller.call("delete_version", **values)
    what = f"{told['version']}: {told['files']} files, {told['bytes'] / 1e6:.1f} MB"
    print(f"deleted {what}" if told["deleted"] else f"would delete {what}; say --yes to do it")


def _compare(caller: Caller, values: dict[str, Any]) -> None:
    sides = caller.call("compare", **values)
    both = [flat(sides[side]) for side in ("left", "right")]
    for name in dict.fromkeys([*both[0], *both[1]]):
        cells = [_cell(side.get(name)) for side in both]
        print(f"{' ' if cells[0] == cells[1] else '*'} {name:32} {cells[0]:28} {cells[1]}".rstrip())


def _dry_runs(caller: Caller, values: dict[str, Any]) -> None:
    for run in caller.call("dry_runs"):
        plan = " ".join(f"{name}={value}" for name, value in run["plan"].items())
        print(f"{run['dry_run']} (simulated): {run['state']}, {run['seconds']:.0f} s, {plan}")
        for row in run["rounds"]:
            print(
                f"  round {row['round']}: accuracy {_share(row, 'accuracy')}, judge prefers "
                f"{row['policy']} to its parent {_rate(row['judge_parent'])}, to the first policy "
                f"{_rate(row['judge_first'])}, gate {row['verdict']}, {row['seconds']:.0f} s"
            )


def _rate(rate: dict[str, float] | None) -> str:
    return "-" if rate is None else f"{rate['mean']:.0%} ({rate['low']:.0%}-{rate['high']:.0%})"


def _share(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    ends = {"mean": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
    return _rate(ends) if None not in ends.values() else f"{row[name]:.0%}"


def _show_run(caller: Caller, values: dict[str, Any]) -> None:
    view = caller.call("run_view", **values)
    print(f"{view['run_id']}: {view['state']}, {view['progress']:.0%} {view['message']}")
    print(f"command: {view['command']}")
    if view["error"]:
        print(f"error: {view['error']}")
    print(json.dumps((view["results"] or {}).get("metrics") or {}, indent=1))
    print("\n".join(view["log_tail"].splitlines()[-LINES:]))


if __name__ == "__main__":
    sys.exit(main())
