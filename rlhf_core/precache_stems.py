"""Analyse songs ahead of time and fill the cache.

    python -m rlhf_core.precache_stems training_data/
    python -m rlhf_core.precache_stems song.wav other.flac --cache_dir cache --output_dir runs/1
    python -m rlhf_core.precache_stems training_data/ --status      # how large the cache is
    python -m rlhf_core.precache_stems training_data/ --clear       # empty it

A folder that has `train/` or `test/` is a data folder: the songs in both are analysed into its
`.cache`. Songs that are cached already cost only a hash, so the command can be stopped and started
again, and two of them on the same folder share the work. --stems demucs separates stems by Demucs
where it is installed and has its weights; proxies are the default. With --output_dir it writes a
run folder, one line per song in songs.jsonl as each is done.
Exit code 0 when at least one song is usable, 2 otherwise, 130 on Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from rlhf_core.audio.cache import cache_status, clear_cache
from rlhf_core.audio.features import FEATURISERS
from rlhf_core.audio.library import (
    SPLITS,
    STEM_SOURCES,
    default_cache_dir,
    find_songs,
    load_song,
    song_id_of,
)
from rlhf_core.command_line import guarded
from rlhf_core.errors import AudioError, CoreError, DataError
from rlhf_core.runs import RunFolder, running

_COLUMNS: Final = (
    "song_id",
    "path",
    "title",
    "duration_s",
    "sample_rate",
    "channels",
    "n_beats",
    "tempo_bpm",
    "beats_per_bar",
    "beat_source",
    "beat_confidence",
    "stem_source",
    "loudness_lufs",
    "error",
    "beat_times",
    "bar_phase",
    "waveform",
)


@dataclass(frozen=True)
class Task:
    """One song to analyse."""

    path: Path
    cache_dir: Path
    featuriser: str
    stem_source: str | None = None  # None: as before, proxies for a new song


def _blank(task: Task) -> dict[str, Any]:
    """A line in which nothing but the file's place is known."""
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {"path": str(task.path.resolve()), "title": task.path.stem}
    return row | {"beat_times": [], "bar_phase": [], "waveform": []}


def describe(task: Task) -> dict[str, Any]:
    """Analyse one song (or take it from the cache): its line of songs.jsonl."""
    row = _blank(task)
    try:
        row["song_id"] = song_id_of(task.path)
        song = load_song(
            task.path, task.cache_dir, featuriser=task.featuriser, stem_source=task.stem_source
        )
    except CoreError as error:
        return row | {"error": str(error)}
    except (OSError, MemoryError) as error:
        return row | {"error": f"{task.path}: {type(error).__name__}: {error}"}
    grid = song.state.grid
    return row | {
        "duration_s": song.duration_s,
        "sample_rate": song.sample_rate,
        "channels": song.channels,
        "n_beats": grid.n_beats,
        "tempo_bpm": grid.tempo_bpm,
        "beats_per_bar": grid.beats_per_bar,
        "beat_source": grid.source,
        "beat_confidence": grid.confidence,
        "stem_source": song.state.stem_source,
        "loudness_lufs": song.loudness_lufs,
        "beat_times": [round(float(time), 5) for time in grid.times],
        "bar_phase": grid.bar_phase.tolist(),
        "waveform": [round(float(peak), 4) for peak in song.waveform],
    }


def collect(
    paths: Sequence[Path],
    cache_dir: Path | None,
    featuriser: str = "fast",
    stem_source: str | None = None,
) -> list[Task]:
    """The songs that files and folders stand for. Raises CoreError where there are none."""
    tasks: list[Task] = []
    for path in paths:
        if path.is_dir():
            splits = [path / split for split in SPLITS if (path / split).is_dir()]
            found = [song for folder in splits or [path] for song in find_songs(folder)]
            cache = cache_dir or default_cache_dir(path)
        elif path.exists():
            found, cache = [path], cache_dir or default_cache_dir(path.parent)
        else:
            raise AudioError(f"{path}: there is no such file or folder; check the name")
        tasks += [Task(song, cache, featuriser, stem_source) for song in found]
    if not tasks:
        names = ", ".join(str(path) for path in paths)
        raise DataError(f"{names}: no WAV, FLAC, OGG or MP3 files there (nor in train/ or test/)")
    return tasks


def _rows(tasks: Sequence[Task], workers: int) -> Iterator[dict[str, Any]]:
    """Lines in the order in which songs are done. A worker that dies costs only its own song."""
    if workers <= 1 or len(tasks) == 1:
        yield from map(describe, tasks)
        return
    left = list(tasks)
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=multiprocessing.get_context("spawn")
    )
    try:
        with _deaf_to_ctrl_c():
            futures = {pool.submit(describe, task): task for task in tasks}
        while futures:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                row = future.result()
                left.remove(futures.pop(future))
                yield row
    except BrokenProcessPool:
        logging.warning("a worker process died; going on with one process a song")
    finally:
        # not `with pool`: leaving it would take back the cancelling, and finish every song
        pool.shutdown(wait=True, cancel_futures=True)
    for task in left:
        yield _alone(task)


