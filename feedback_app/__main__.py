"""`python -m feedback_app`: serve the app, or do by command what its buttons do."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from feedback_app.errors import AppError
from rlhf_core.errors import CoreError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m feedback_app")
    parser.add_argument("command", nargs="?", default="serve", choices=["serve"])
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    from feedback_app.serve import serve

    try:
        return serve(options.workspace, host=options.host, port=options.port)
    except (AppError, CoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
