"""The command line: every command of `python -m feedback_app` and what it says with --help."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from feedback_app.commands_figures import add_find, add_people, add_results
from feedback_app.exchange.query import AUDIO, POOLS, SPLITS, SUFFIXES
from feedback_app.settings import (
    DRY_RUN_STEPS,
    POLICY_STEPS,
    REBUILT_DEMO_SONGS,
    REBUILT_PAIRS,
    REBUILT_STEPS,
)
from rlhf_core.manner import add_arguments as add_manner
from rlhf_core.tastes import LISTENING, READING, listed

DESCRIPTION = """Teach an audio editor by listening: people compare pairs of edits in the browser,
their votes train a reward model, the reward model trains the editing policy, the new policy makes
the next pairs.

Without a command, the app is served. Every button of the app is a command here; where an app is
running on the workspace, commands go through it.
"""
EXAMPLES = """examples:
  python -m feedback_app --demo                    a ready workspace here, then the app
  python -m feedback_app songs add ~/Music/takes   add songs; the first versions are then made
  python -m feedback_app pairs generate --count 40
  python -m feedback_app votes import votes.csv    pair_id,annotator,choice,strength
  python -m feedback_app retrain-reward
  python -m feedback_app train-policy --algorithm ppo --total-steps 100000
  python -m feedback_app promote policy_v2
  python -m feedback_app export out --format parquet --agreement 0.8
  python -m feedback_app sql "SELECT choice, count(*) FROM votes GROUP BY choice"
