"""What a vote costs where the database is shared over Quack, by the size of the table.

    python benchmarks/shared.py [--pairs 2000 40000] [--votes 20]

Half of the pairs have been voted on by other people. One annotator without think time asks for a
pair and votes on it, again and again; told are median and longest of both requests together, on the
app's own methods without HTTP: with the file, over Quack with one app, and with two apps in strict
turn, each request to the app that did not write last, which is the worst case. Votes are simulated.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parent))

import figures

SETTINGS = {
    "votes_per_pair": 2, "auto_prepare": False, "auto_generate": False,
    "required_region_share": 0.0,
}  # fmt: skip


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of a `database serve` of this workspace."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "feedback_app", "database", "serve", "--workspace", str(root)]
    process = subprocess.Popen(
        [*argv, "--port", str(port)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    if "database at" not in process.stdout.readline():
        raise SystemExit("the database is not served")
    try:
        yield f"quack:127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def sitting(apps: list[Any], name: str, votes: int) -> list[float]:
    """Seconds of each pair and its vote; the requests go to the apps in turn."""
    from feedback_app.votes import VoteForm

    took = []
    for app in apps:
        app.annotation.next(name).result()  # each has read what it needs
    for number in range(votes + 2):
        start = time.perf_counter()
        given = apps[2 * number % len(apps)].annotation.next(name).result()
        form = VoteForm(str(uuid4()), given["assignment_id"], "left")
        apps[(2 * number + 1) % len(apps)].annotation.vote(name, form).result()
        took.append(time.perf_counter() - start)
    return took[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[2_000, 40_000])
    parser.add_argument("--votes", type=int, default=20)
    options = parser.parse_args()
    from feedback_app.services import open_services

    print(
        f"{'pairs':>8s} {'assigned':>9s} {'the file':>16s} {'one app':>16s} {'two apps':>16s}  ms"
    )
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "workspace"
            with closing(open_services(root, **SETTINGS)) as services:
                figures.fill(services, pairs, each=1)
                services.store.database.execute(
                    "DELETE FROM assignments WHERE hash(assignment_id) % 2 = 0"
                )
                found = [sitting([services], "listener", options.votes)]
            for count in (1, 2):
                with ExitStack() as stack:
                    address = stack.enter_context(served(root))
                    shared = SETTINGS | {"database": address}
                    apps = [
                        stack.enter_context(closing(open_services(root, **shared)))
                        for _ in range(count)
                    ]
                    found.append(sitting(apps, f"listener{count}", options.votes))
        cells = [f"{1000 * statistics.median(t):.0f} ({1000 * max(t):.0f})" for t in found]
        print(f"{pairs:8,d} {pairs // 2:9,d} " + " ".join(f"{cell:>16s}" for cell in cells))


if __name__ == "__main__":
    main()