def _alone(task: Task) -> dict[str, Any]:
    """One song in a process of its own, so that one that kills it is named and the rest goes on."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            with _deaf_to_ctrl_c():
                future = pool.submit(describe, task)
            return future.result()
        except BrokenProcessPool:
            why = f"{task.path}: its analysis was killed, probably for want of memory; shorten it"
            return _blank(task) | {"error": why}


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C, which reaches the whole group: the parent answers."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals can only be set in the main thread
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def analyse_all(tasks: Sequence[Task], workers: int, run: RunFolder | None) -> tuple[int, int]:
    """(usable, unusable) songs; each is reported as soon as it is done."""
    usable = failed = 0
    with tqdm(total=len(tasks), desc="analysing", unit="song") as bar:
        for row in _rows(tasks, workers):
            if row["error"] is None:
                usable += 1
                if row["beat_source"] == "fixed":
                    bar.write(f"note: {row['title']}: no beat found; a fixed grid is used")
            else:
                failed += 1
                bar.write(f"error: {row['error']}", file=sys.stderr)
            if run is not None:
                run.append("songs.jsonl", row)
                run.progress((usable + failed) / len(tasks), f"analysed {row['title']}")
            bar.update()
    if not usable:
        raise DataError(f"none of the {failed} files is usable; the reasons are above")
    return usable, failed


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.precache_stems",
        description="Analyse songs (beats, features, stem proxies) and fill the cache.",
    )
    parser.add_argument("paths", nargs="+", type=Path, help="folders with songs, or song files")
    parser.add_argument(
        "--cache_dir", type=Path, help="where analyses are kept (default: FOLDER/.cache)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--featuriser", choices=FEATURISERS, default="fast")
    parser.add_argument(
        "--stems",
        choices=STEM_SOURCES,
        help="where stems come from (default: as the song was analysed before, else proxies)",
    )
    parser.add_argument(
        "--machine", type=_place, default=(1, 1), metavar="I/N",
        help="this is machine I of N on a shared folder: begin with its share of the songs",
    )  # fmt: skip
    parser.add_argument("--output_dir", type=Path, help="write a run folder with songs.jsonl")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--status", action="store_true", help="only show how large the cache is")
    instead.add_argument(
        "--clear", action="store_true", help="only empty the cache; beat corrections stay"
    )
    return parser.parse_args(argv)


def _place(text: str) -> tuple[int, int]:
    """I/N, machine I of N, counted from 1."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, machine I of N, such as 2/8")
    return int(number), int(count)


def in_turn(tasks: Sequence[Task], place: tuple[int, int]) -> list[Task]:
    """All songs, beginning with the share of machine I of N; the others' come after it.

    So machines on one folder meet only where one is slow or gone; a song that another is at just
    then is waited for, and found in the cache (`rlhf_core.audio.cache.song_lock`).
    """
    number, count = place
    first = len(tasks) * (number - 1) // count
    return [*tasks[first:], *tasks[:first]]


def _caches(args: argparse.Namespace) -> list[Path]:
    """The cache folders that the arguments stand for, each once."""
    if args.cache_dir is not None:
        return [args.cache_dir]
    folders = []
    for path in args.paths:
        if not path.exists():
            raise AudioError(f"{path}: there is no such file or folder; check the name")
        folders.append(default_cache_dir(path if path.is_dir() else path.parent))
    return list(dict.fromkeys(folders))


def _run(args: argparse.Namespace) -> None:
    if args.status or args.clear:
        for folder in _caches(args):
            print(f"cleared {clear_cache(folder)}" if args.clear else cache_status(folder))
        return
    if args.stems == "demucs":
        from rlhf_core.audio import demucs_stems

        demucs_stems.check_available()  # once, before a process is started for each song
    settings: dict[str, Any] = {
        "paths": [str(path) for path in args.paths],
        "cache_dir": str(args.cache_dir) if args.cache_dir else None,
        "workers": args.workers,
        "featuriser": args.featuriser,
        "stems": args.stems,
    }
    run = RunFolder(args.output_dir, "analyse", settings) if args.output_dir else None
    with running(run) if run is not None else nullcontext():
        tasks = collect(args.paths, args.cache_dir, args.featuriser, args.stems)
        usable, failed = analyse_all(in_turn(tasks, args.machine), args.workers, run)
        message = f"{usable} songs analysed" + (f", {failed} not usable" if failed else "")
        if run is not None:
            run.finish({"songs": usable, "failed": failed}, message)
        print(message)


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    # each process uses one core: more threads inside would only fight
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return guarded(lambda: _run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
