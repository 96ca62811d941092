"""A bootstrap's songs: one's own, and demo songs beside them. Files stand in for songs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_core.errors import ConfigError
from rlhf_core.reward import own_library
from rlhf_core.reward.own_library import songs_with_demo


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Songs are any files here; the seeds of the demo songs that were synthesised."""
    seeds: list[int] = []

    def write(folder: Path, seed: int) -> Path:
        seeds.append(seed)
        path = folder / f"demo_{seed:03d}_made_up.flac"
        path.write_text(f"demo {seed}")
        return path

    def load(
        folder: Path, cache: Path | None, progress: Callable[[int, int, str], None]
    ) -> list[SimpleNamespace]:
        paths = sorted((folder / "train").glob("*.flac"))
        progress(len(paths), len(paths), paths[-1].stem)
        return [
            SimpleNamespace(path=path, song_id=hashlib.sha256(path.read_bytes()).hexdigest())
            for path in paths
        ]

    monkeypatch.setattr(own_library, "write_demo_song", write)
    monkeypatch.setattr(own_library, "load_library", load)
    return seeds


def test_demo_songs_stand_beside_ones_own_and_are_made_once(
    tmp_path: Path, written: list[int]
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.flac").write_text("mine")
    (tmp_path / "train" / "a demo song of mine.flac").write_text("demo 1")

    def names(count: int) -> list[str]:
        return [song.path.name for song in songs_with_demo(tmp_path, None, count)]

    assert names(0) == ["a demo song of mine.flac", "mine.flac"] and not written
    demo = [f"demo_{seed:03d}_made_up.flac" for seed in range(3)]
    assert names(3) == [*demo, "mine.flac"]  # the same sound is not taken twice
    assert names(2) == [*demo[:2], "mine.flac"]
    assert written == [0, 1, 2]
    said: list[tuple[float, str]] = []
    songs_with_demo(tmp_path, None, 2, lambda done, text: said.append((done, text)))
    assert said == [
        (1.0, "songs analysed"), (0.5, "demo songs"), (1.0, "demo songs"), (1.0, "songs analysed")
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [
        "a demo song of mine.flac",
        "mine.flac",
    ]
    with pytest.raises(ConfigError, match="demo_songs is -1"):
        names(-1)
