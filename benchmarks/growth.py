"""How each answer of the app grows with the table: 10,000, 100,000 and 1,000,000 votes.

    python benchmarks/growth.py [--votes 10000 100000 1000000] [--no-export]

Ten votes a pair, all pairs still open (twelve are wanted), half of them ranked. Printed are seconds
at each size by the clock, seconds of the processors (all threads) at the last one, and the exponent
p of CPU ~ votes^p between the last two (1: in proportion; by the clock where no CPU is told). The
first rows are what the app does for annotators, by its own methods without HTTP: the first pair
after the start, the first of other people, a vote with the next pair (median and longest of 200),
an undo, and the first pair after pairs or a ranking came in. `50 annotators` is over HTTP, p95 in
the middle of `benchmarks/votes.py`'s load. Then the researcher's pages, first call and median, and
the export of everything as Parquet by its run. Bar: each but the export under 1 s at the largest.
Votes are made up by the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import figures
import votes as votes_benchmark

EACH, PLACES, PEOPLE, BAR_S = 10, 12, figures.PEOPLE, 1.0
SETTINGS = {
    "votes_per_pair": PLACES, "auto_prepare": False, "auto_generate": False,
    "required_region_share": 0.0,
}  # fmt: skip
NEW_PAIRS = """INSERT INTO pairs SELECT * REPLACE (pair_id || ? AS pair_id, created_at + INTERVAL
    1 SECOND AS created_at, run_id || ? AS run_id) FROM pairs LIMIT 24"""
Times = dict[str, tuple[float, float]]  # seconds by the clock, of the processors


def workspace(root: Path, votes: int) -> list[str]:
    """A filled workspace; the session tokens of its people."""
    from feedback_app.database import utc_now
    from feedback_app.services import open_services

    tokens = [uuid4().hex for _ in range(PEOPLE)]
    with closing(open_services(root, **SETTINGS)) as services:
        figures.fill(services, votes, each=EACH)
        database, now = services.store.database, utc_now()
        database.execute(
            "UPDATE pairs SET pool ="
            " ['random', 'chosen', 'cross', 'broad'][(1 + hash(pair_id) % 4)::INTEGER],"
            " created_at = created_at - to_seconds((hash(pair_id) % 1000000)::DOUBLE),"
            " regions_a = '[[5.8, 7.7]]', regions_b = '[[19.3, 21.3]]' WHERE pool <> 'gold'"
        )
        rank(services, "reward_v0")
        for number, token in enumerate(tokens):
            database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?)",
                [hashlib.sha256(token.encode()).hexdigest(), f"person{number}", now,
                 now + timedelta(days=1)],
            )  # fmt: skip
    return tokens


def rank(services: Any, reward_model: str) -> None:
    services.store.database.execute(
        "INSERT OR REPLACE INTO pair_scores SELECT pair_id, ?, random(),"
        " row_number() OVER (ORDER BY hash(pair_id || ?)), 'made', created_at FROM pairs"
        " WHERE pool IN ('chosen', 'broad')",
        [reward_model, reward_model],
    )


def timed(work: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    return (time.perf_counter() - start, time.process_time() - cpu), found


def middle(times: list[tuple[float, float]]) -> tuple[float, float]:
    clock, cpu = zip(*times, strict=True)
    return statistics.median(clock), statistics.median(cpu)


def assignment(root: Path) -> Times:
    """Seconds of what is done for annotators, on the app's methods."""
    from feedback_app.services import open_services
    from feedback_app.votes import VoteForm

    times: Times = {}
    times["start of the app"], services = timed(lambda: open_services(root, **SETTINGS))
    annotation, rng = services.annotation, random.Random(0)

    def shown(asked: Future[Any]) -> Any:
        row = asked.result()
        annotation.showing.payload(row.get("next") or row)
        return row

    with closing(services):
        times["first pair after the start"], held = timed(lambda: shown(annotation.next("person0")))
        others = [
            timed(lambda name=f"person{n}": shown(annotation.next(name)))[0] for n in range(1, 20)
        ]
        times["first pair of another person"] = middle(others)
        took, undone = [], []
        for _ in range(200):
            form = VoteForm(str(uuid4()), held["assignment_id"], rng.choice(("left", "right")))
            seconds, answer = timed(lambda form=form: shown(annotation.vote("person0", form)))
            took.append(seconds)
            held = answer["next"]
        for _ in range(10):
            again = (str(uuid4()), form.vote_id)
            undone.append(timed(lambda ids=again: annotation.undo("person0", *ids).result())[0])
        times["vote and next pair, median"] = middle(took)
        times["vote and next pair, longest"] = max(took)
        times["undo"] = middle(undone)
        services.store.database.execute(NEW_PAIRS, ["x", "x"])
        times["first pair after new ones came"] = timed(lambda: shown(annotation.next("person1")))[
            0
        ]
        rank(services, "reward_v1")
        times["first pair after a ranking"] = timed(lambda: shown(annotation.next("person2")))[0]
        tick = services.operations.tick
        times["looking after the runs, a look"] = middle(
            [timed(lambda: (services.jobs.poll(), tick()))[0] for _ in range(5)]
        )
    return times


