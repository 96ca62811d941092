"""`python -m feedback_app.sql_box`: one SELECT over a snapshot of the votes, shut in.

The query runs in a process of its own, on an in-memory DuckDB that holds a copy of the snapshot and
nothing else: no accounts, no sessions, no live database. After the copy, file and network access
are switched off and the configuration is locked; memory, time and rows are limited. The query
comes by standard input, the answer is one JSON object on standard output.

Tables: `all_votes` is the record (see `exchange.record`), `votes` those of it that people cast,
`pairs` one row per pair with its answers and how far they agree, `edits` one row per edit heard,
`beats` one row per beat of an edit with the action's name.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb

from feedback_app.errors import InvalidError
from feedback_app.exchange.formulas import harmless
from rlhf_core.editing.actions import ACTION_NAMES
from rlhf_core.files import atomic_path

CELL = 300  # characters of a value that the table shows; the CSV has it whole
CSV_ROWS = 100_000
BLOCK = 1000
ADDRESS_SPACE = 4 << 30
VIEWS = (
    "CREATE VIEW votes AS SELECT * FROM all_votes WHERE NOT simulated",
    """CREATE VIEW pairs AS
        SELECT pair_id, any_value(song_id) AS song_id, any_value(song_title) AS song_title,
            any_value(split) AS split, any_value(policy_a) AS policy_a,
            any_value(policy_b) AS policy_b, count(*) AS n_votes,
            count(*) FILTER (choice = 'a') AS for_a, count(*) FILTER (choice = 'b') AS for_b,
            count(*) FILTER (choice IN ('tie', 'both_bad')) AS ties,
            CASE WHEN count(*) FILTER (choice <> 'skip') >= 2 THEN
                greatest(for_a, for_b, count(*) FILTER (choice = 'tie'),
                    count(*) FILTER (choice = 'both_bad')) / count(*) FILTER (choice <> 'skip')
                END AS agreement
        FROM votes WHERE pool <> 'repeat' GROUP BY pair_id""",
    """CREATE VIEW edits AS
        SELECT DISTINCT ON (edit_id) * FROM (
            SELECT edit_a AS edit_id, song_id, song_title, start_beat, end_beat,
                policy_a AS policy, preset_a AS preset, temperature_a AS temperature,
                seed_a AS seed, duration_a AS duration_s, actions_a AS actions,
                segments_a AS segments FROM all_votes
            UNION ALL
            SELECT edit_b, song_id, song_title, start_beat, end_beat, policy_b, preset_b,
                temperature_b, seed_b, duration_b, actions_b, segments_b FROM all_votes)""",
    """CREATE VIEW beats AS
        SELECT edit_id, policy, song_id, start_beat + place - 1 AS beat, action_names[action + 1]
            AS action FROM (
            SELECT edit_id, policy, song_id, start_beat, unnest(actions) AS action,
                generate_subscripts(actions, 1) AS place, {names} AS action_names FROM edits)""",
)
LOCKS = (
    "SET enable_external_access = false",
    "SET allow_community_extensions = false",
    "SET lock_configuration = true",
)
READS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def open_box(records: Path, memory_mb: int) -> Any:
    """The in-memory database with the snapshot in it, shut."""
    box = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    box.execute(
        "CREATE TABLE all_votes AS SELECT * EXCLUDE (path_a, path_b, path_original)"
        " REPLACE (listened::JSON AS listened, client::JSON AS client) FROM read_parquet(?)",
        [str(records)],
    )
    names = "[" + ", ".join(f"'{name}'" for name in ACTION_NAMES) + "]"
    for view in VIEWS:
        box.execute(view.replace("{names}", names))
    for lock in LOCKS:
        box.execute(lock)
    return box


def one_select(query: str) -> Any:
    """The statement of a query. Raises InvalidError unless it is one that only reads."""
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise InvalidError(words(error)) from error
    if len(statements) != 1:
        raise InvalidError(
            f"{len(statements)} statements; write one SELECT"
            if statements
            else "there is nothing to ask; write a SELECT"
        )
    if statements[0].type not in READS:
        kind = statements[0].type.name
        raise InvalidError(f"{kind} is not allowed here: the box only reads. Write a SELECT.")
    return statements[0]


def words(error: duckdb.Error) -> str:
    """What DuckDB says, without its traceback."""
    return str(error).partition("\n\nStack Trace")[0].strip()


def ask(box: Any, query: str, rows: int, seconds: float, target: Path | None) -> dict[str, Any]:
    """Run one SELECT; {columns, types, rows, count, more, seconds}. Rows go to `target` as CSV.

    rows: how many the answer shows; the CSV holds up to `CSV_ROWS`. Raises InvalidError in words.
    """
    statement = one_select(query)
    late = threading.Event()

    def stop() -> None:
        late.set()
        box.interrupt()

    timer = threading.Timer(seconds, stop)
    started = time.monotonic()
    timer.start()
    try:
        cursor = box.execute(statement)
        columns = [column[0] for column in cursor.description]
        types = [str(column[1]) for column in cursor.description]
        found = _fetch(cursor, rows if target is None else CSV_ROWS)
    except duckdb.Error as error:
        if late.is_set():
            raise InvalidError(
                f"stopped after {seconds:g} s; ask for less, or take the Parquet export along"
            ) from error
        raise InvalidError(words(error)) from error
    finally:
        timer.cancel()
    whole = rows if target is None else CSV_ROWS
    more, found = len(found) > whole, found[:whole]
    if target is not None:
        _write_csv(target, columns, found)
    shown = [[_short(value) for value in row] for row in found[:rows]]
    return {
        "columns": columns,
        "types": types,
        "rows": shown,
        "count": len(found),
        "more": more,
        "seconds": round(time.monotonic() - started, 3),
    }


def _fetch(cursor: Any, limit: int) -> list[tuple[Any, ...]]:
    """Up to one row more than `limit`."""
    found: list[tuple[Any, ...]] = []
    while len(found) <= limit and (block := cursor.fetchmany(min(BLOCK, limit + 1 - len(found)))):
        found += block
    return found


def _text(value: Any) -> str:
    if isinstance(value, (list, dict, tuple)):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _cell(value: Any) -> str:
    """A value in the CSV; text is not run as a formula by a spreadsheet."""
    return harmless(value) if isinstance(value, str) else _text(value)


def _short(value: Any) -> str | None:
    if value is None:
        return None
    text = _text(value)
    return text if len(text) <= CELL else f"{text[:CELL]}…"


def _write_csv(path: Path, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(harmless(name) for name in columns)
        writer.writerows([_cell(value) for value in row] for row in rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m feedback_app.sql_box", description=__doc__)
    parser.add_argument("--records", type=Path, required=True, help="Parquet of the full record")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--memory_mb", type=int, default=512)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    query = sys.stdin.read()
    answer: dict[str, Any]
    try:
        box = open_box(options.records, options.memory_mb)
        answer = ask(box, query, options.rows, options.seconds, options.csv)
    except (InvalidError, OSError) as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "the query needs too much memory; ask for less"}
    print(json.dumps(answer, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
