"""Operations on the dataset as a whole: results, exports, imports."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict, Unpack
from uuid import uuid4

from feedback_app.asking import ask_box
from feedback_app.database import Row
from feedback_app.errors import InvalidError, NotFoundError
from feedback_app.exchange import Query, query_from
from feedback_app.exchange.dataset import Written, preview, write_dataset, zipped
from feedback_app.operations_base import Base
from feedback_app.snapshots import write_records
from feedback_app.transfers import Transfers
from rlhf_core.files import atomic_path, write_text

AT_ONCE = 10_000  # votes; larger exports are runs
PREVIEWED = 2000  # votes that a preview looks through


class Wanted(TypedDict, total=False):
    """The filters of an export, as `exchange.Query` explains them."""

    only_simulated: bool
    rounds: list[int] | None
    versions: list[str] | None
    annotators: list[str] | None
    pools: list[str] | None
    splits: list[str] | None
    agreement: float | None
    audio: str | None
    features: bool
    pseudonyms: bool


def query_of(format: str, include_simulated: bool, **wanted: Unpack[Wanted]) -> Query:
    """The query that an operation's arguments mean."""
    values: dict[str, Any] = dict(wanted)
    only = values.pop("only_simulated", False)
    voters = "simulated" if only else "both" if include_simulated else "human"
    return query_from(values | {"form": format, "voters": voters})


class DataOperations(Base):
    """What the loop has learned so far, and the data to take along."""

    def export(
        self,
        format: str = "parquet",
        destination: str | None = None,
        include_simulated: bool = False,
        **wanted: Unpack[Wanted],
    ) -> Row:
        """Write the dataset into a folder of its own under `destination` (default: exports/ here).

        destination may also be a file name with the form's ending. Small ones are written at once:
        {path, folder, rows, sha256, missing_files}; large ones, or with audio, by a run whose
        results are the same: {run_id}.
        """
        query = query_of(format, include_simulated, **wanted)
        if destination is not None and Path(destination).suffix == query.suffix:
            return self._export_file(query, Path(destination).expanduser())
        target = self.workspace.exports
        if destination is not None:
            target = Path(destination).expanduser().absolute()
        if self.store.count_record(query) > AT_ONCE or query.audio is not None:
            settings = {"query": query.to_json(), "destination": str(target)}
            return {"run_id": self.jobs.submit("export", settings)}
        return self._write(query, target).to_json()

    def _write(self, query: Query, target: Path) -> Written:
        with self._record(query) as record:
            written = write_dataset(record, query, self.workspace.root, target)
        if target == self.workspace.exports:
            zipped(written.folder)
        return written

    def _export_file(self, query: Query, path: Path) -> Row:
        """Only the data file, with its card and its hash beside it."""
        if query.audio is not None or query.features:
            raise InvalidError("audio and features need a folder; name one instead of a file")
        with TemporaryDirectory(dir=self.workspace.exports, prefix=".file-") as folder:
            written = self._write(query, Path(folder))
            try:
                with atomic_path(path) as temporary:
                    shutil.copyfile(written.data, temporary)
                card = (written.folder / "README.md").read_text(encoding="utf-8")
                write_text(path.with_name(f"{path.name}.README.md"), card)
                sums = f"{written.sha256}  {path.name}\n"
                write_text(path.with_name(f"{path.name}.sha256"), sums)
            except OSError as error:
                raise InvalidError(f"{path}: cannot be written ({error})") from error
        return {"path": str(path), "rows": written.rows, "sha256": written.sha256}

    @contextmanager
    def _record(self, query: Query, limit: int | None = None) -> Iterator[Path]:
        """A record file that lasts as long as it is needed."""
        path = self.workspace.exports / f".record-{uuid4().hex}.parquet"
        try:
            self.store.copy_record(path, query, limit)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def preview_export(
        self,
        format: str = "parquet",
        include_simulated: bool = False,
        limit: int = 8,
        **wanted: Unpack[Wanted],
    ) -> Row:
        """What an export would hold: {votes, columns: [{name, kind, about}], rows}."""
        query = query_of(format, include_simulated, **wanted)
        with self._record(query, PREVIEWED) as record:
            columns, rows = preview(record, query, limit)
        told = [{"name": c.name, "kind": c.kind, "about": c.about} for c in columns]
        return {"votes": self.store.count_record(query), "columns": told, "rows": rows}

    def export_choices(self) -> Row:
        """What the filters of an export can name: {versions, annotators, rounds}."""
        return self.store.export_choices()

    def export_file(self, name: str) -> Path:
        """A written export by its name: `<export>.zip`, `<export>.<suffix>`, `<export>.README.md`
        or the CSV of a query."""
        path = self.workspace.child(self.workspace.exports, name)
        stem, _, ending = name.partition(".")
        inside = (
            self.workspace.exports
            / stem
            / ("README.md" if ending == "README.md" else f"preferences.{ending}")
        )
        return path if path.exists() or not inside.is_file() else inside

    def import_votes(self, path: str, versions_as: str = "") -> Row:
        """{accepted, rejected: [{line, reason}]}"""
        return self._transfers().import_votes(Path(path), versions_as)

    def sql(
        self, query: str, rows: int = 200, snapshot: str | None = None, csv: str | None = None
    ) -> Row:
        """One SELECT over a snapshot of the votes; see `sql_box` for its tables.

        snapshot: the one that an earlier answer named, else the votes as they are now. csv: a file
        to write; default: one in exports/. Returns {columns, types, rows, count, more, seconds,
        snapshot, csv}. Raises InvalidError with what is wrong in words.
        """
        records = self._records(snapshot)
        name = hashlib.sha256(f"{records.stem}\n{query}".encode()).hexdigest()[:12]
        target = self.workspace.exports / f"query-{name}.csv" if csv is None else Path(csv)
        answer = ask_box(query, records, rows, target)
        return answer | {"snapshot": records.stem, "csv": str(target)}

    def _records(self, snapshot: str | None) -> Path:
        """The record file that a query reads: the named one, or of the votes as they are now."""
        folder = self.workspace.snapshots / "records"
        if snapshot is not None:
            path = self.workspace.child(folder, f"{snapshot}.parquet")
            if not path.is_file():
                raise NotFoundError(f"there is no snapshot {snapshot!r} any more; leave it out")
            return path
        return write_records(self.store, folder)

    def export_pairs(self, directory: str) -> Row:
        """Pairs with their audio, for listening elsewhere; {path, pairs}."""
        return self._transfers().export_pairs(Path(directory))

    def _transfers(self) -> Transfers:
        return Transfers(self.store, self.workspace)

    def status(self) -> dict[str, Any]:
        """What the workspace holds, in a few numbers."""
        return {
            **self.store.vote_totals(),
            "pairs": self.store.pool_counts(self.settings.votes_per_pair)["total"],
            "songs": len(self.store.songs()),
        }