def under_load(root: Path, tokens: list[str], seconds: float) -> Times:
    """p95 over HTTP of 50 people's votes, as `benchmarks/votes.py` sends them."""
    votes_benchmark.SETTINGS["VOTES_PER_PAIR"] = str(PLACES)
    with votes_benchmark.server(root, queue=False) as port:
        load = votes_benchmark.load
        asyncio.run(load(port, tokens, 3, votes_benchmark.THINK_S, False))
        _, took = asyncio.run(load(port, tokens, seconds, votes_benchmark.THINK_S, False))
    return {"50 annotators, a vote's p95": (float(np.percentile(took, 95)) / 1000, math.nan)}


def pages(root: Path, runs: int) -> Times:
    """First call of a process, and the median of later ones."""
    from feedback_app.services import open_services

    times: Times = {}
    with closing(open_services(root, **SETTINGS)) as services:
        operations = services.operations
        asked: dict[str, Callable[[], Any]] = {
            "results (leaderboards)": operations.results,
            "people": operations.people,
            "effect of a weight": lambda: operations.weight_effect("person1", 0.0),
            "accounts": operations.list_annotators,
            "status": operations.status,
            "search of comments": lambda: operations.search_votes(text="ROUGH"),
            "find a pair": lambda: operations.find_pairs(text="song 7"),
            "preview of an export": operations.preview_export,
        }
        for name, work in asked.items():
            first, _ = timed(work)
            later = middle([timed(work)[0] for _ in range(runs)])
            times |= {f"{name}, first": first, f"{name}, later": later}
    return times


def export(root: Path) -> Times:
    """Everything as Parquet, by the run that the button starts."""
    from feedback_app.client import Local, follow
    from feedback_app.services import open_services

    with closing(open_services(root, **SETTINGS)) as services:
        start = time.perf_counter()
        made = services.operations.export(format="parquet", include_simulated=True)
        if "run_id" in made:
            follow(Local(services), made["run_id"])
        return {"export, Parquet (no bar)": (time.perf_counter() - start, math.nan)}


def told(found: dict[int, Times]) -> None:
    sizes = sorted(found)
    head = "".join(f"{size:>12,d}" for size in sizes)
    print(f"\n{'seconds':34s}{head}{'CPU':>10s}{'exponent':>10s}")
    for name in found[sizes[-1]]:
        clock = [found[size][name][0] for size in sizes]
        cpu = [found[size][name][1] for size in sizes]
        rows = clock if math.isnan(cpu[-1]) else cpu
        power = ""
        if len(sizes) > 1 and rows[-2] > 0 and rows[-1] > 0:
            power = f"{math.log(rows[-1] / rows[-2]) / math.log(sizes[-1] / sizes[-2]):.2f}"
        over = clock[-1] > BAR_S and "no bar" not in name and not name.startswith("start of")
        cells = "".join(f"{value:12.4f}" for value in clock)
        print(f"{name:34s}{cells}{cpu[-1]:10.4f}{power:>10s}{'  over the bar' if over else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--votes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the load over HTTP")
    parser.add_argument("--no-export", action="store_true")
    options = parser.parse_args()
    found: dict[int, Times] = {}
    for votes in options.votes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "workspace"
            filling, tokens = timed(lambda root=root, votes=votes: workspace(root, votes))
            size = (root / "preferences.duckdb").stat().st_size / 1e6
            print(f"{votes:,} votes, filled in {filling[0]:.1f} s, {size:.0f} MB", flush=True)
            found[votes] = assignment(root) | under_load(root, tokens, options.seconds)
            found[votes] |= pages(root, options.runs)
            if not options.no_export:
                found[votes] |= export(root)
    told(found)


if __name__ == "__main__":
    main()
