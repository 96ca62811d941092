"""Votes as a run reads them: a snapshot (Parquet, one row per vote) checked row by row.

A snapshot is written by the app and never changes; its sha256 goes into every checkpoint made from
it. a and b always mean edit_a and edit_b of the pair, on whichever side they were shown. Whatever
is wrong raises DataError naming the column and the row (counted from 0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow
import torch
from torch import Tensor

from rlhf_core.editing.actions import check_actions
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import DataError, EditError
from rlhf_core.files import sha256_of
from rlhf_core.types import AudioState, IntArray, Passage

SNAPSHOT_COLUMNS: Final = (
    "vote_id",
    "pair_id",
    "song_id",
    "annotator",
    "simulated",
    "choice",
    "strength",
    "pool",
    "start_beat",
    "end_beat",
    "actions_a",
    "actions_b",
    "policy_a",
    "policy_b",
    "b_first",
    "first_played",
    "created_at",
    "split",
)
WEIGHT: Final = "annotator_weight"  # may be missing: then every vote counts whole
CHOICES: Final = ("a", "b", "tie", "both_bad", "skip")
POOLS: Final = ("random", "chosen", "cross", "broad", "repeat", "gold")
SPLITS: Final = ("train", "test")
STRENGTHS: Final = (1, 2, 3)


@dataclass(frozen=True)
class Vote:
    """One annotator's choice on one pair."""

    vote_id: str
    pair_id: str
    song_id: str
    annotator: str
    simulated: bool
    choice: str
    strength: int | None
    pool: str
    passage: Passage
    actions_a: IntArray
    actions_b: IntArray
    policy_a: str
    policy_b: str
    b_first: bool
    split: str
    weight: float = 1.0

    @property
    def edit_a(self) -> EditKey:
        return EditKey(self.song_id, self.passage, tuple(self.actions_a.tolist()))

    @property
    def edit_b(self) -> EditKey:
        return EditKey(self.song_id, self.passage, tuple(self.actions_b.tolist()))

    @property
    def decisive(self) -> bool:
        return self.choice in ("a", "b")


@dataclass(frozen=True)
class EditKey:
    """What an edit is, apart from who made it."""

    song_id: str
    passage: Passage
    actions: tuple[int, ...]


@dataclass(frozen=True)
class PreferenceDataset:
    """The votes of a snapshot, in its order, and the hash of the file that they came from."""

    votes: tuple[Vote, ...]
    sha256: str
    path: str

    def __len__(self) -> int:
        return len(self.votes)

    def usable(self, *, include_simulated: bool, split: str | None = "train") -> tuple[Vote, ...]:
        """Votes to learn from: not "can't judge", human unless asked otherwise, of one split.

        Raises DataError that counts what there is when nothing is left.
        """
        kept = tuple(
            vote
            for vote in self.votes
            if vote.choice != "skip"
            and (include_simulated or not vote.simulated)
            and (split is None or vote.split == split)
        )
        if not kept:
            raise DataError(self._nothing_usable(include_simulated, split))
        return kept

    def _nothing_usable(self, include_simulated: bool, split: str | None) -> str:
        skipped = sum(vote.choice == "skip" for vote in self.votes)
        simulated = sum(vote.simulated for vote in self.votes)
        other = sum(split is not None and vote.split != split for vote in self.votes)
        advice = "Collect votes first."
        if self.votes and simulated and not include_simulated:
            advice = "Collect human votes, or pass --include_simulated for a dry run."
        return (
            f"{self.path}: no usable vote among {len(self.votes)}: {simulated} simulated, "
            f"{skipped} can't judge, {other} on songs outside split {split!r}. {advice}"
        )


def snapshot_hash(path: Path) -> str:
    """sha256 of a snapshot's bytes, in hex."""
    return sha256_of(path)


