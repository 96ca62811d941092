"""How long the figures of Results and People take with 100,000 votes in the table.

    python benchmarks/figures.py [--votes 100000 1000000] [--runs 5]

Fills a database with simulated people's votes on pairs of ten versions (three votes a pair, some
repeats, gold pairs, undone votes and simulated ones), then asks for the figures as the page does.
Bars: under 1 s each, median of the runs, with 100,000 votes; the leaderboard and the people's
figures with 1,000,000 as well. The ratio is to DuckDB's own time for counting the current votes,
taken in the same run; CPU seconds stand beside, for machines that have other work. The first time
of a process reads all votes into `facts`. Votes are made up by the machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

PEOPLE, SONGS, VERSIONS = 50, 60, 10
BAR_S = 1.0
# Different people for the votes of a pair; now and then the second is a repeat for the first.
WHO = (
    "'person' || ((v // {each} + (CASE WHEN v % 30 = 1 THEN 0 ELSE v % {each} END) * {apart}) % ?)"
)
CHOICE = (
    "['a', 'b', 'tie', 'both_bad', 'skip', 'a', 'b', 'a', 'b', 'a'][(1 + hash(v, 1) % 10)::BIGINT]"
)


def fill(services: Any, votes: int, people: int = PEOPLE, each: int = 3) -> None:
    """`votes` rows, `each` a pair: 5 % undone, 3 % repeats, 4 % gold, a tenth simulated."""
    from feedback_app.database import utc_now

    pairs = max(votes // each, 1)
    who = WHO.format(each=each, apart=people // each + (each == 3))
    now = utc_now()
    edl = orjson.dumps(example_edl()).decode()
    statements: list[tuple[str, list[Any]]] = [
        ("INSERT INTO songs (song_id, path, title, status, synthetic, added_at)"
         " SELECT 's' || i, 'songs/s' || i || '.wav', 'Song ' || i, 'ready', true, ?"
         " FROM range(?) AS t(i)", [now, SONGS]),
        ("INSERT INTO policies SELECT 'policy_v' || (i + 1), 'none.pt',"
         " CASE WHEN i > 0 THEN 'policy_v' || i END, NULL, NULL, NULL, 'retired', 'ppo', '{}',"
         " ?::TIMESTAMP + to_hours(i::INTEGER) FROM range(?) AS t(i)", [now, VERSIONS]),
        ("INSERT INTO annotators SELECT 'person' || i, 'annotator', NULL, ?, false, 1.0"
         " FROM range(?) AS t(i)", [now, people]),
        ("INSERT INTO edits SELECT 'p' || i || s.side, 's' || (i % ?), 0, 64,"
         " CASE WHEN i % 25 = 0 AND s.side = 'b' THEN 'gold' ELSE"
         " 'policy_v' || (1 + (hash(i::VARCHAR || s.side) % ?)) END,"
         " CASE WHEN i % 25 = 0 AND s.side = 'b' THEN 'broken' END, 1.0, i,"
         " ?, ?, 'none.flac', 25 + (hash(i::VARCHAR || s.side) % 80) / 10.0, NULL"
         " FROM range(?) AS t(i), (VALUES ('a'), ('b')) AS s(side)",
         [SONGS, VERSIONS, str([0] * 62 + [1, 2]), edl, pairs]),
        ("INSERT INTO pairs SELECT 'p' || i, 's' || (i % ?), 'p' || i || 'a', 'p' || i || 'b',"
         " 'none.flac', 31.0, ?, NULL, CASE WHEN i % 25 = 0 THEN 'gold' ELSE 'random' END, '[]',"
         " '[]', '{\"a\": -1.5, \"b\": -0.5}', -18.0, 'made', ?, false, false"
         " FROM range(?) AS t(i)", [SONGS, edl, now, pairs]),
        ("INSERT INTO assignments (assignment_id, pair_id, annotator, b_first, first_side,"
         " media_left, media_right, media_original, state, leased_until, created_at, repeat_of)"
         f" SELECT 'a' || v, 'p' || (v // {each}), {who},"
         " hash(v) % 2 = 0, 'left', '', '', '', 'done', ?, ?,"
         " CASE WHEN v % 30 = 1 THEN 'a' || (v - 1) END FROM range(?) AS t(v)",
         [people, now, now, votes]),
        ("INSERT INTO votes (vote_id, assignment_id, pair_id, annotator, kind, choice, strength,"
         " tags, comment, listened, response_ms, flags, repeat, simulated, source, created_at)"
         f" SELECT gen_random_uuid(), 'a' || v, 'p' || (v // {each}),"
         f" {who}, 'vote', {CHOICE},"
         " NULL, CASE WHEN v % 7 = 0 THEN '[\"good flow\"]' ELSE '[]' END,"
         " CASE WHEN v % 11 = 0 THEN 'the join is <b>rough</b>' ELSE '' END,"
         " '{\"left_s\": 9.0, \"right_s\": 8.0, \"first_side\": \"left\"}', 3000 + hash(v) % 9000,"
         " CASE WHEN v % 40 = 0 THEN '[\"too_fast\"]' ELSE '[]' END, v % 30 = 1,"
         " v % 10 = 9, CASE WHEN v % 10 = 9 THEN 'simulate' ELSE 'app' END,"
         " ?::TIMESTAMP + to_seconds((v * 25 // ?)::BIGINT) FROM range(?) AS t(v)",
         [people, now, people, votes]),
        ("INSERT INTO votes (vote_id, pair_id, annotator, kind, undoes, simulated, source,"
         " created_at) SELECT gen_random_uuid(), pair_id, annotator, 'undo', vote_id, simulated,"
         " 'app', ? FROM votes WHERE hash(seq) % 20 = 0", [now]),
    ]  # fmt: skip
    for sql, values in statements:
        services.store.database.execute(sql, values)


def example_edl() -> dict[str, Any]:
    """The EDL of a cut and a loop in 64 beats."""
    from rlhf_core.editing.edl import build_edl
    from rlhf_core.types import BeatGrid, Passage

    grid = BeatGrid(0.48 * np.arange(65, dtype=np.float64), np.arange(65)[:-1] % 4, 125.0)
    actions = np.zeros(64, dtype=np.int64)
    actions[62:] = (1, 2)
    return dict(build_edl(actions, grid, Passage(0, 64)).to_json())


def seconds(work: Callable[[], Any], runs: int) -> tuple[float, float, float]:
    """Seconds of the first run, median of the later ones, median of the CPU time of those."""
    times, busy = [], []
    for _ in range(runs + 1):
        start, cpu = time.perf_counter(), time.process_time()
        work()
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
    return times[0], statistics.median(times[1:]), statistics.median(busy[1:])


def measure(services: Any, runs: int) -> dict[str, tuple[float, float, float]]:
    """Seconds of each figure by name."""
    operations, store = services.operations, services.store
    asked: dict[str, Callable[[], Any]] = {
        "count current votes (yardstick)": lambda: store.database.rows(
            "SELECT count(*) FROM current_votes"
        ),
        "results": operations.results,
        "people": operations.people,
        "effect of excluding somebody": lambda: operations.weight_effect("person1", 0.0),
        "search of comments": lambda: operations.search_votes(text="ROUGH"),
        "find a pair": lambda: operations.find_pairs(text="song 7"),
    }
    return {name: seconds(work, runs) for name, work in asked.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--votes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    from feedback_app.services import open_services

    for votes in options.votes:
        with tempfile.TemporaryDirectory() as folder:
            services = open_services(Path(folder) / "workspace")
            start = time.perf_counter()
            fill(services, votes)
            print(f"\n{votes:,} votes, filled in {time.perf_counter() - start:.1f} s")
            found = measure(services, options.runs)
            services.close()
        yardstick = found["count current votes (yardstick)"][1]
        print(f"{'':34s}{'first':>9s}{'median':>9s}{'CPU':>9s}{'ratio':>8s}")
        for name, (first, later, busy) in found.items():
            verdict = "" if max(first, later) < BAR_S else f"  over the bar of {BAR_S:g} s"
            print(
                f"{name:34s}{first:8.3f}s{later:8.3f}s{busy:8.3f}s{later / yardstick:8.1f}{verdict}"
            )


if __name__ == "__main__":
    main()
