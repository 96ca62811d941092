"""The dataset card: a README.md with a YAML header as the Hugging Face hub reads it.

It holds no time and no path, so the same votes give the same card. Names of people and versions
may come from strangers' files: they are text in it, no Markdown and no HTML.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html import escape

from feedback_app.database import Row
from feedback_app.exchange.query import Query
from feedback_app.exchange.record import Column
from feedback_app.logs import plain
from rlhf_core.editing.actions import ACTION_NAMES

FORMS = {
    "parquet": "the full record as Parquet",
    "csv": "the full record as CSV; lists and JSON as JSON text, empty for null; text that begins "
    "with = + - @, tab or a line's end stands behind an apostrophe, so that no spreadsheet runs it "
    "as a formula (an import takes one apostrophe away again)",
    "jsonl": "the full record as JSON lines",
    "trl": "TRL's preference form with an explicit prompt, as JSON lines; decisive votes only",
    "arena": "Chatbot Arena's battles, as JSON lines; votes between different versions only, "
    "without hidden repeats, gold pairs and can't judge",
    "imitation": "imitation's fragments and preferences, as npz without pickles; without can't "
    "judge",
}
HUB_LOADS = {"parquet": "parquet", "csv": "csv", "jsonl": "json", "trl": "json", "arena": "json"}


@dataclass
class Counts:
    """What the rows of an export hold, counted while they are written."""

    rows: int = 0
    simulated: int = 0
    choices: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    annotators: set[str] = field(default_factory=set)
    songs: dict[str, set[str]] = field(default_factory=dict)
    pairs: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Count one record."""
        self.rows += 1
        self.simulated += bool(row["simulated"])
        self.choices[row["choice"]] += 1
        self.splits[row["split"]] += 1
        self.annotators.add(row["annotator"])
        self.songs.setdefault(row["split"], set()).add(row["song_id"])
        self.pairs.add(row["pair_id"])
        self.versions |= {row["policy_a"], row["policy_b"]}


def card(
    query: Query,
    data_name: str,
    digest: str,
    counts: Counts,
    columns: tuple[Column, ...],
    missing: int,
) -> str:
    """The text of README.md for one written data file."""
    return "\n".join(
        [
            *_header(query, data_name, counts),
            "# Preferences between audio edits",
            "",
            "Pairwise preferences between two edits of the same musical passage, given by "
            "listeners who heard both blind, at one loudness, with sides shuffled.",
            "",
            _marking(counts),
            "",
            f"- form: {FORMS[query.form]}",
            f"- file: `{data_name}`, {counts.rows} rows, SHA-256 `{digest}`",
            f"- filters: {_text('; '.join(query.filters()))}",
            f"- annotators: {_names(query)}",
            "- one row per current vote: votes that were taken back, and those of annotators "
            "with weight 0, are not in it",
            *([f"- {missing} attached files were not there any more"] if missing else []),
            "",
            *_counts(counts),
            *_schema(query, columns),
            *_meaning(),
        ]
    )


def _header(query: Query, data_name: str, counts: Counts) -> list[str]:
    lines = ["---", "pretty_name: Preferences between audio edits"]
    lines += ["tags: [preference, pairwise, audio, music]", f"size_categories: [{_size(counts)}]"]
    if query.form in HUB_LOADS:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        lines += ["  - split: votes", f"    path: {data_name}"]
    lines += [f"simulated_votes: {counts.simulated}"]
    return [*lines, "---"]


def _size(counts: Counts) -> str:
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if counts.rows < limit:
            return name
    return "100K<n<1M"


def _marking(counts: Counts) -> str:
    if not counts.simulated:
        return "**All votes are by people.** Simulated votes are not in it."
    rest = counts.rows - counts.simulated
    return (
        f"**{counts.simulated} of these votes are simulated**: a program cast them "
        f"(`simulated` is true in their rows), {rest} are by people. Simulated votes say nothing "
        "about what people prefer."
    )


def _text(typed: str) -> str:
    """Typed text within a line of the card: entities for what would be a tag, a link or a cell.

    >>> _text("a_1 <b>|[x](y)")
    'a_1 &lt;b&gt;&#124;&#91;x](y)'
    """
    marks = {ord(mark): f"&#{ord(mark)};" for mark in "|[`*\\"}
    return escape(plain(typed), quote=False).translate(marks)


def _names(query: Query) -> str:
    if query.pseudonyms:
        return (
            "**pseudonyms**, the same person's in all exports of one workspace. Titles of songs "
            "and comments stand as they were typed, and may name people"
        )
    return "**by the names of their accounts**; an export with pseudonyms leaves them out"


def _counts(counts: Counts) -> list[str]:
    choices = ", ".join(f"{name} {count}" for name, count in sorted(counts.choices.items()))
    lines = ["## What is in it", "", "| | |", "| --- | --- |"]
    lines += [f"| votes | {counts.rows} ({choices or 'none'}) |"]
    lines += [f"| pairs | {len(counts.pairs)} |", f"| annotators | {len(counts.annotators)} |"]
    lines += [f"| versions | {_text(', '.join(sorted(counts.versions))) or 'none'} |"]
    for split in sorted(counts.splits):
        songs = len(counts.songs[split])
        lines.append(f"| split `{split}` | {counts.splits[split]} votes, {songs} songs |")
    return [*lines, "", "`split` is the song's: train and test never share a song.", ""]


def _schema(query: Query, columns: tuple[Column, ...]) -> list[str]:
    if query.form == "imitation":
        from feedback_app.exchange import imitation

        return ["## Arrays", "", (imitation.__doc__ or "").partition("\n\n")[2], ""]
    lines = ["## Columns", "", "| column | type | meaning |", "| --- | --- | --- |"]
    lines += [f"| {column.name} | {column.kind} | {column.about} |" for column in columns]
    return [*lines, ""]


def _meaning() -> list[str]:
    actions = ", ".join(f"{i} {name}" for i, name in enumerate(ACTION_NAMES))
    return [
        "## Reading it",
        "",
        f"Actions: {actions}. `segments_a` and `segments_b` are what the actions mean: stretches "
        "of the song's beats in playing order, with gains as amplitude factors; beat `n` starts at "
        "`beat_times[n - start_beat]` seconds of the song. `a` and `b` are the pair's two edits, "
        "whichever side they were shown on; `b_first` says that b was on the left. Times are UTC.",
        "",
        "The songs themselves are not part of the dataset; `song_id` names them by content.",
        "",
    ]
