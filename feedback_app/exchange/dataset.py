"""One export as a folder: data file, README.md, SHA256SUMS, and what comes along.

    preferences-<form>-<hash>/  preferences.<suffix>  README.md  SHA256SUMS  [audio/]  [features/]

The folder is named by its content and appears whole or not at all, so the same votes give the same
folder, wherever and whenever it is written. The rows come from a record file (`record`), never from
the database: the app calls this for small exports, a run for large ones (`__main__`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

from feedback_app.database import Row
from feedback_app.errors import InvalidError
from feedback_app.exchange.archive import write_zip
from feedback_app.exchange.attachments import Attachments
from feedback_app.exchange.card import Counts, card
from feedback_app.exchange.forms import AUDIO_COLUMNS, FEATURES_COLUMN, columns_of, encode
from feedback_app.exchange.imitation import write_fragments
from feedback_app.exchange.query import FULL, Query
from feedback_app.exchange.record import Column, count_rows, read_rows
from feedback_app.exchange.tables import plain, write_table
from rlhf_core.files import atomic_path, sha256_of

DATA = "preferences"
SUMS, README = "SHA256SUMS", "README.md"
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Written:
    """A finished export. sha256 is the data file's."""

    folder: Path
    data: Path
    rows: int
    sha256: str
    missing: int  # attached files that were not there any more

    def to_json(self) -> Row:
        return {
            "path": str(self.data),
            "folder": str(self.folder),
            "rows": self.rows,
            "sha256": self.sha256,
            "missing_files": self.missing,
        }


def columns(query: Query) -> tuple[Column, ...]:
    """Every column of an export's table."""
    extra: tuple[Column, ...] = ()
    if query.audio is not None:
        extra += AUDIO_COLUMNS
    if query.features and query.form != "imitation":
        extra += (FEATURES_COLUMN,)
    return columns_of(query.form) + extra


def write_dataset(
    record: Path,
    query: Query,
    root: Path,
    target: Path,
    progress: Progress = lambda share, message: None,
) -> Written:
    """Write one export of a record into the folder `target`.

    root: the workspace, from which audio and features are taken. Raises InvalidError where a file
    cannot be read or written.
    """
    temporary = target / f".export-{uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        data = temporary / f"{DATA}{query.suffix}"
        attachments = Attachments(root, temporary, query.audio, query.features)
        counts = _write_data(data, record, query, attachments, progress)
        digest = sha256_of(data)
        missing = len(attachments.missing)
        text = card(query, data.name, digest, counts, columns(query), missing)
        (temporary / README).write_text(text, encoding="utf-8")
        progress(0.95, "hashing")
        sums = _sums(temporary)
        (temporary / SUMS).write_text(sums, encoding="utf-8")
        name = f"{DATA}-{query.form}-{hashlib.sha256(sums.encode()).hexdigest()[:12]}"
        folder = _publish(temporary, target / name)
    except OSError as error:
        raise InvalidError(f"{target}: the export cannot be written ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Written(folder, folder / data.name, counts.rows, digest, missing)


def zipped(folder: Path, progress: Callable[[float], None] = lambda share: None) -> Path:
    """The zip of a written export, beside it; made once."""
    path = folder.with_name(f"{folder.name}.zip")
    if not path.exists():
        with atomic_path(path) as temporary:
            write_zip(temporary, folder, progress)
    return path


def preview(record: Path, query: Query, limit: int) -> tuple[tuple[Column, ...], list[Row]]:
    """The first rows of an export as they would be written, without attachments."""
    if query.form == "imitation":
        shown = Query("jsonl")
        from feedback_app.exchange.imitation import PREFERENCES

        rows = (
            row | {"preference": PREFERENCES[row["choice"]], "beats": len(row["actions_a"])}
            for row in read_rows(record)
            if row["choice"] in PREFERENCES
        )
        wanted = (
            Column("preference", "double", "1: fragment 1 (edit a) was preferred"),
            Column("beats", "int32", "length of the fragments"),
            *[c for c in columns(shown) if c.name in ("actions_a", "actions_b", "vote_id",
                                                      "pair_id", "annotator", "choice")],
        )  # fmt: skip
        return wanted, _first(rows, limit, wanted)
    found = columns(Query(query.form))
    encoded = (out for row in read_rows(record) if (out := encode(query.form, row)) is not None)
    return found, _first(encoded, limit, found)


def _first(rows: Iterator[Row], limit: int, wanted: tuple[Column, ...]) -> list[Row]:
    return [
        {column.name: plain(column, row[column.name]) for column in wanted}
        for row in islice(rows, limit)
    ]


def _write_data(
    path: Path, record: Path, query: Query, attachments: Attachments, progress: Progress
) -> Counts:
    counts, total = Counts(), max(count_rows(record), 1)

    def step(share: float) -> None:
        progress(0.94 * share, f"{counts.rows or round(share * total)} votes")

    if query.form == "imitation":
        for vote in write_fragments(path, record, attachments, step):
            counts.add(vote)
        return counts

    def rows() -> Iterator[Row]:
        for place, row in enumerate(read_rows(record)):
            encoded = encode(query.form, row)
            if encoded is not None:
                counts.add(row)
                step(place / total)
                yield encoded | attachments.columns(row)

    write_table(path, query.form if query.form in FULL else "jsonl", columns(query), rows())
    return counts


def _sums(folder: Path) -> str:
    """Lines as `sha256sum -c` reads them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def _publish(temporary: Path, folder: Path) -> Path:
    """Give a finished folder its name. One of that name has the same content already."""
    for path in temporary.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if not (folder / SUMS).exists():
        temporary.rename(folder)
    return folder
