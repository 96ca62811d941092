"""The commands of the Results and People tabs: `results`, `people …` and `pairs find`.

They call the same operations as the tabs. `--json` prints the operation's whole answer; without it,
the figures that one would look at first stand in tables with their intervals.
"""

from __future__ import annotations

import argparse
import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from feedback_app.client import Caller

Command = Callable[[Caller, dict[str, Any]], None]
BY = {"song": "songs", "annotator": "annotators", "vote": "single votes"}


class Adds(Protocol):
    """What a parser is added to (`arguments.Commands`)."""

    def add(self, name: str, summary: str, detail: str = "") -> argparse.ArgumentParser: ...


def add_results(commands: Adds) -> None:
    results = commands.add(
        "results",
        "Show rounds, the leaderboard of versions and what each version does",
        "Intervals are 95 %. Votes of people and of judges (dry runs) never share a figure.",
    )
    _as_json(results)


def add_find(pairs: Adds) -> None:
    find = pairs.add("find", "Find pairs by song, id, version or pool")
    find.add_argument("--text", default="", help="part of the song's title, the pair's id …")
    find.add_argument("--version", help="pairs with an edit of this version")
    find.add_argument("--limit", type=int, default=100, help="at most so many (100)")
    _as_json(find)


def add_people(people: Adds) -> None:
    """The actions of `people`."""
    _as_json(people.add("list", "Show who votes, how fast, how consistently, and how they agree"))
    weigh = people.add(
        "weigh",
        "Let somebody's votes count less, or not at all",
        "0 leaves the votes out of figures, snapshots and exports; they stay in the database.\n"
        "`people undo` takes the change back.",
    )
    weigh.add_argument("name")
    weigh.add_argument("weight", type=float, help="0 to 1")
    weigh.add_argument("--reason", help="kept with the change")
    weigh.add_argument(
        "--dry-run", action="store_true", help="only show what it would do to the figures"
    )
    people.add("undo", "Take the newest change of a weight back")
    for name, summary in (
        ("disable", "Shut an account out; its votes stay"),
        ("enable", "Let an account in again"),
    ):
        people.add(name, summary).add_argument("name")
    comments = people.add("comments", "Search tags and comments of people's votes")
    comments.add_argument("--text", default="", help="part of a comment or tag, in any case")
    comments.add_argument("--tag", help="votes with exactly this tag")
    comments.add_argument("--annotator", help="votes of this person")
    comments.add_argument("--limit", type=int, default=100, help="at most so many (100)")
    _as_json(comments)


def _as_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print everything as JSON"
    )


def figure_commands() -> dict[str, Command]:
    return {
        "results": _either("results", _print_results),
        "pairs find": _either("find_pairs", _print_pairs),
        "people list": _either("people", _print_people),
        "people weigh": _weigh,
        "people undo": lambda caller, values: _print_lines(
            caller.call("undo_weight", by=_typed_by())
        ),
        "people disable": _switch(True),
        "people enable": _switch(False),
        "people comments": _either("search_votes", _print_comments),
    }


def _either(operation: str, show: Callable[[Any], None]) -> Command:
    def command(caller: Caller, values: dict[str, Any]) -> None:
        as_json = values.pop("as_json")
        found = caller.call(operation, **values)
        if as_json:
            print(json.dumps(found, indent=1, ensure_ascii=False))
        else:
            show(found)

    return command


def _switch(disabled: bool) -> Command:
    def command(caller: Caller, values: dict[str, Any]) -> None:
        _print_lines(caller.call("set_disabled", disabled=disabled, **values))

    return command


def _weigh(caller: Caller, values: dict[str, Any]) -> None:
    if not values.pop("dry_run"):
        _print_lines(caller.call("set_weight", **values, by=_typed_by()))
        return
    values.pop("reason")
    told = caller.call("weight_effect", **values)
    before, after = told["before"], told["after"]
    print(
        f"with {_cell(told['name'])} at {after['weight']:g} (now {before['weight']:g}) it would be"
    )
    print(f"votes      {before['votes']:g} -> {after['votes']:g}")
    print(f"alpha      {_alpha(before['agreement'])} -> {_alpha(after['agreement'])}")
    was = {row["version"]: row["strength"] for row in before["leaderboard"]}
    now = {row["version"]: row["strength"] for row in after["leaderboard"]}
    for version in sorted(was | now):
        print(f"{_cell(version)}  {_plain(was.get(version))} -> {_plain(now.get(version))}")


def _typed_by() -> str:
    """Who types: accounts of the app and of the machine are not the same people's names."""
    try:
        return f"{getpass.getuser()} (command)"
    except (OSError, KeyError):  # a container's user without a name
        return "command"


