"""The app's log: one line per event on standard error, as text or as JSON (setting `log_format`).

    {"time": "2026-01-31T12:00:00.123Z", "level": "info", "logger": "…", "message": "…",
     "request_id": "…", "run_id": "…", "account": "…", …what the event has besides}

`about(...)` puts ids on every line that is logged inside of it, on this thread or task and on those
started from it: a request's id is on the line that says which run it started. What people typed can
not forge a line: in JSON it is escaped by nature, in text control characters are written as \\x1b.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
_ids: ContextVar[Mapping[str, Any]] = ContextVar("ids", default={})  # noqa: B039 - never changed
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def about(**ids: Any) -> Iterator[None]:
    """Put ids on every line logged in here."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def plain(text: str) -> str:
    """One line of visible characters.

    >>> plain("a\\nb\\x1b[31m")
    'a\\\\nb\\\\x1b[31m'
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The ids around an event and what was given with it."""
    given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**_ids.get(), **given}


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """time LEVEL logger: message name=value; an exception follows on lines that are indented."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
        about = "".join(f" {name}={plain(str(value))}" for name, value in _fields(record).items())
        text = f"{when} {record.levelname} {record.name}: {plain(record.getMessage())}{about}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            text += "".join(f"\n    {plain(line)}" for line in trace)
        return text


def set_up(form: str, level: str) -> None:
    """Send every logger of the process to standard error in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("httpx", "httpcore", "matplotlib", "PIL", "asyncio", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
