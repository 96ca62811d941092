"""One DuckDB file, many reading threads, one writing thread with group commit.

Every thread reads through a cursor of its own (a connection shared without `cursor()` returns
wrong rows). Every write is a function that takes a cursor; one thread runs them, several in one
transaction when several wait, and answers each only after COMMIT. So writes never conflict, a
commit's fsync is shared, and an acknowledged write survives a kill.

A write that refuses (AppError) must do so before it changes anything; any other exception rolls
the whole group back and runs its writes again one by one, so that only the faulty one fails.

Writes of one kind that come in great numbers (votes) are given to a `Batch` instead: it gets all
that wait at once, so that many votes are one INSERT. What a batch keeps in memory beside the
database learns of roll-backs (`on_rollback`) and of other writes (`foreign`, a count). Where the
database is shared (`shared_database`), batches of several apps let each other know what they did
(`tell`, `take_news`).
"""

from __future__ import annotations

import itertools
import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import duckdb

from feedback_app.errors import AppError, StorageError, WorkspaceError
from feedback_app.schema import migrate, needs_migration
from rlhf_core.files import atomic_path, copy_file

T = TypeVar("T")
Row = dict[str, Any]
Batch = Callable[[Any, list[Any]], list[Any]]
"""(cursor, items) -> an outcome per item; an AppError among them refuses that item."""
News = tuple[str, list[Any]]
"""What happened, and to what."""
GROUP = 64
MEGABYTE = 1024 * 1024
LOG_MB = (6, 16)
LOG_SHARE = 16
LOG_REVIEWED_EVERY = 4096  # transactions


def clock() -> datetime:
    """The time of the machine, which may jump; tests put their own in its place."""
    return datetime.now(UTC)


def utc_now() -> datetime:
    """Now, in UTC, without a zone, as the database stores it."""
    return clock().replace(tzinfo=None)


def storage_error(path: Path, error: BaseException) -> StorageError:
    """The words for a write that the disk did not take."""
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StorageError(
        f"{path.name} could not be written ({why}). Nothing was stored. "
        "Make room on the disk: the app then goes on by itself."
    )


def _refused_by_disk(error: BaseException) -> bool:
    """Whether it was the disk (DuckDB tells some of these only in its words)."""
    if isinstance(error, (duckdb.FatalException, duckdb.IOException, OSError)):
        return True
    text = str(error)
    return isinstance(error, duckdb.Error) and (
        "No space left" in text or "Could not write" in text or "File too large" in text
    )


