"""Reading votes from files: every form of an export, and plain lists of votes.

What a file is, is told from its ending and its columns: the full record as Parquet, CSV or JSON
lines; TRL's and Arena's JSON lines; imitation's npz; a folder or zip that an export made; CSV or
JSON lines of pair_id, annotator, choice, strength. Each row becomes a dictionary of the record's
columns as far as the form holds them, or a reason why it cannot be read. Line numbers count as an
editor does; rows of Parquet and npz count from 1.
"""

from __future__ import annotations

import csv
import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from feedback_app.database import Row
from feedback_app.errors import InvalidError, NotFoundError
from feedback_app.exchange.archive import DAMAGED
from feedback_app.exchange.dataset import DATA
from feedback_app.exchange.forms import AUDIO_COLUMNS
from feedback_app.exchange.formulas import as_typed
from feedback_app.exchange.other_forms import from_arena, from_trl
from feedback_app.exchange.record import COLUMNS

Numbered = tuple[int, Row | str]
ENDINGS = (".csv", ".jsonl", ".ndjson", ".json", ".parquet", ".npz")
MAX_UNPACKED = 8 << 30
TEXTS = {column.name for column in (*COLUMNS, *AUDIO_COLUMNS) if column.kind == "string"}
NEEDED = {"pair_id", "annotator", "choice"}


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The data file that a path means: itself, or the one in an export's folder or zip.

    What lies beside the yielded file is what the export brought along.
    """
    if path.is_dir():
        yield _data_in(path)
    elif path.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory() as folder:
            _unpack(path, Path(folder))
            yield _data_in(Path(folder))
    elif path.is_file():
        yield path
    else:
        raise NotFoundError(f"{path}: there is no such file")


def _data_in(folder: Path) -> Path:
    found = [path for ending in ENDINGS if (path := folder / f"{DATA}{ending}").is_file()]
    if len(found) != 1:
        raise InvalidError(f"{folder.name}: holds no single {DATA} file, so it is no export")
    return found[0]


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_UNPACKED:
                raise InvalidError(f"{path.name}: unpacks to more than 8 GB")
            archive.extractall(folder)  # drops absolute paths and `..`
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except (*DAMAGED, OSError) as error:
        raise InvalidError(f"{path.name}: the zip cannot be read ({error})") from error


def read_votes(path: Path) -> Iterator[Numbered]:
    """(line, row or reason) of every row of a data file."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        rows = _parquet(path)
    elif ending == ".npz":
        rows = _npz(path)
    elif ending in (".csv", ".jsonl", ".ndjson", ".json"):
        rows = _text(path, ending)
    else:
        raise InvalidError(
            f"{path.name}: votes are imported from .csv, .jsonl, .parquet or .npz files, or from "
            "the folder or zip of an export"
        )
    for line, row in rows:
        yield line, row if isinstance(row, str) else _as_record(row)


def _as_record(row: Row) -> Row | str:
    """A row in terms of the record, whichever form it is in."""
    if "prompt" in row and "chosen" in row:
        return from_trl(row)
    if "question_id" in row and "winner" in row:
        return from_arena(row)
    return row


def _text(path: Path, ending: str) -> Iterator[Numbered]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv_rows(path.name, file) if ending == ".csv" else _json_rows(file)
    except UnicodeDecodeError as error:
        raise InvalidError(f"{path.name}: not UTF-8 text ({error.reason})") from error


def _csv_rows(name: str, file: Iterator[str]) -> Iterator[Numbered]:
    reader = csv.DictReader(file)
    try:
        missing = NEEDED - set(reader.fieldnames or ())
    except csv.Error as error:
        raise InvalidError(f"{name}: not CSV ({error})") from error
    if missing:
        raise InvalidError(f"{name}: the header lacks {', '.join(sorted(missing))}")
    try:
        for row in reader:
            extra = None in row or None in row.values()
            yield reader.line_num, "wrong number of columns" if extra else _typed(row)
    except csv.Error as error:
        yield reader.line_num, f"not CSV ({error})"


def _typed(row: Row) -> Row:
    """Text of a spreadsheet without the apostrophes that kept it from being a formula."""
    return {name: as_typed(value) if name in TEXTS else value for name, value in row.items()}


def _json_rows(file: Iterator[str]) -> Iterator[Numbered]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield number, f"not JSON ({error})"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"


def _parquet(path: Path) -> Iterator[Numbered]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = NEEDED - set(file.schema_arrow.names)
            if missing:
                raise InvalidError(f"{path.name}: lacks the columns {', '.join(sorted(missing))}")
            number = 0
            for batch in file.iter_batches(2000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise InvalidError(f"{path.name}: the Parquet file cannot be read ({error})") from error


def _npz(path: Path) -> Iterator[Numbered]:
    try:
        with np.load(path, allow_pickle=False) as data:
            votes, lengths = data["votes"], data["lengths"]
            acts = {side: data[f"fragments{k}_acts"] for k, side in ((1, "a"), (2, "b"))}
    except (*DAMAGED, OSError, KeyError) as error:
        raise InvalidError(
            f"{path.name}: not fragments and preferences as an export writes them ({error})"
        ) from error
    ends = np.cumsum(lengths)
    whole = len(votes) == len(lengths) and (len(ends) == 0 or ends[-1] == len(acts["a"]))
    if not whole or len(acts["a"]) != len(acts["b"]):
        raise InvalidError(f"{path.name}: votes, lengths and actions do not fit each other")
    for number, (text, end, length) in enumerate(zip(votes, ends, lengths, strict=True), start=1):
        try:
            row: Any = json.loads(str(text))
        except json.JSONDecodeError as error:
            yield number, f"not JSON ({error})"
            continue
        if not isinstance(row, dict):
            yield number, "not a JSON object"
            continue
        taken = {f"actions_{s}": acts[s][end - length : end].tolist() for s in ("a", "b")}
        yield number, row | taken