"""
Made = dict[str, argparse.ArgumentParser]


class Commands:
    """Adds commands that share --workspace."""

    def __init__(self, subparsers: Any) -> None:
        self.subparsers = subparsers
        self.common = argparse.ArgumentParser(add_help=False)
        self.common.add_argument(
            "--workspace", type=Path, default=argparse.SUPPRESS, metavar="DIR",
            help="folder of the workspace (default: the current folder)",
        )  # fmt: skip

    def add(self, name: str, summary: str, detail: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self.subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary}.\n\n{detail}",
            parents=[self.common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return parser

    def group(self, name: str, summary: str) -> Commands:
        parser = self.subparsers.add_parser(name, help=summary, description=f"{summary}.")
        inner = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        return Commands(inner)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m feedback_app",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workspace", type=Path, default=Path(), help=argparse.SUPPRESS)
    commands = Commands(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    _serve(commands)
    _songs(commands)
    _data(commands)
    _users(commands)
    _training(commands)
    _versions(commands)
    _runs(commands)
    _care(commands)
    return parser


def command_names() -> frozenset[str]:
    actions = build_parser()._subparsers
    assert actions is not None
    return frozenset(actions._group_actions[0].choices or ())


def _serve(commands: Commands) -> None:
    serve = commands.add("serve", "Serve the app in the browser")
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port; 0 takes a free one (default: 7860)")
    serve.add_argument(
        "--database", metavar="quack:HOST:PORT",
        help="a database that `database serve` serves, to be shared by several apps "
        "(default: the file in the workspace)",
    )  # fmt: skip
    serve.add_argument(
        "--demo", action="store_true",
        help="first make a ready workspace: demo songs, first models, first pairs",
    )  # fmt: skip
    database = commands.group("database", "The database, where several apps share one")
    shared = database.add(
        "serve",
        "Serve the workspace's database to several apps",
        "Its token is in database.token of the workspace (or the setting database_token). Each\n"
        "app is then started with `serve --database quack:127.0.0.1:PORT`; see docs/scaling.md.",
    )
    shared.add_argument("--host", default="127.0.0.1", help="loopback only (default: 127.0.0.1)")
    shared.add_argument("--port", type=int, default=9494, help="port (default: 9494)")
    commands.add("status", "Show what the workspace holds")
    add_results(commands)


def _songs(commands: Commands) -> None:
    songs = commands.group("songs", "The library")
    add = songs.add(
        "add",
        "Copy songs into the library and analyse them",
        "WAV, FLAC, OGG or MP3, files or folders. On a fresh workspace the bootstrap reward\n"
        "model, the first policy and the first pairs are made afterwards.",
    )
    add.add_argument("paths", nargs="+", metavar="PATH")
    songs.add("list", "List the songs with their state and split")
    remove = songs.add(
        "remove",
        "Remove a song with its audio, for good",
        "Its pairs are given to nobody any more; votes on them are kept, but leave the snapshots\n"
        "that models learn from.",
    )
    remove.add_argument("song_id")
    remove.add_argument("--yes", dest="confirmed", action="store_true", help="do it; else only say")
    split = songs.add(
        "split",
        "Put a song into the training or the test split",
        "Policies never train on test songs. It is fixed as soon as there are pairs of the song.",
    )
    split.add_argument("song_id")
    split.add_argument("split", choices=("train", "test"))
    correct = songs.add(
        "correct",
        "Correct a song's beats and analyse it again",
        "HOW: double, halve, three_halves; offset:N (bars start N beats later); bars:N (N beats\n"
        "to a bar); tap:T1,T2,... (seconds at which somebody tapped); reset. Corrections are kept\n"
        "and add up. Pairs made on the old beats are taken out.",
    )
    correct.add_argument("song_id")
    correct.add_argument("how", metavar="HOW")
    pairs = commands.group("pairs", "Pairs of edits to compare")
    generate = pairs.add("generate", "Make pairs with a policy version")
    generate.add_argument("--count", type=int, required=True)
    generate.add_argument("--policy", metavar="VERSION", help="(default: the active version)")
    generate.add_argument("--versus", metavar="VERSION", help="all against this version")
    generate.add_argument("--seed", type=int, help="(default: a new one, which is written down)")
    pairs.add(
        "rank",
        "Rank the waiting pairs by what a vote would tell the newest reward model",
        "The app does this by itself after each training and each batch of new pairs.",
    )
    add_find(pairs)
    hand_out = pairs.add(
        "export",
        "Write pairs.jsonl and the audio into a folder",
        "a and b mean edit_a and edit_b; votes about them come back with `votes import`.",
    )
    hand_out.add_argument("directory", metavar="DIR")


def _data(commands: Commands) -> None:
    votes = commands.group("votes", "Votes that were cast elsewhere")
    take = votes.add(
        "import",
        "Take in votes from a file, or from the folder or zip of an export",
        "Columns of a list: pair_id, annotator, choice (a, b, tie, both_bad, skip), strength (1-3\n"
        "or empty). Every form of `export` is read too; full records, trl and imitation bring\n"
        "pairs along that are not here. Bad rows are reported with line and reason, the good ones\n"
        "go in.",
    )
    take.add_argument("path", metavar="FILE")
    take.add_argument(
        "--versions-as", default="", metavar="PREFIX",
        help="put before the names of versions that come with pairs from another workspace",
    )  # fmt: skip
    _export(commands)
    sql = commands.add(
        "sql",
        "Ask a snapshot of the votes by DuckDB's SQL",
        "Tables: votes (of people), all_votes (simulated ones too), pairs, edits, beats. It reads\n"
        "a copy: accounts and the live database are out of reach.",
    )
    sql.add_argument("query", metavar="SELECT", help='"SELECT choice, count(*) FROM votes …"')
    sql.add_argument("--rows", type=int, default=50, help="shown; the CSV has more (50)")
    sql.add_argument("--csv", metavar="FILE", help="(default: one in exports/)")
    sql.add_argument("--snapshot", metavar="HASH", help="the one of an earlier answer")


def _export(commands: Commands) -> None:
    export = commands.add(
        "export",
        "Write the dataset of preferences",
        "parquet, csv, jsonl: the full record; trl: prompt, chosen, rejected, margin; arena:\n"
        "question_id, model_a, model_b, winner, judge, tstamp; imitation: fragments and\n"
        "preferences as npz. A folder named by its content is made in DIR, with a dataset card\n"
        "and hashes: the same votes give the same bytes. Large ones show progress.",
    )
    export.add_argument("destination", metavar="DIR", help="a folder, or a file name")
    export.add_argument("--format", choices=tuple(SUFFIXES), default="parquet")
    export.add_argument("--include-simulated", action="store_true", help="with simulated votes")
    export.add_argument("--only-simulated", action="store_true", help="simulated votes alone")
    several: tuple[tuple[str, type, tuple[str, ...] | None, str], ...] = (
        ("rounds", int, None, "1: up to the first trained policy, 2: up to the second, ..."),
        ("versions", str, None, "pairs with a side by one of these versions"),
        ("annotators", str, None, "votes of these"),
        ("pools", str, POOLS, "pairs that were made for this reason"),
        ("splits", str, SPLITS, "songs of this split"),
    )
    for name, kind, choices, text in several:
        export.add_argument(f"--{name}", nargs="+", type=kind, choices=choices, help=text)
    export.add_argument(
        "--agreement", type=float, metavar="SHARE",
        help="only pairs with two answers or more, this share of them the same",
    )  # fmt: skip
    export.add_argument(
        "--pseudonyms", action="store_true",
        help="in place of annotators' names, the same ones in all exports of this workspace",
    )  # fmt: skip
    export.add_argument("--audio", choices=AUDIO, help="the audio of the pairs beside it")
    export.add_argument(
        "--features", action="store_true",
        help="the songs' beat features as npz beside it; observations of imitation",
    )  # fmt: skip


def _users(commands: Commands) -> None:
    users = commands.group("users", "Accounts")
    add = users.add("add", "Add an account; a password is made up and printed if none is given")
    add.add_argument("name")
    add.add_argument("--role", choices=("annotator", "researcher"), default="annotator")
    add.add_argument("--password", help="(default: a new one, which is printed)")
    password = users.add("password", "Give an account a new password")
    password.add_argument("name")
    password.add_argument("--password", help="(default: a new one, which is printed)")
    users.add("list", "List the accounts with their votes")
    add_people(commands.group("people", "Who votes: figures, weights, comments"))


def _policy_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--algorithm", choices=("ppo", "dpo"), default="ppo")
    parser.add_argument(
        "--total-steps", type=int, default=POLICY_STEPS, help="beats edited (%(default)s)"
    )
    parser.add_argument("--learned-weight", type=float, default=0.8, help="(0.8)")
    parser.add_argument("--dense-weight", type=float, default=0.2, help="(0.2)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0 (cpu)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on-votes", action="store_true", help="DPO straight on people's votes")


def _training(commands: Commands) -> None:
    bootstrap = commands.add(
        "rebuild-bootstrap",
        "Make a bootstrap reward model of your own songs",
        "It hears your library and demo songs, and no votes; a few minutes on two cores. Reward\n"
        "models trained on votes from then on (`retrain-reward`) start from it.",
    )
    for flag, default, about in (
        ("--demo-songs", REBUILT_DEMO_SONGS, "beside your own"),
        ("--steps", REBUILT_STEPS, "of training"),
        ("--pairs", REBUILT_PAIRS, "synthetic pairs"),
    ):
        bootstrap.add_argument(flag, type=int, default=default, help=f"{about} ({default})")
    bootstrap.add_argument("--seed", type=int, default=0)
    reward = commands.add("retrain-reward", "Train a reward model on the votes so far")
    reward.add_argument("--include-simulated", action="store_true")
    reward.add_argument("--seed", type=int, default=0)
    policy = commands.add(
        "train-policy",
        "Train a policy; it is evaluated and proposed, not installed",
        "Promote it with `promote VERSION` when its figures, and your ears, say so.",
    )
    _policy_options(policy)
    policy.add_argument("--reward-model", metavar="VERSION", help="(default: the active one)")
    whole = commands.add("round", "Retrain the reward, train a policy on it, evaluate it")
    whole.add_argument("--include-simulated", action="store_true")
    _policy_options(whole)
    simulate = commands.add(
        "simulate",
        "Dry run: a program votes instead of people",
        "Its pairs are never shown to people, its votes are marked as simulated.\n\n"
        f"judges who read the edit and its beats:\n{listed(READING)}\n\n"
        f"judges who hear the rendered audio (slower):\n{listed(LISTENING)}",
    )
    simulate.add_argument(
        "--judge", default="mixture", metavar="NAME", help="whose taste, of those above (mixture)"
    )
    simulate.add_argument("--rounds", type=int, default=1)
    simulate.add_argument("--votes", type=int, default=50, help="votes a round (50)")
    add_manner(simulate, "-")
    simulate.add_argument(
        "--total-steps", type=int, default=DRY_RUN_STEPS, help="a round (%(default)s)"
    )
    simulate.add_argument("--seed", type=int, default=0)
    dry = commands.group("dry-runs", "What dry runs came to")
    dry.add("list", "List dry runs with the figures of their rounds")
    for name, summary in (
        ("cancel", "End what is going on of a dry run"),
        ("remove", "Remove a dry run with all that it made"),
    ):
        dry.add(name, summary).add_argument("dry_run", metavar="NAME")


def _versions(commands: Commands) -> None:
    promote = commands.add(
        "promote",
        "Make a version active",
        "A policy: new pairs come from it. A reward model: trainings learn from it.",
    )
    promote.add_argument("version")
    promote.add_argument(
        "--simulated", action="store_true",
        help="yes, although it learned from simulated votes and not from people",
    )  # fmt: skip
    reject = commands.add("reject", "Mark a version as not to be used")
    reject.add_argument("version")
    delete = commands.add(
        "delete",
        "Delete a version with its checkpoints",
        "Refused, with reasons, for an active version, one that others came from, and a policy\n"
        "whose pairs wait for votes or have some.",
    )
    delete.add_argument("version")
    delete.add_argument("--yes", dest="confirmed", action="store_true", help="do it; else only say")
    examples = commands.add("examples", "Render edits of two policies of the same unseen passages")
    examples.add_argument("version")
    examples.add_argument("--versus", metavar="VERSION", help="(default: its parent)")
    examples.add_argument("--count", type=int, default=3)
    compare = commands.add("compare", "Show two versions side by side")
    compare.add_argument("version")
    compare.add_argument("other")
    commands.add("roll-back", "Make the active version's parent active again")
    commands.add("versions", "List policies and reward models with their figures")


def _runs(commands: Commands) -> None:
    runs = commands.group("runs", "What was started")
    runs.add("queue", "List what goes on and what waits")
    listing = runs.add("list", "List runs, newest first")
    listing.add_argument("--limit", type=int, default=20)
    for name, summary in (
        ("show", "Show a run's state, command and figures"),
        ("cancel", "End a run"),
        ("resume", "Start again what ended early"),
        ("wait", "Follow a run, and what follows it, to the end"),
    ):
        runs.add(name, summary).add_argument("run_id")


def _care(commands: Commands) -> None:
    backup = commands.add(
        "backup",
        "Copy the whole workspace into a new folder, while the app runs",
        "DIR/backup-<time> then holds the database between two commits, songs, models, snapshots\n"
        "and runs, with the SHA-256 of each. Exports and the cache are left out.",
    )
    backup.add_argument("directory", metavar="DIR")
    restore = commands.add(
        "restore",
        "Make a workspace of a backup",
        "Every file is checked first. --workspace names the new place, which must hold no\n"
        "workspace. Everybody signs in again.",
    )
    restore.add_argument("backup", type=Path, metavar="BACKUP", help="a folder backup-<time>")
    commands.add(
        "doctor",
        "Check the workspace, its database, audio files and checkpoints",
        "Says what is wrong and how to mend it; changes nothing. Exit status: 0 well (warnings\n"
        "at most), 1 something is wrong.",
    )
    settings = commands.group("settings", "What may be chosen")
    settings.add(
        "show",
        "Show every setting, its value and where that comes from",
        "default, settings.json in the workspace, or the environment (FEEDBACK_APP_<NAME>).",
    )
    change = settings.add(
        "set",
        "Write settings into settings.json",
        "All or none: checked together first. A running app takes them when it is restarted.",
    )
    change.add_argument("values", nargs="+", metavar="NAME=VALUE")
    settings.add("unset", "Take settings out of settings.json").add_argument(
        "names", nargs="+", metavar="NAME"
    )