def fetch(cursor: Any, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
    """All rows of a query as dictionaries."""
    cursor.execute(sql, parameters if isinstance(parameters, Mapping) else list(parameters))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@dataclass
class _Write:
    work: Callable[[Any], Any] | None = None
    batch: Batch | None = None
    item: Any = None
    alone: bool = False
    future: Future[Any] = field(default_factory=Future)


class Database:
    """The open database of one workspace."""

    shared = False  # whether other processes write to it too

    def __init__(self, path: Path, *, min_free_mb: int = 0, memory_mb: int | None = None) -> None:
        self.path, self._memory_mb = path, memory_mb
        self._min_free = min_free_mb * MEGABYTE
        self._connection = self._open()
        self._generation, self._lost = 0, False
        self._groups = 0
        self._cursors: WeakSet[Any] = WeakSet()
        self.foreign = 0  # writes so far that were not a batch's; read it on the writer thread
        self.others = 0  # times that what other apps wrote is not known in detail; likewise
        self.on_rollback: list[Callable[[], None]] = []
        self._local = threading.local()
        self._queue: queue.Queue[_Write | None] = queue.Queue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def _open(self) -> Any:
        return bounded(open_file(self.path), self._memory_mb)

    def cursor(self) -> Any:
        """This thread's own cursor, for reading."""
        if getattr(self._local, "generation", None) != self._generation:
            self._local.generation = self._generation
            self._local.cursor = self._connection.cursor()
            self._cursors.add(self._local.cursor)
        return self._local.cursor

    def own_cursor(self) -> tuple[Any, int]:
        """A cursor for whoever keeps one over many calls, and the generation that it belongs to:
        once `generation` is another one it is closed, as it is when the database is."""
        cursor = self.cursor().cursor()
        self._cursors.add(cursor)
        return cursor, self._generation

    @property
    def generation(self) -> int:
        """How often the file was opened anew."""
        return self._generation

    def waiting(self) -> int:
        """Writes that wait for their turn."""
        return self._queue.qsize()

    def is_writing(self) -> bool:
        """Whether the writer thread lives, and DuckDB has not given the database up."""
        return self._thread.is_alive() and not self._lost

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return fetch(self.cursor(), sql, parameters)

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def submit(self, work: Callable[[Any], T]) -> Future[T]:
        """Queue a write; the future is done after its commit."""
        return self._put(_Write(work))

    def submit_item(self, batch: Batch, item: Any) -> Future[Any]:
        """Queue an item for a batch; the future is done after its commit."""
        return self._put(_Write(batch=batch, item=item))

    def _put(self, write: _Write) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise WorkspaceError("the app is shutting down; try again in a moment")
            self._queue.put(write)
        return write.future

    def write(self, work: Callable[[Any], T]) -> T:
        """Run a write and wait until it is committed."""
        return self.submit(work).result()

    def between_commits(self, work: Callable[[Any], T]) -> T:
        """Run something on the writer thread, outside of any transaction; writes wait for it."""
        future: Future[T] = self._put(_Write(work, alone=True))
        return future.result()

    def tell(self, name: str, values: Sequence[Any]) -> None:
        """Let other apps know what a batch did; on the writer thread, within its transaction."""

    def take_news(self) -> list[News]:
        """What batches of other apps did since the last call; on the writer thread."""
        return []

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement as a write of its own."""
        self.write(lambda cursor: cursor.execute(sql, list(parameters)) and None)

    def close(self) -> None:
        """Commit what waits, then close the file; its log goes into it with the last cursor."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        for cursor in (*self._cursors, self._connection):
            cursor.close()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, last = [first], False
            while len(group) < GROUP and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    last = True
                    break
                group.append(following)
            # A caller that went away before its turn takes its write with it; later it cannot.
            taken = [write for write in group if write.future.set_running_or_notify_cancel()]
            for alone, writes in itertools.groupby(taken, lambda write: write.alone):
                if alone:
                    self._each_alone(writes)
                else:
                    self._commit(list(writes))
            if last:
                return

    def _commit(self, group: list[_Write]) -> None:
        """Run a group in one transaction and answer; on a fault, each by itself."""
        if not group:
            return
        try:
            self._check_disk()
            cursor = self.cursor()
            self._begin(cursor)
            outcomes = self._outcomes(cursor, group)
            self._before_commit(cursor)
            cursor.execute("COMMIT")
            self._committed()
        except BaseException as error:  # noqa: BLE001 - the writer must go on; the caller gets it
            self._undo(error)
            if len(group) == 1 or self._lost or isinstance(error, StorageError):
                told = storage_error(self.path, error) if _refused_by_disk(error) else error
                for write in group:
                    write.future.set_exception(told)
            else:
                for write in group:
                    self._commit([write])
            return
        for write, result in zip(group, outcomes, strict=True):
            if isinstance(result, AppError):
                write.future.set_exception(result)
            else:
                write.future.set_result(result)

    def _each_alone(self, writes: Iterable[_Write]) -> None:
        for write in writes:
            assert write.work is not None
            try:
                write.future.set_result(write.work(self.cursor()))
            except BaseException as error:  # noqa: BLE001 - as in `_commit`
                write.future.set_exception(error)

    def _begin(self, cursor: Any) -> None:
        cursor.execute("BEGIN")

    def _before_commit(self, cursor: Any) -> None:
        """All of a group is written; nobody was answered yet."""

    def _committed(self) -> None:
        """A transaction of `_begin` is in the database."""
        self._groups += 1
        if self._groups % LOG_REVIEWED_EVERY == 0:
            bound_log(self.cursor(), self.path)

    def _check_disk(self) -> None:
        """Refuse before DuckDB meets a full disk; open the file again where it has met one."""
        if self._min_free and (free := shutil.disk_usage(self.path.parent).free) < self._min_free:
            raise storage_error(
                self.path,
                OSError(
                    f"only {free // MEGABYTE} MB are free, {self._min_free // MEGABYTE} are kept "
                    "back (setting min_free_mb)"
                ),
            )
        if self._lost:
            # DuckDB keeps what it gave up for as long as a cursor of any thread is open
            for cursor in (*self._cursors, self._connection):
                cursor.close()
            self._connection = self._open()
            self._generation, self._lost = self._generation + 1, False

    def _undo(self, error: BaseException) -> None:
        """Roll back what a fault left; note it where DuckDB has given the database up."""
        self._lost = self._lost or isinstance(error, duckdb.FatalException)
        if not self._lost:
            self._roll_back()
        for forget in self.on_rollback:
            forget()

    def _roll_back(self) -> None:
        try:
            self.cursor().execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # BEGIN itself failed, or the fault already ended the transaction

    def _outcomes(self, cursor: Any, group: list[_Write]) -> list[Any]:
        """What each write of a group returns, or the AppError with which it refuses."""
        out: list[Any] = []
        for batch, members in itertools.groupby(group, lambda write: write.batch):
            if batch is not None:
                out += batch(cursor, [write.item for write in members])
                continue
            for write in members:
                assert write.work is not None
                self.foreign += 1
                try:
                    out.append(write.work(cursor))
                except AppError as error:
                    out.append(error)
        return out


def bound_log(connection: Any, path: Path) -> None:
    """Write the log into the file once it has a sixteenth of the file's size, 6 to 16 MB.

    What is only in the log is in memory too, uncompressed. Writing it costs in proportion to the
    whole table (half a second with a million votes, in which votes wait), hence the share. Not
    less than 6: DuckDB adds what the transaction may undo, some MB where many votes came at once.
    """
    least, most = LOG_MB
    size = path.stat().st_size / MEGABYTE if path.exists() else 0
    bound = min(max(least, round(size / LOG_SHARE)), most)
    connection.execute(f"SET GLOBAL checkpoint_threshold = '{bound}MB'")


def bounded(connection: Any, memory_mb: int | None) -> Any:
    """The connection, its database in at most so much memory; None: four fifths of the machine's.

    Pages of the file stay in memory once they were read or written; beyond the bound they leave it
    and are read again when they are wanted, and large queries use files beside the database.
    """
    if memory_mb is not None:
        connection.execute(f"SET GLOBAL memory_limit = '{memory_mb}MiB'")
    return connection


def _connect(path: Path) -> Any:
    try:
        connection = duckdb.connect(str(path))
        bound_log(connection, path)
        return connection
    except duckdb.Error as error:
        raise WorkspaceError(
            f"{path}: the database cannot be opened ({str(error).splitlines()[0]}). "
            "Another process may hold it, the disk may be full, or the file is damaged; "
            "`python -m feedback_app doctor` tells more."
        ) from error


def open_file(path: Path) -> Any:
    """The database in the newest schema.

    A schema is made or changed in a copy that then takes the file's place: DuckDB 1.5 cannot
    replay its log of an added column with a default (duckdb issue 18259), so a kill between the
    change and the next checkpoint would leave a file that does not open. The file of an older
    schema is kept in backups/.
    """
    if path.exists():
        connection = _connect(path)
        try:
            version = needs_migration(connection)
        except BaseException:
            connection.close()
            raise
        if version is None:
            return connection
        connection.close()  # writes the log into the file, so that copies are whole
    try:
        if path.exists():
            _check_whole(path)
            stamp = utc_now().strftime("%Y%m%d-%H%M%S")
            kept = path.parent / "backups" / f"{path.stem}-schema{version}-{stamp}{path.suffix}"
            copy_file(path, kept)
        with atomic_path(path) as temporary:
            if path.exists():
                shutil.copyfile(path, temporary)
            connection = _connect(temporary)
            try:
                migrate(connection)
            finally:
                connection.close()
            _check_whole(temporary)
    except OSError as error:
        raise WorkspaceError(
            f"{path}: its schema could not be brought forward ({error}). "
            "The file is as it was; make room and start again."
        ) from error
    return _connect(path)


def _check_whole(path: Path) -> None:
    """A closed database has no log beside it, unless the disk was full."""
    if path.with_name(f"{path.name}.wal").exists():
        raise OSError(f"{path.name}.wal could not be written into {path.name}")
