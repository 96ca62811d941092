"""The frame of every command: its exit status, and what it tells."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rlhf_core.command_line import guarded
from rlhf_core.errors import DataError

Body = Callable[[], int | None]


def ending(error: BaseException) -> Body:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (ending(DataError("votes.parquet: no votes")), 2, "error: votes.parquet: no votes\n"),
        (ending(KeyboardInterrupt()), 130, "stopped, and kept\n"),
    ],
)
def test_exit_status_and_words(
    body: Body, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(body, lambda: "stopped, and kept") == status
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", told)


def test_ctrl_c_is_silent_where_nothing_is_to_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(ending(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(ending(ZeroDivisionError()))
