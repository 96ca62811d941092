"""Who may do it: every handler of the researcher's page goes through here.

Gradio lets anybody who reaches a mounted page call each of its handlers by index, so hiding a
button protects nothing. The mount's `auth_dependency` signs the request with the user's name; here
the name's role is asked for again, on every call. Errors of the services become words on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gradio as gr

from feedback_app.errors import AppError
from feedback_app.ui.text import esc
from rlhf_core.errors import CoreError

RESEARCHER = "researcher"
NO_EVENT = gr.EventData(None, {})


class Roles(Protocol):
    """What the guard needs to know."""

    def role_of(self, name: str) -> str | None: ...


class Loader(NamedTuple):
    """What fills a tab: a guarded handler, the components that it sets, and those it reads."""

    handler: Callable[..., Any]
    outputs: list[Any]
    inputs: list[Any] | None = None


class Guard:
    """Wraps handlers: `button.click(guard(handler), inputs, outputs)`.

    The wrapped handler gets the inputs alone. Raises gr.Error unless the request's user is a
    researcher. An AppError or CoreError, and what the disk refused, is shown as a warning and
    changes nothing on the page.
    """

    def __init__(self, operations: Roles) -> None:
        self._operations = operations

    def check(self, username: str | None) -> str:
        """The researcher's name, or gr.Error."""
        if not username or self._operations.role_of(username) != RESEARCHER:
            raise gr.Error(
                "This page is for researchers. Sign in again with a researcher's name.",
                title="Not allowed",
                print_exception=False,
            )
        return username

    def __call__(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler with the check in front of it."""

        def guarded(request: gr.Request, *values: Any) -> Any:
            return self._answer(request, handler, *values)

        guarded.__name__ = handler.__name__
        guarded.__doc__ = handler.__doc__
        return guarded

    def named(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The same where it is kept who did it: the handler gets the user's name first."""

        def guarded(request: gr.Request, *values: Any) -> Any:
            return self._answer(request, handler, request.username, *values)

        guarded.__name__ = handler.__name__
        guarded.__doc__ = handler.__doc__
        return guarded

    def event(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The same for components that send data along: the handler gets it before the inputs."""

        def guarded(request: gr.Request, event: gr.EventData = NO_EVENT, *values: Any) -> Any:
            return self._answer(request, handler, getattr(event, "_data", None), *values)

        guarded.__name__ = handler.__name__
        guarded.__doc__ = handler.__doc__
        return guarded

    def _answer(self, request: gr.Request, handler: Callable[..., Any], *values: Any) -> Any:
        self.check(request.username)
        try:
            changed = handler(*values)
        except (AppError, CoreError, OSError) as error:
            gr.Warning(esc(error), title="Not done")
            return gr.skip()
        return changed or gr.skip()  # nothing changed: {} would count as missing values
