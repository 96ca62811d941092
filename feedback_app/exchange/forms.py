"""The forms that other tools read: TRL's chosen/rejected and Chatbot Arena's winner column.

`trl` is TRL's preference form with an explicit prompt (prompt, chosen, rejected as text, margin);
decisive votes only. `arena` is Chatbot Arena's battles (question_id, model_a, model_b, winner,
judge, …); votes between different versions only, without hidden repeats and gold pairs, which ask
about the listener: just what the leaderboard counts. Both carry further columns, so that votes can
be traced and taken in again; TRL and Arena scripts leave columns that they do not know alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from feedback_app.database import Row
from feedback_app.exchange.query import FULL
from feedback_app.exchange.record import COLUMNS, Column
from feedback_app.exchange.tables import compact
from rlhf_core.editing.actions import ACTION_NAMES

WINNERS = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "tie (bothbad)"}
CHOICE_OF_WINNER = {winner: choice for choice, winner in WINNERS.items()}
NOT_BATTLES = ("repeat", "gold")
_TRACE = (
    Column("vote_id", "string", "UUID of the vote"),
    Column("strength", "int8", "1 slight, 2 clear, 3 strong; null where none was given"),
    Column("simulated", "bool", "whether a program voted instead of a person"),
)
TRL: tuple[Column, ...] = (
    Column("prompt", "string", "JSON text: song_id, start_beat, end_beat of the passage"),
    Column("chosen", "string", "JSON text: edit_id, policy and actions (names) of the better edit"),
    Column("rejected", "string", "the same of the other edit"),
    Column("margin", "double", "the strength; 1 where none was given"),
    Column("pair_id", "string", "the pair that was heard"),
    Column("annotator", "string", "who voted"),
    Column("chosen_side", "string", "a or b: which edit of the pair was chosen"),
    Column("pool", "string", "why the pair was made; repeat and gold check the listener"),
    Column("split", "string", "train or test, by song"),
    *_TRACE,
)
ARENA: tuple[Column, ...] = (
    Column("question_id", "string", "the pair that was heard"),
    Column("model_a", "string", "policy version of edit a"),
    Column("model_b", "string", "policy version of edit b"),
    Column("winner", "string", "model_a, model_b, tie or tie (bothbad)"),
    Column("judge", "string", "who voted"),
    Column("turn", "int32", "1: one comparison per question"),
    Column("anony", "bool", "true: the versions were hidden"),
    Column("tstamp", "double", "when, in seconds since 1970, UTC"),
    *_TRACE,
)
AUDIO_COLUMNS = (
    Column("audio_a", "string", "file of edit a, from this folder; null where there is none"),
    Column("audio_b", "string", "file of edit b"),
    Column("audio_original", "string", "file of the passage as it was"),
)
FEATURES_COLUMN = Column("features", "string", "npz of the song's beat features, from this folder")


def columns_of(form: str) -> tuple[Column, ...]:
    """The columns of a form, without attachments; of `imitation`, those of its `votes`."""
    return {"trl": TRL, "arena": ARENA}.get(form, COLUMNS)


def encode(form: str, row: Row) -> Row | None:
    """A record in a form; None where the form has no place for it."""
    if form in FULL:
        return row
    return _trl(row) if form == "trl" else _arena(row)


def edit_text(row: Row, side: str) -> str:
    names = [ACTION_NAMES[action] for action in row[f"actions_{side}"]]
    return compact(
        {"edit_id": row[f"edit_{side}"], "policy": row[f"policy_{side}"], "actions": names}
    )


def _trace(row: Row) -> dict[str, Any]:
    return {column.name: row[column.name] for column in _TRACE}


def _trl(row: Row) -> Row | None:
    if row["choice"] not in ("a", "b"):
        return None
    prompt = {name: row[name] for name in ("song_id", "start_beat", "end_beat")}
    return {
        "prompt": compact(prompt),
        "chosen": edit_text(row, row["choice"]),
        "rejected": edit_text(row, "b" if row["choice"] == "a" else "a"),
        "margin": float(row["strength"] or 1),
        "pair_id": row["pair_id"],
        "annotator": row["annotator"],
        "chosen_side": row["choice"],
        "pool": row["pool"],
        "split": row["split"],
    } | _trace(row)


def _arena(row: Row) -> Row | None:
    alike = row["policy_a"] == row["policy_b"]
    if row["choice"] not in WINNERS or alike or row["pool"] in NOT_BATTLES:
        return None
    cast: datetime = row["created_at"]
    return {
        "question_id": row["pair_id"],
        "model_a": row["policy_a"],
        "model_b": row["policy_b"],
        "winner": WINNERS[row["choice"]],
        "judge": row["annotator"],
        "turn": 1,
        "anony": True,
        "tstamp": cast.replace(tzinfo=UTC).timestamp(),
    } | _trace(row)
