"""`python -m feedback_app.exchange`: write one export from a record file, as a run with progress.

The app starts it for large exports: it writes the record first, so this process never opens the
database. `--query` holds what `Query.to_json` gives.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from feedback_app.errors import AppError, InvalidError
from feedback_app.exchange.dataset import write_dataset, zipped
from feedback_app.exchange.query import Query, query_from
from rlhf_core.command_line import guarded
from rlhf_core.errors import DataError
from rlhf_core.files import read_json
from rlhf_core.runs import RunFolder, running


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m feedback_app.exchange",
        description="Write one export of the preferences from a record file, with progress.",
    )
    parser.add_argument("--record", type=Path, required=True, help="Parquet of the full record")
    parser.add_argument("--query", type=Path, required=True, help="JSON: form, audio, features, …")
    parser.add_argument("--workspace", type=Path, required=True, help="for audio and features")
    parser.add_argument("--destination", type=Path, required=True, help="folder to write into")
    parser.add_argument("--zip", action="store_true", help="make a zip beside it, for downloads")
    parser.add_argument("--output_dir", type=Path, required=True, help="the run's folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that is explained, 130 stopped."""
    options = build_parser().parse_args(argv)

    def body() -> None:
        query = read_query(options.query)
        run = RunFolder(options.output_dir, "export", query.to_json())
        with running(run):
            _write(options, query, run)

    return guarded(body)


def _write(options: argparse.Namespace, query: Query, run: RunFolder) -> None:
    share = 0.6 if options.zip else 1.0  # of the time, for what comes before the zip
    try:
        written = write_dataset(
            options.record, query, options.workspace, options.destination,
            lambda done, message: run.progress(share * done, message),
        )  # fmt: skip
        if options.zip:
            zipped(written.folder, lambda done: run.progress(share + (0.99 - share) * done, "zip"))
    except AppError as error:
        raise DataError(str(error)) from error
    print(f"{written.rows} votes in {written.data}")
    run.finish(written.to_json() | {"metrics": {"rows": written.rows}}, f"{written.rows} votes")


def read_query(path: Path) -> Query:
    try:
        return query_from(read_json(path))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise DataError(f"{path}: not the query of an export ({error})") from error
    except InvalidError as error:
        raise DataError(f"{path}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