def read_snapshot(path: Path) -> PreferenceDataset:
    """Read and check a snapshot. Raises DataError naming the column and row that is wrong."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such snapshot. Export one from the app.")
    try:
        frame = pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}). Export again.") from error
    missing = [name for name in SNAPSHOT_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path}: column {', '.join(missing)} missing; a snapshot has the columns "
            f"{', '.join(SNAPSHOT_COLUMNS)}"
        )
    known = [*SNAPSHOT_COLUMNS, *({WEIGHT} & set(frame.columns))]
    rows = frame[known].to_dict("records")
    votes = tuple(_vote(path, number, row) for number, row in enumerate(rows))
    repeated = [name for name, count in Counter(v.vote_id for v in votes).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: column vote_id: {repeated[0]!r} stands on more than one row")
    return PreferenceDataset(votes, snapshot_hash(path), str(path))


def _vote(path: Path, number: int, row: Mapping[Any, Any]) -> Vote:
    """One row as a Vote, or DataError naming the row and column."""

    def wrong(column: str, want: str) -> DataError:
        return DataError(f"{path}: row {number}, column {column}: {row[column]!r} is not {want}")

    def text(column: str) -> str:
        if not isinstance(row[column], str) or not row[column]:
            raise wrong(column, "a non-empty string")
        return str(row[column])

    def one_of(column: str, allowed: Sequence[str]) -> str:
        if row[column] not in allowed:
            raise wrong(column, f"one of {', '.join(allowed)}")
        return str(row[column])

    def flag(column: str) -> bool:
        if not isinstance(row[column], (bool, np.bool_)):
            raise wrong(column, "true or false")
        return bool(row[column])

    passage = _passage(row, wrong)
    return Vote(
        vote_id=text("vote_id"),
        pair_id=text("pair_id"),
        song_id=text("song_id"),
        annotator=text("annotator"),
        simulated=flag("simulated"),
        choice=one_of("choice", CHOICES),
        strength=_strength(row["strength"], wrong),
        pool=one_of("pool", POOLS),
        passage=passage,
        actions_a=_actions(row, "actions_a", passage, wrong),
        actions_b=_actions(row, "actions_b", passage, wrong),
        policy_a=str(row["policy_a"]),
        policy_b=str(row["policy_b"]),
        b_first=flag("b_first"),
        split=one_of("split", SPLITS),
        weight=_weight(row.get(WEIGHT, 1.0), wrong),
    )


Wrong = Callable[[str, str], DataError]


def _strength(value: Any, wrong: Wrong) -> int | None:
    if value is None or pd.isna(value):
        return None
    if value not in STRENGTHS:
        raise wrong("strength", "1, 2, 3 or empty")
    return int(value)


def _weight(value: Any, wrong: Wrong) -> float:
    if not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise wrong(WEIGHT, "more than 0 and at most 1")
    return float(value)


def _passage(row: Mapping[Any, Any], wrong: Wrong) -> Passage:
    for column in ("start_beat", "end_beat"):
        if not isinstance(row[column], (int, np.integer)):
            raise wrong(column, "a whole number")
    try:
        return Passage(int(row["start_beat"]), int(row["end_beat"]))
    except EditError as error:
        raise wrong("end_beat", f"the end of a passage ({error})") from error


def _actions(row: Mapping[Any, Any], column: str, passage: Passage, wrong: Wrong) -> IntArray:
    value = row[column]
    if not isinstance(value, (list, np.ndarray)):
        raise wrong(column, "a list of action ids")
    try:
        return check_actions(np.asarray(value), passage.n_beats)
    except EditError as error:
        raise wrong(column, f"an edit of the passage ({error})") from error


def check_songs(votes: Iterable[Vote], states: Mapping[str, AudioState]) -> None:
    """Raise DataError when a vote is about a song that is not here, or past its end."""
    unknown = Counter(vote.song_id for vote in votes if vote.song_id not in states)
    if unknown:
        named = ", ".join(f"{song} ({count} votes)" for song, count in sorted(unknown.items())[:5])
        raise DataError(
            f"{len(unknown)} song(s) of the votes are not in the data folder: {named}. "
            "Add their files (a song is known by the hash of its bytes), or export a snapshot "
            "without them."
        )
    for vote in votes:
        n_beats = states[vote.song_id].grid.n_beats
        if vote.passage.end_beat > n_beats:
            raise DataError(
                f"vote {vote.vote_id}: its passage ends at beat {vote.passage.end_beat}, song "
                f"{vote.song_id} has {n_beats}. Were the song's beats corrected after the vote? "
                "Use the grid that the votes were given on, or leave those votes out."
            )


def collate(
    edits: Sequence[EditKey], states: Mapping[str, AudioState], device: str = "cpu"
) -> tuple[PassageBatch, Tensor]:
    """Edits as a padded batch and their actions (B, T)."""
    batch = PassageBatch.from_passages(
        [(states[edit.song_id], edit.passage) for edit in edits], device
    )
    actions = torch.zeros(len(edits), int(batch.lengths.max()), dtype=torch.long, device=device)
    for row, edit in enumerate(edits):
        actions[row, : len(edit.actions)] = torch.tensor(edit.actions, device=device)
    return batch, actions
