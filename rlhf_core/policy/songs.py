"""Songs on disk as passages to edit: what the commands of this package share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlhf_core.audio.library import SPLITS, Song, load_library
from rlhf_core.editing.passages import split_passages
from rlhf_core.errors import DataError
from rlhf_core.policy.rewards import Item


def add_data_arguments(parser: argparse._ActionsContainer, split: str = "train") -> None:
    """--data_dir, --cache_dir, --split."""
    parser.add_argument(
        "--data_dir",
        type=Path,
        required=True,
        help="folder with train/ (and optionally test/) holding the audio files",
    )
    parser.add_argument(
        "--cache_dir", type=Path, help="analysed songs (default: .cache in the data folder)"
    )
    parser.add_argument("--split", default=split, choices=SPLITS, help="which songs (%(default)s)")


def load_songs(data_dir: Path, cache_dir: Path | None, split: str) -> list[Song]:
    """The usable songs of a split, or DataError saying where they were looked for."""
    if not data_dir.is_dir():
        raise DataError(
            f"{data_dir}: there is no such folder. --data_dir holds train/ with audio files."
        )
    return load_library(data_dir, cache_dir, split)


def passages_of(songs: Sequence[Song]) -> list[Item]:
    """Every passage of every song, in order."""
    return [(song.state, passage) for song in songs for passage in split_passages(song.state.grid)]


def load_items(data_dir: Path, cache_dir: Path | None, split: str) -> list[Item]:
    """Every passage of the songs of a split."""
    return passages_of(load_songs(data_dir, cache_dir, split))
