"""The form of the `imitation` library: pairs of trajectory fragments and preferences, as one npz.

`preferences` (n,) float32: 1 where the first fragment was preferred, 0 the second, 0.5 for ties and
both bad; can't judge is left out. Fragment 1 is edit a, 2 is edit b. For k = 1, 2, concatenated
over the n votes: `fragments{k}_acts` (sum of T,) int64, one action per beat, `fragments{k}_obs`
(sum of T + 1, D) float32, `fragments{k}_rews` (sum of T,) zeros (nobody gave a reward per beat),
`fragments{k}_terminal` (n,) true (a fragment is a whole passage); `lengths` (n,) are the beats T.
Observations: position in the passage 0..1, bar phase (-1 where it is not known), seconds of the
beat; with features, the song's 121 beat features after them. The last observation of a fragment is
its end: position 1 and zeros. `obs_names` (D,) names the columns, `votes` (n,) has one JSON text
per vote: where it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feedback_app.database import Row
from feedback_app.errors import InvalidError
from feedback_app.exchange.archive import Chunks, write_npz
from feedback_app.exchange.attachments import Attachments, feature_names
from feedback_app.exchange.record import read_rows
from feedback_app.exchange.tables import compact, moment

PREFERENCES = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
PLAIN_OBS = ("position", "bar_phase", "duration_s")
TRACED = (
    "vote_id", "pair_id", "annotator", "choice", "strength", "simulated", "pool", "song_id",
    "split", "start_beat", "end_beat", "beat_times", "bar_phase",
    "edit_a", "policy_a", "edit_b", "policy_b",
)  # fmt: skip
Array = npt.NDArray[Any]


def trace(row: Row) -> Row:
    """Where a vote came from, as in `votes`."""
    return {name: row[name] for name in TRACED} | {"created_at": moment(row["created_at"])}


def write_fragments(
    path: Path, record: Path, attachments: Attachments, progress: Callable[[float], None]
) -> list[Row]:
    """Write the npz of a record; returns the votes in it as rows of `votes`."""
    votes, preferences, acts = [], [], {"a": [], "b": []}  # type: ignore[var-annotated]
    for row in read_rows(record):
        if row["choice"] in PREFERENCES:
            votes.append(trace(row))
            preferences.append(PREFERENCES[row["choice"]])
            for side, taken in acts.items():
                taken.append(np.array(row[f"actions_{side}"], dtype=np.int64))
    lengths = np.array([len(taken) for taken in acts["a"]], dtype=np.int64)
    names = [*PLAIN_OBS, *(feature_names() if attachments.features else [])]
    shape = (int(lengths.sum()) + len(lengths), len(names))
    arrays: dict[str, Array | Chunks] = {
        "preferences": np.array(preferences, dtype=np.float32),
        "lengths": lengths,
    }
    for k, side in ((1, "a"), (2, "b")):
        blocks = _observations(record, attachments, progress, (k - 1) / 2, len(votes))
        arrays[f"fragments{k}_obs"] = Chunks(shape, "<f4", blocks)
        arrays[f"fragments{k}_acts"] = np.concatenate([*acts[side], np.array([], np.int64)])
        arrays[f"fragments{k}_rews"] = np.zeros(int(lengths.sum()), np.float32)
        arrays[f"fragments{k}_terminal"] = np.ones(len(lengths), np.bool_)
    arrays["obs_names"] = np.array(names)
    arrays["votes"] = np.array([compact(vote) for vote in votes], dtype=np.str_)
    write_npz(path, arrays)
    return votes


def _observations(
    record: Path,
    attachments: Attachments,
    progress: Callable[[float], None],
    start: float,
    total: int,
) -> Iterator[Array]:
    """(T + 1, D) of each vote. Both edits are of one passage, so their observations are equal."""
    songs: dict[str, Array] = {}
    done = 0
    for row in read_rows(record):
        if row["choice"] not in PREFERENCES:
            continue
        beats = len(row["actions_a"])
        plain = np.zeros((beats + 1, len(PLAIN_OBS)), dtype=np.float32)
        plain[:, 0] = np.arange(beats + 1) / max(beats, 1)
        plain[:beats, 1] = -1 if row["bar_phase"] is None else row["bar_phase"]
        if row["beat_times"] is not None:
            plain[:beats, 2] = np.diff(row["beat_times"])
        if attachments.features:
            plain = np.hstack([plain, _features(row, beats, attachments, songs)])
        done += 1
        progress(start + done / total / 2)
        yield plain


def _features(row: Row, beats: int, attachments: Attachments, songs: dict[str, Array]) -> Array:
    song_id = row["song_id"]
    if song_id not in songs:
        found = attachments.song(song_id)
        if found is None:
            raise InvalidError(
                f"song {row['song_title']!r} has no analysis here, so its features cannot come "
                "along; add the song, or leave the features out"
            )
        songs[song_id] = found["features"]
    part = songs[song_id][row["start_beat"] : row["end_beat"]]
    if len(part) != beats:
        raise InvalidError(
            f"pair {row['pair_id']!r} ends at beat {row['end_beat']}, song {row['song_title']!r} "
            f"has {len(songs[song_id])} beats now; leave the features out"
        )
    return np.vstack([part, np.zeros((1, part.shape[1]), dtype=part.dtype)])
