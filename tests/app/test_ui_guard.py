"""No handler of the researcher's page runs for anybody else, and errors arrive as words."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from feedback_app.errors import InvalidError
from feedback_app.ui import research
from feedback_app.ui.guard import Guard
from tests.app.fake_operations import NASTY, FakeOperations


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> FakeOperations:
    return FakeOperations(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def page(operations: FakeOperations) -> gr.Blocks:
    return research.build(operations)


def request(name: str | None) -> Any:
    return SimpleNamespace(username=name)


@pytest.mark.parametrize("name", [None, "", "anna", "nobody"])
def test_every_handler_refuses_everybody_but_researchers(
    page: gr.Blocks, operations: FakeOperations, name: str | None
) -> None:
    before = list(operations.calls)
    handlers = [item for item in page.fns.values() if item.fn is not None]
    assert len(handlers) > 30
    for item in handlers:
        with pytest.raises(gr.Error, match="researchers"):
            item.fn(request(name), *([None] * len(item.inputs)))
    assert operations.calls == before


def test_a_disabled_researcher_is_refused(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    guard = Guard(operations)
    assert guard(lambda: 5)(request("rita")) == 5
    operations.set_disabled("rita", True)
    with pytest.raises(gr.Error):
        guard(lambda: 5)(request("rita"))


@pytest.mark.parametrize(
    "error", [InvalidError(f"cannot use {NASTY}"), OSError(28, "cannot use it, no room", NASTY)]
)
def test_errors_become_escaped_words(operations: FakeOperations, error: Exception) -> None:
    def fails() -> None:
        raise error

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        answer = Guard(operations)(fails)(request("rita"))
    assert answer == gr.skip()
    (said,) = [str(w.message) for w in told]
    assert "cannot use" in said and "<" not in said and "${" not in said


def test_a_mistake_in_the_code_is_not_hidden(operations: FakeOperations) -> None:
    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        Guard(operations)(broken)(request("rita"))
