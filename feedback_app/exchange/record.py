"""The full record: one row per current vote, self-contained, the source of every form.

It holds what is needed to put the vote, its pair, both edits and the song's name back into another
workspace. `store_exports` writes it from the database as Parquet; everything after that reads this
file and never the database. Times are UTC; `a` and `b` are the pair's two edits, whichever side
they were shown on. Lists have one entry per beat of the passage unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback_app.database import Row

BATCH = 2000


@dataclass(frozen=True)
class Column:
    """One column: its name, its Arrow type as `pyarrow.type_for_alias` or `kind` says, its meaning.

    kind: string, bool, int8, int32, int64, double, timestamp, json (text), strings, ints, doubles,
    segments.
    """

    name: str
    kind: str
    about: str

    @property
    def nested(self) -> bool:
        return self.kind in ("strings", "ints", "doubles", "segments")


def _both(name: str, kind: str, about: str) -> tuple[Column, Column]:
    return Column(f"{name}_a", kind, f"{about} (a)"), Column(f"{name}_b", kind, f"{about} (b)")


COLUMNS: tuple[Column, ...] = (
    Column("vote_id", "string", "UUID of the vote"),
    Column("pair_id", "string", "the pair that was heard"),
    Column("song_id", "string", "first 16 hex digits of the SHA-256 of the song's file"),
    Column("song_title", "string", "its file name"),
    Column("song_synthetic", "bool", "whether the song was synthesised (demo, tests)"),
    Column("split", "string", "train or test; a song is in one of them"),
    Column("annotator", "string", "who voted"),
    Column("annotator_weight", "double", "weight that researchers gave them; 0 is left out"),
    Column("simulated", "bool", "whether a program voted instead of a person"),
    Column("source", "string", "app, import or simulate"),
    Column("choice", "string", "a, b, tie, both_bad or skip (can't judge)"),
    Column("strength", "int8", "1 slight, 2 clear, 3 strong; null where none was given"),
    Column("tags", "strings", "what the annotator marked"),
    Column("comment", "string", "what the annotator wrote"),
    Column("flags", "strings", "notes of the server: too_fast, one_sided"),
    Column("pool", "string", "why the pair was made; repeat and gold check the listener"),
    Column("start_beat", "int32", "first beat of the passage, counted over the song"),
    Column("end_beat", "int32", "the beat after its last"),
    Column("beat_times", "doubles", "seconds in the song of the passage's beats, then its end"),
    Column("bar_phase", "ints", "0 on a downbeat"),
    *_both("edit", "string", "id of the edit"),
    *_both("policy", "string", "version that made it"),
    *_both("preset", "string", "heuristic preset, where one made it"),
    *_both("temperature", "double", "temperature it was drawn at"),
    *_both("seed", "int64", "seed it was drawn with"),
    *_both("duration", "double", "seconds it lasts"),
    *_both("actions", "ints", "action per beat"),
    *_both("segments", "segments", "what plays, in order: beats of the song, gains, reversed"),
    Column("b_first", "bool", "whether b was on the left"),
    Column("first_played", "string", "which was played first"),
    Column("listened", "json", "seconds heard per side, switches, …"),
    Column("response_ms", "int64", "from the start of the pair to the vote"),
    Column("client", "json", "the page's version"),
    Column("created_at", "timestamp", "when the vote was cast, UTC"),
)
NAMES = tuple(column.name for column in COLUMNS)
PATHS = ("path_a", "path_b", "path_original")  # stored paths of the audio; never exported


def arrow_type(kind: str) -> Any:
    """The Arrow type of a column's kind."""
    import pyarrow as pa

    segment = pa.struct(
        [
            ("start_beat", pa.int32()),
            ("end_beat", pa.int32()),
            ("gain_start", pa.float64()),
            ("gain_end", pa.float64()),
            ("reverse", pa.bool_()),
        ]
    )
    return {
        "string": pa.string(),
        "json": pa.string(),
        "bool": pa.bool_(),
        "int8": pa.int8(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "timestamp": pa.timestamp("us"),
        "strings": pa.list_(pa.string()),
        "ints": pa.list_(pa.int8()),
        "doubles": pa.list_(pa.float64()),
        "segments": pa.list_(segment),
    }[kind]


def arrow_schema(columns: tuple[Column, ...]) -> Any:
    """Columns with their meaning as field metadata, as the Parquet file carries it."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(column.name, arrow_type(column.kind), metadata={"about": column.about})
            for column in columns
        ]
    )


def count_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(path).metadata.num_rows)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a record file, as plain values, in their order."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield from batch.to_pylist()
