"""What the commands of policy learning share: exit codes, logging, devices, threads."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from rlhf_core.devices import check_device as check_device  # for all of its users
from rlhf_core.errors import ConfigError, CoreError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
OUT_OF_MEMORY = (
    "the GPU ran out of memory. Lower --n_steps or --minibatch, or use --device cpu (the policy "
    "is small: one or two cores are quick enough)."
)


def guarded(body: Callable[[], None]) -> int:
    """Run a command's body: 0 when done, 2 on an error that it explains, 130 on Ctrl-C."""
    try:
        body()
    except CoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


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


def use_threads(count: int) -> None:
    """Set torch's threads deliberately: on small batches more are slower, not faster."""
    if count < 1:
        raise ConfigError(f"--threads is {count}, must be at least 1")
    torch.set_num_threads(count)


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