def _print_lines(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        print(f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {_cell(value)}")


def _print_results(found: Mapping[str, Any]) -> None:
    print(f"{found['votes_human']} votes by people, {found['votes_simulated']} simulated")
    rounds = [
        (row["policy"], row["parent"], row["votes"],
         _interval(row, "accuracy", "accuracy_low", "accuracy_high"), _plain(row["ceiling"]),
         _interval(row["human"], "win_rate"), "dry run" if row["simulated"] else "")
        for row in found["rounds"]
    ]  # fmt: skip
    _print_table(("round", "parent", "votes", "accuracy", "ceiling", "human win rate", ""), rounds)
    for title, rows, about in (
        ("by people", found["leaderboard"], found["leaderboard_about"]),
        ("by judges (dry runs)", found["simulated_leaderboard"], found["simulated_about"]),
    ):
        if rows:
            print(f"\nleaderboard {title}: log-odds, 95 %; resampled: {BY[about['resampled']]}")
            _print_table(("version", "strength", "votes"),
                         [(row["version"], _interval(row, "strength"), f"{row['votes']:g}")
                          for row in rows])  # fmt: skip
            for note in about["notes"]:
                print(f"note: {note}")
    for effect in found["covariates"]["effects"]:
        print(f"an edit {effect['step']}, else equal, wins "
              f"{_interval(effect, 'wins', 'wins_low', 'wins_high')} of decided votes")  # fmt: skip
    print()
    _print_table(("version", "edits", "kept", "joins an edit"),
                 [(row["version"], row["edits"], _interval(row["keep_ratio"], "mean"),
                   _interval(row["joins_per_edit"], "mean"))
                  for row in found["policy_behaviour"]])  # fmt: skip


def _print_people(found: Mapping[str, Any]) -> None:
    rows = []
    for row in found["people"]:
        own = row["figures"] or {}
        shares = [_interval(own.get(name), "share") for name in
                  ("agrees", "repeats", "left", "first")]  # fmt: skip
        rows.append((row["name"], row["votes"], _plain(own.get("votes_per_hour")), *shares,
                     _interval(own.get("gold"), "share"), f"{row['weight']:g}",
                     "; ".join(row["marks"])))  # fmt: skip
    _print_table(("name", "votes", "an hour", "agrees", "repeats", "left", "first played",
                  "gold failed", "weight", "marks"), rows)  # fmt: skip
    agreement = found["agreement"]
    if agreement is not None:
        print(f"\nKrippendorff's alpha {_alpha(agreement)} on {agreement['items']} pairs, "
              f"raw agreement {agreement['raw']:.2f}")  # fmt: skip
    else:
        print("\nKrippendorff's alpha: no pair has been judged by two people yet")
    _print_table(("", "and", "Cohen's kappa", "pairs"),
                 [(row["first"], row["second"], _interval(row, "kappa"), row["items"])
                  for row in found["pairs_of_people"]])  # fmt: skip
    _print_table(("changed", "whose votes", "from", "to", "by", "reason", "taken back", "by"),
                 [(row["created_at"], row["annotator"], f"{row['before']:g}", f"{row['after']:g}",
                   row["changed_by"], row["reason"], row["undone_at"], row["undone_by"])
                  for row in found["changes"]])  # fmt: skip


def _print_comments(found: Sequence[Mapping[str, Any]]) -> None:
    _print_table(("when", "who", "choice", "pair", "tags", "comment"),
                 [(row["created_at"], row["annotator"], row["choice"], row["pair_id"],
                   ", ".join(row["tags"] or []), row["comment"]) for row in found])  # fmt: skip


def _print_pairs(found: Sequence[Mapping[str, Any]]) -> None:
    names = ("pair_id", "title", "policy_a", "policy_b", "pool", "votes")
    _print_table(names, [[row[name] for name in names] for row in found])


def _print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    cells = [list(names), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells if rows else ():
        print("  ".join(c.ljust(n) for c, n in zip(line, widths, strict=True)).rstrip())


def _interval(
    row: Mapping[str, Any] | None, name: str, low: str = "low", high: str = "high"
) -> str:
    if row is None or row.get(name) is None:
        return "-"
    if row.get(low) is None:
        return f"{row[name]:.2f}"
    return f"{row[name]:.2f} ({row[low]:.2f} to {row[high]:.2f})"


def _alpha(agreement: Mapping[str, Any] | None) -> str:
    return _interval(agreement, "alpha")


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}"


def _cell(value: Any) -> str:
    """Text for a terminal: names and comments were typed by people."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)
