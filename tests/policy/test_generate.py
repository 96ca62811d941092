"""Pairs are rendered on a second thread: in order, and no further than wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_core.errors import AudioError
from rlhf_core.policy import generate
from rlhf_core.runs import RunFolder

COUNT = 30


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers instead of pairs; those that were rendered. Number 7 cannot be."""
    done: list[int] = []

    def drawn(*_: object) -> Iterator[tuple[int, None, None]]:
        yield from ((number, None, None) for number in range(COUNT))

    def write(_: object, number: int, a: None, b: None) -> dict[str, Any]:
        time.sleep(0.002 * (number % 3))
        if number == 7:
            raise AudioError("no room")
        done.append(number)
        return {"number": number}

    monkeypatch.setattr(generate, "drawn_pairs", drawn)
    monkeypatch.setattr(generate.PairWriter, "write", write)
    return done


def test_rows_come_in_order_and_an_error_ends_it(written: list[int], tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(AudioError, match="no room"):
        for row in generate.generate([], None, RunFolder(tmp_path, "x", {}), COUNT, 0, {}):  # type: ignore[arg-type]
            seen.append(row["number"])
    assert seen == list(range(7))
    assert len(written) <= 7 + generate.AHEAD + 1


def test_whoever_wants_no_more_gets_no_more(written: list[int], tmp_path: Path) -> None:
    rows = generate.generate([], None, RunFolder(tmp_path, "x", {}), COUNT, 0, {})  # type: ignore[arg-type]
    assert next(rows) == {"number": 0}
    rows.close()  # type: ignore[attr-defined]
    assert len(written) <= 2 + generate.AHEAD
