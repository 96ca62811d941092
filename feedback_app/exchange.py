"""The dataset out and in: exports in the forms that other tools read, imports checked by row.

Every export is written whole or not at all, its rows in the order of the votes, so the same votes
give the same bytes; beside it stand a dataset card and its SHA-256. Simulated votes are left out
unless asked for.

Forms: `parquet`, `csv`, `jsonl` are the full record. `trl` is TRL's explicit-prompt preference
form (prompt, chosen, rejected, margin: JSON text of passage and actions; decisive votes only).
`arena` is Chatbot Arena's (question_id, model_a, model_b, winner, judge, tstamp).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback_app.database import Row
from feedback_app.errors import InvalidError, NotFoundError
from feedback_app.store import Store
from rlhf_core.editing.actions import ACTION_NAMES
from rlhf_core.files import atomic_path, sha256_of, write_text

SUFFIXES = {
    "parquet": ".parquet",
    "csv": ".csv",
    "jsonl": ".jsonl",
    "trl": ".jsonl",
    "arena": ".jsonl",
}
CHOICES = ("a", "b", "tie", "both_bad", "skip")
WINNERS = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "tie (bothbad)"}
MARGINS = {1: 1.0, 2: 2.0, 3: 3.0, None: 1.0}


@dataclass(frozen=True)
class ImportedVote:
    """One good row of an import."""

    pair_id: str
    annotator: str
    choice: str
    strength: int | None


def export(store: Store, path: Path, form: str, include_simulated: bool) -> Row:
    """Write one export with its card and hash; {path, rows, sha256}."""
    if form not in SUFFIXES:
        raise InvalidError(f"format {form!r} is not one of {', '.join(SUFFIXES)}")
    with atomic_path(path) as temporary:
        if form in ("parquet", "csv", "jsonl"):
            rows = store.copy_records(temporary, form, include_simulated)
        else:
            make = _trl if form == "trl" else _arena
            rows = _write_lines(temporary, make(store.records(include_simulated)))
    digest = sha256_of(path)
    write_text(path.with_name(f"{path.name}.sha256"), f"{digest}  {path.name}\n")
    write_text(path.with_name(f"{path.name}.README.md"), card(path.name, form, rows, digest, store))
    return {"path": str(path), "rows": rows, "sha256": digest}


def _write_lines(path: Path, rows: Iterable[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _edit_text(row: Row, side: str) -> str:
    names = [ACTION_NAMES[action] for action in row[f"actions_{side}"]]
    return json.dumps({"edit_id": row[f"edit_{side}"], "actions": names}, ensure_ascii=False)


def _trl(rows: Iterable[Row]) -> Iterator[Row]:
    """prompt, chosen, rejected, margin (the strength, 1 where none was given)."""
    for row in rows:
        if row["choice"] not in ("a", "b"):
            continue
        other = "b" if row["choice"] == "a" else "a"
        prompt = {name: row[name] for name in ("song_id", "start_beat", "end_beat")}
        yield {
            "prompt": json.dumps(prompt),
            "chosen": _edit_text(row, row["choice"]),
            "rejected": _edit_text(row, other),
            "margin": MARGINS[row["strength"]],
        }


def _arena(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if row["choice"] in WINNERS:
            yield {
                "question_id": row["pair_id"],
                "model_a": row["policy_a"],
                "model_b": row["policy_b"],
                "winner": WINNERS[row["choice"]],
                "judge": row["annotator"],
                "tstamp": row["created_at"].timestamp(),
            }


def card(name: str, form: str, rows: int, digest: str, store: Store) -> str:
    """A dataset card: what it is, how it was made, what its columns mean."""
    totals = store.vote_totals()
    return f"""---
pretty_name: Preferences between audio edits
tags: [preference, audio, music]
---
# {name}

Pairwise preferences between two edits of the same musical passage, given by listeners who heard
both blind, at one loudness, with sides shuffled.

- form: `{form}`, {rows} rows, SHA-256 `{digest}`
- in the workspace when it was written: {totals["votes_human"]} human and \
{totals["votes_simulated"]} simulated votes (simulated ones carry `simulated = true`, and are left
  out unless they were asked for)
- one row per current vote: votes that were taken back are not in it

`a` and `b` are the pair's two edits, whichever side they were shown on; `b_first` says that b was
on the left, `first_played` which of the two played first. `choice` is a, b, tie, both_bad or skip
(can't judge); `strength` is 1 (slight) to 3 (clear). `actions_a` and `actions_b` hold one action a
beat of the passage `start_beat` to `end_beat` of the song: {
        ", ".join(f"{i} {name}" for i, name in enumerate(ACTION_NAMES))
    }. `split` is the song's: train and test never share a song. Times are UTC.
"""


def read_votes(path: Path) -> Iterator[tuple[int, Row | str]]:
    """Rows of a CSV or JSON-lines file by line number; a reason where one is unreadable."""
    if not path.is_file():
        raise NotFoundError(f"{path}: there is no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidError(f"{path.name}: not UTF-8 text ({error.reason})") from error
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(path.name, text)
    elif path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        yield from _json_rows(text)
    else:
        raise InvalidError(f"{path.name}: votes are imported from .csv or .jsonl files")


def _csv_rows(name: str, text: str) -> Iterator[tuple[int, Row | str]]:
    reader = csv.DictReader(text.splitlines())
    missing = {"pair_id", "annotator", "choice"} - set(reader.fieldnames or ())
    if missing:
        raise InvalidError(f"{name}: the header lacks {', '.join(sorted(missing))}")
    try:
        for row in reader:
            extra = None in row or None in row.values()
            yield reader.line_num, "wrong number of columns" if extra else row
    except csv.Error as error:
        yield reader.line_num, f"not CSV ({error})"


def _json_rows(text: str) -> Iterator[tuple[int, Row | str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield number, f"not JSON ({error})"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"


def checked_vote(row: Row) -> ImportedVote | str:
    """A row as a vote, or the reason why it is none (whether the pair exists is asked later)."""
    pair_id, annotator, choice = (row.get(name) for name in ("pair_id", "annotator", "choice"))
    if not isinstance(pair_id, str) or not pair_id:
        return "pair_id is missing"
    if not isinstance(annotator, str) or not annotator.strip() or len(annotator) > 60:
        return "annotator is missing or longer than 60 characters"
    if not annotator.isprintable():
        return "annotator holds characters that cannot be printed"
    if choice not in CHOICES:
        return f"choice {choice!r} is not one of {', '.join(CHOICES)}"
    strength: Any = row.get("strength")
    if strength in (None, ""):
        return ImportedVote(pair_id, annotator.strip(), choice, None)
    if isinstance(strength, bool) or str(strength) not in ("1", "2", "3"):
        return f"strength {strength!r} is not 1, 2, 3 or empty"
    if choice not in ("a", "b"):
        return f"a choice of {choice} has no strength"
    return ImportedVote(pair_id, annotator.strip(), choice, int(strength))
