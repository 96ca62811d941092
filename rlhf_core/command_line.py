"""What every command shares: its exit status, and how it tells an error or that it was stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rlhf_core.errors import CoreError


def guarded(body: Callable[[], int | None], stopped: Callable[[], str] | None = None) -> int:
    """Run a command's body; its exit status.

    What the body returns (None: 0); 2 for an error that it explains, told on stderr; 130 for
    Ctrl-C, of which `stopped` gives what is told.
    """
    try:
        return body() or 0
    except CoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if stopped is not None:
            print(stopped(), file=sys.stderr)
        return 130
