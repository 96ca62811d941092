"""The server killed a hundred times under fifty annotators: is every acknowledged vote there?

    python benchmarks/crashes.py [--kills 100] [--piece 20] [--state FILE]

SIGKILL comes at a random moment: after 1 to 200 more acknowledgements, or (one time in five) within
a second after the server's start. The people are simulated; each sends a vote again under its UUID
until it is acknowledged, as the page does. Afterwards the database is read by duckdb alone. Work is
done in pieces, each on a workspace of its own; with --state a call goes on where the last stopped.
Bar: 0 lost, 0 doubled, every database opens.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.crowd import kill_under

FAULTS = ("lost", "unknown", "doubled", "wrong_state", "twice", "crowded", "held", "problems")
COUNTS = ("kills", "sent", "acknowledged", "stored", "sent_again")


def piece(people: int, kills: int, seed: int) -> dict[str, Any]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = kill_under(Path(folder), people, kills, seed)
    return told | {"seed": seed, "seconds": round(time.monotonic() - started, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--piece", type=int, default=20, help="kills on one workspace (20)")
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--time-limit", type=float, default=1e9, metavar="S", help="then stop")
    parser.add_argument("--state", type=Path, help="where pieces are kept between calls")
    options = parser.parse_args()
    done: list[dict[str, Any]] = []
    if options.state and options.state.exists():
        done = json.loads(options.state.read_text())
    started = time.monotonic()
    while (left := options.kills - sum(one["kills"] for one in done)) > 0:
        if time.monotonic() - started > options.time_limit:
            break
        done.append(piece(options.people, min(left, options.piece), seed=len(done)))
        if options.state:
            options.state.write_text(json.dumps(done))
        print({name: done[-1][name] for name in (*COUNTS, "seconds")}, flush=True)
    totals = {name: sum(one[name] for one in done) for name in COUNTS}
    faults = {name: sum(len(one[name]) for one in done) for name in FAULTS}
    print(f"in all: {totals}\nfaults: {faults}")
    for one in done:
        for problem in one["problems"][:5]:
            print(f"  {problem}")
    return 1 if any(faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
