"""The songs that a bootstrap is made of: a library, and demo songs beside it.

A library of a few songs teaches a trunk little; demo songs (`audio.demo_songs`, synthesised, free)
make up the number. They are written once, into the cache, and analysed there like any other song.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from rlhf_core.audio.demo_songs import write_demo_song
from rlhf_core.audio.library import Song, default_cache_dir, load_library
from rlhf_core.errors import ConfigError

DEMO_FOLDER: Final = "demo_songs"  # in the cache


def songs_with_demo(
    data_dir: Path,
    cache_dir: Path | None,
    count: int,
    report: Callable[[float, str], None] = lambda done, message: None,
) -> list[Song]:
    """Demo songs of seeds 0 to count - 1, then the library's other train songs.

    report(done, message): done of the demo songs written, or of the songs analysed, 0..1. Raises as
    `load_library`.
    """
    if count < 0:
        raise ConfigError(f"--demo_songs is {count}; it must be 0 or more")

    def analysed(done: int, total: int, title: str) -> None:
        report(done / total, "songs analysed")

    own = load_library(data_dir, cache_dir, progress=analysed)
    if not count:
        return own
    cache = Path(cache_dir or default_cache_dir(data_dir))
    folder = cache / DEMO_FOLDER
    (folder / "train").mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(count):
        there = sorted((folder / "train").glob(f"demo_{seed:03d}_*.flac"))
        paths.append(there[0] if there else write_demo_song(folder / "train", seed))
        report((seed + 1) / count, "demo songs")
    wanted = {path.name for path in paths}
    demo = [
        song for song in load_library(folder, cache, progress=analysed) if song.path.name in wanted
    ]
    known = {song.song_id for song in demo}
    return [*demo, *(song for song in own if song.song_id not in known)]
