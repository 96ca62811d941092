"""Rows of TRL's and Arena's forms in terms of the record: the way back of `forms`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from feedback_app.database import Row
from feedback_app.exchange.forms import CHOICE_OF_WINNER
from feedback_app.exchange.tables import moment
from rlhf_core.editing.actions import ACTION_NAMES

UNKNOWN_SONG = "unknown"


def from_trl(row: Row) -> Row | str:
    """A decisive vote; the reason where the texts are not what an export wrote."""
    try:
        prompt = _object(row["prompt"], "prompt")
        chosen, rejected = _object(row["chosen"], "chosen"), _object(row["rejected"], "rejected")
        side = row.get("chosen_side") or "a"
        sides = {"a": chosen, "b": rejected} if side == "a" else {"a": rejected, "b": chosen}
        out: Row = {
            "choice": side,
            "strength": row["strength"] if "strength" in row else _strength(row.get("margin")),
            "pair_id": row.get("pair_id") or f"{sides['a']['edit_id']}:{sides['b']['edit_id']}",
            "annotator": row.get("annotator"),
            **{name: prompt[name] for name in ("song_id", "start_beat", "end_beat")},
            **{
                name: row[name] for name in ("vote_id", "simulated", "split", "pool") if name in row
            },
        }
        for letter, edit in sides.items():
            out[f"edit_{letter}"] = edit["edit_id"]
            out[f"policy_{letter}"] = edit["policy"]
            out[f"actions_{letter}"] = [ACTION_NAMES.index(name) for name in edit["actions"]]
    except (KeyError, TypeError, ValueError) as error:
        return f"not a row as the trl export writes it ({error!r})"
    return out


def _object(text: Any, name: str) -> Row:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a JSON object")
    return found


def _strength(margin: Any) -> int | None:
    return int(margin) if margin in (1, 2, 3) else None


def from_arena(row: Row) -> Row | str:
    """A battle; without song or actions, which the form does not hold."""
    if row["winner"] not in CHOICE_OF_WINNER:
        return f"winner {row['winner']!r} is not one of {', '.join(CHOICE_OF_WINNER)}"
    pair_id = row["question_id"]
    out: Row = {
        "choice": CHOICE_OF_WINNER[row["winner"]],
        "pair_id": pair_id,
        "annotator": row.get("judge"),
        "policy_a": row.get("model_a"),
        "policy_b": row.get("model_b"),
        **{name: row[name] for name in ("vote_id", "simulated", "strength") if name in row},
    }
    if row.get("tstamp") is not None:
        try:
            cast = datetime.fromtimestamp(row["tstamp"], UTC)
        except (TypeError, ValueError, OverflowError, OSError):
            return f"tstamp {row['tstamp']!r} is not a time in seconds since 1970"
        out["created_at"] = moment(cast)
    return out
