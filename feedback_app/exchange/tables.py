"""Tables as files: Parquet, CSV and JSON lines of the same columns, always the same bytes.

CSV: UTF-8, lists and JSON as compact JSON text, empty for null, text that a spreadsheet would run
as a formula behind an apostrophe (`formulas`). JSON lines: one object a line, JSON columns as
objects. Times are ISO text with microseconds and Z in both.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from feedback_app.database import Row
from feedback_app.exchange.formulas import harmless
from feedback_app.exchange.record import Column, arrow_schema

ROW_GROUP = 10_000


def write_table(path: Path, form: str, columns: tuple[Column, ...], rows: Iterable[Row]) -> None:
    """Write rows (plain values by column name) as parquet, csv or jsonl."""
    {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}[form](path, columns, rows)


def moment(value: datetime) -> str:
    """A time in UTC as ISO text."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def compact(value: Any) -> str:
    """JSON text without spaces; NaN is refused."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _parquet(path: Path, columns: tuple[Column, ...], rows: Iterable[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(columns)
    with pq.ParquetWriter(path, schema, compression="zstd", version="2.6") as writer:
        for group in batches(rows, ROW_GROUP):
            arrays = [
                pa.array([row[field.name] for row in group], type=field.type) for field in schema
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _csv(path: Path, columns: tuple[Column, ...], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        # RFC 4180's line ends: with "\n" alone a lone "\r" in a comment would stay unquoted.
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(column.name for column in columns)
        for row in rows:
            writer.writerow([cell(column, row[column.name]) for column in columns])


def cell(column: Column, value: Any) -> str:
    """A value as CSV text."""
    if value is None:
        return ""
    if column.nested:
        return compact(value)
    if column.kind == "string":
        return harmless(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return moment(value) if isinstance(value, datetime) else str(value)


def _jsonl(path: Path, columns: tuple[Column, ...], rows: Iterable[Row]) -> None:
    write_lines(path, ({c.name: plain(c, row[c.name]) for c in columns} for row in rows))


def plain(column: Column, value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, datetime):
        return moment(value)
    return json.loads(value) if column.kind == "json" and value is not None else value


def write_lines(path: Path, rows: Iterable[Row]) -> None:
    """JSON lines."""
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while group := list(islice(iterator, size)):
        yield group
