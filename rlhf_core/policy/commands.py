"""What the commands of policy learning share: logging, and being asked to stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rlhf_core.errors import ConfigError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
OUT_OF_MEMORY = (
    "Lower --n_steps or --minibatch, or use --device cpu (the policy is small: one or two cores "
    "are quick enough)."
)


def stopped() -> str:
    """What these commands tell after Ctrl-C."""
    return "stopped"


def start_logging(level: str = "INFO") -> None:
    """Messages of the package to the terminal, from `level` up; log files get INFO at least."""
    if level.upper() not in LOG_LEVELS:
        raise ConfigError(f"--log_level {level!r} is not one of {', '.join(LOG_LEVELS)}")
    package = logging.getLogger("rlhf_core")
    package.setLevel(min(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
    handler = logging.StreamHandler()
    handler.setLevel(level.upper())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    for old in [h for h in package.handlers if type(h) is logging.StreamHandler]:
        package.removeHandler(old)
    package.addHandler(handler)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Everything that the package logs goes to a text file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("rlhf_core")
    package.addHandler(handler)
    level = package.level
    package.setLevel(min(package.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        package.setLevel(level)
        package.removeHandler(handler)
        handler.close()


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask for a stop after the current update; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
