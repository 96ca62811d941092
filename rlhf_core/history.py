"""The history of a training: one list per measured quantity, all of the same length.

    {"episode": [0, 1, …], "step": [0, 2048, …], "total_reward": […], "policy_loss": […], …}

"episode" counts updates; "step" is how many steps had been taken when the row's roll-out began,
so the first row describes the policy that training started from. A quantity that an algorithm
does not have (the value loss of DPO) is null.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from rlhf_core.errors import DataError
from rlhf_core.files import write_json

Value = float | int | None
Columns = dict[str, list[Value]]

REQUIRED = (
    "episode",
    "step",
    "total_reward",
    "policy_loss",
    "value_loss",
    "learned_reward",
    "dense_reward",
)


def append(columns: Columns, row: dict[str, Value]) -> None:
    """Add one row in place. The first row fixes the columns; NaN and infinity become null."""
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise DataError(f"a row of the training history lacks {', '.join(missing)}")
    if columns and set(columns) != set(row):
        raise DataError(f"the history has the columns {sorted(columns)}, the new row {sorted(row)}")
    for name, value in row.items():
        finite = value if value is None or math.isfinite(value) else None
        columns.setdefault(name, []).append(finite)


def rows(columns: Columns) -> list[dict[str, Value]]:
    """The history as one dictionary per update."""
    count = len(columns["step"]) if columns else 0
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def validate(columns: object, where: str) -> Columns:
    """The columns if they are a history; DataError naming `where` if not."""
    if not isinstance(columns, dict) or not all(isinstance(v, list) for v in columns.values()):
        raise DataError(f"{where}: not a training history (an object of lists)")
    missing = [name for name in REQUIRED if name not in columns] if columns else []
    if missing:
        raise DataError(f"{where}: the training history lacks {', '.join(missing)}")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{where}: columns of unequal length: {lengths}")
    for name, values in columns.items():
        bad = [v for v in values if v is not None and not isinstance(v, (int, float))]
        if bad:
            raise DataError(f"{where}: column {name} holds {bad[0]!r}, which is no number")
    return columns


def save(path: Path, columns: Columns) -> None:
    """Write the history as JSON, atomically."""
    write_json(path, validate(columns, str(path)))


def load(path: Path) -> Columns:
    """Read a history back, or DataError saying what is wrong with the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: the training history cannot be read ({error})") from error
    return validate(data, str(path))
