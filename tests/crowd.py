"""A crowd of simulated annotators, a server that is killed under them, and the reckoning.

Used by tests/app/test_crash_crowd.py (a few kills) and benchmarks/crashes.py (a hundred). Every
annotator is a thread with a connection of its own; like the page's outbox it sends a vote (or an
undo) again, under the same UUID, until it is acknowledged. Votes and pairs are made up.

    python tests/crowd.py WORKSPACE PORT      reads "start" lines, forks a real server for each

The forking server has everything imported already, so that a restart costs a second; what runs in
the fork is `feedback_app.serve.serve`.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

PAIRS, PLACES, UNDO_SHARE, MAX_THINK_S = 400, 60, 0.08, 0.25
SETTINGS = {
    "AUTO_PREPARE": "false", "AUTO_GENERATE": "false", "REQUIRED_REGION_SHARE": "0",
    "VOTES_PER_PAIR": str(PLACES), "REPEAT_RATE": "0", "GOLD_RATE": "0", "HEADPHONE_CHECK": "false",
    "VOTES_PER_MINUTE": "1000000", "READS_PER_MINUTE": "1000000", "LOG_LEVEL": "error",
}  # fmt: skip


def fill(root: Path, people: int) -> dict[str, str]:
    """A workspace with pairs and people; {name: session token}. In few statements: it is quick."""
    from feedback_app.auth import hash_password
    from feedback_app.database import utc_now
    from feedback_app.services import open_services
    from rlhf_core.editing.edl import build_edl
    from rlhf_core.types import BeatGrid, Passage

    grid = BeatGrid(np.arange(33) * 0.5, np.arange(32) % 4, 120.0)
    edls = []
    for cut in (None, 5, 20):
        actions = np.zeros(32, dtype=np.int64)
        if cut is not None:
            actions[cut : cut + 2] = 1
        edls.append(json.dumps(build_edl(actions, grid, Passage(0, 32)).to_json()))
    services, now = open_services(root), utc_now()
    services.store.add_song(
        {"song_id": "s", "path": "songs/s/s.wav", "title": "s", "status": "ready",
         "synthetic": True, "added_at": now}
    )  # fmt: skip
    tokens = {f"simulated{number}": uuid4().hex for number in range(people)}
    password = hash_password("a good password")

    def work(cursor: Any) -> None:
        for side, edl in zip("ab", edls[1:], strict=True):
            cursor.execute(
                "INSERT INTO edits (edit_id, song_id, start_beat, end_beat, policy, actions, edl,"
                " audio_path, duration_s) SELECT 'p' || i || ?, 's', 0, 32, 'policy_v1', '[]', ?,"
                " 'none.flac', 15.0 FROM range(?) AS t(i)",
                [side, edl, PAIRS],
            )
        cursor.execute(
            "INSERT INTO pairs (pair_id, song_id, edit_a, edit_b, original_path, original_edl,"
            " pool, regions_a, regions_b, created_at, retired) SELECT 'p' || i, 's',"
            " 'p' || i || 'a', 'p' || i || 'b', 'none.flac', ?, 'random', '[[1, 2]]', '[[5, 6]]',"
            " ?, false FROM range(?) AS t(i)",
            [edls[0], now, PAIRS],
        )
        for name, token in tokens.items():
            cursor.execute(
                "INSERT INTO annotators (name, role, password, created_at, disabled, weight)"
                " VALUES (?, 'annotator', ?, ?, false, 1.0)",
                [name, password, now],
            )
            cursor.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?)",
                [hashlib.sha256(token.encode()).hexdigest(), name, now, now + timedelta(days=1)],
            )

    services.store.database.write(work)
    services.close()
    return tokens


@dataclass
class Annotator:
    """One simulated person. acknowledged: what the server said is stored, in the order of it."""

    name: str
    token: str
    port: int
    stop: threading.Event
    rng: random.Random
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repeats: int = 0

    def run(self) -> None:
        shown = None
        while not self.stop.is_set():
            if shown is None:
                shown = self._ask("GET", "/api/next")
                if shown is None or "assignment_id" not in shown:
                    shown = None
                    time.sleep(0.2)
                    continue
            vote = {"vote_id": str(uuid4()), "assignment_id": shown["assignment_id"],
                    "choice": self.rng.choice(["left", "right", "tie"])}  # fmt: skip
            answer = self._until_acknowledged("/api/vote", vote)
            if answer is None:
                return
            shown = answer["next"]
            if self.rng.random() < UNDO_SHARE:
                undo = {"vote_id": str(uuid4()), "undoes": vote["vote_id"]}
                answer = self._until_acknowledged("/api/undo", undo)
                shown = None if answer is None else answer["assignment"]
            time.sleep(self.rng.random() * MAX_THINK_S)

    def _until_acknowledged(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Send until it is acknowledged. After the end, once more and no further."""
        self.sent.append(body)
        first = True
        while True:
            self.repeats += not first
            answer = self._ask("POST", path, body)
            if answer is not None:
                self.acknowledged.append(body)
                return answer
            first = False
            if self.stop.wait(0.05):
                return None

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """The answer; None where the server was not there or died meanwhile."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"cookie": f"session={self.token}"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if answer.status != 200:
            self.problems.append(f"{method} {path}: {answer.status} {text[:200]!r}")
            return None if answer.status >= 500 else {"next": None, "assignment": None}
        return dict(json.loads(text))


class Forker:
    """Starts real servers by forking a process that has imported everything."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        env = dict(os.environ) | {f"FEEDBACK_APP_{name}": value for name, value in SETTINGS.items()}
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(root), str(self.port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
        self._wait_for("ready")

    def _wait_for(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.removeprefix(word).strip()
            if line.startswith("failed"):
                raise RuntimeError(f"the server did not start: {line}")
        raise RuntimeError(f"the server ended before it said {word!r}")

    def start(self) -> int:
        """Fork a server; its process id, at once."""
        assert self.process.stdin is not None
        print("start", file=self.process.stdin, flush=True)
        return int(self._wait_for("pid"))

    def wait_until_listening(self) -> None:
        self._wait_for("listening on")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def main(root: Path, port: int) -> None:
    import feedback_app.app  # noqa: F401 - everything slow, once
    from feedback_app.serve import serve

    print("ready", flush=True)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setsid()
            with Path(os.devnull).open() as nothing:
                os.dup2(nothing.fileno(), 0)
            try:
                serve(root, port=port)
            except BaseException as error:  # noqa: BLE001 - the fork must end here; its parent tells
                print(f"failed {error!r}", flush=True)
            finally:
                os._exit(0)
        print(f"pid {child}", flush=True)
        threading.Thread(target=os.waitpid, args=(child, 0), daemon=True).start()


def end(pid: int, how: signal.Signals) -> None:
    """Send the signal and wait until the process is gone (the forker reaps it)."""
    os.kill(pid, how)
    for _ in range(1200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise RuntimeError(f"server {pid} does not end on {how.name}")


def kill_under(
    root: Path, people: int, kills: int, seed: int, *, while_starting: float = 0.2
) -> dict[str, Any]:
    """Kill the server so many times at random moments; what was sent, acknowledged and stored."""
    rng = random.Random(seed)
    tokens = fill(root, people)
    forker, stop = Forker(root), threading.Event()
    crowd = [
        Annotator(name, token, forker.port, stop, random.Random(f"{seed} {name}"))
        for name, token in tokens.items()
    ]
    threads = [threading.Thread(target=one.run, daemon=True) for one in crowd]
    for thread in threads:
        thread.start()
    try:
        for _ in range(kills):
            pid = forker.start()
            if rng.random() < while_starting:
                time.sleep(rng.random())  # it may not have opened the database yet, or just now
            else:
                forker.wait_until_listening()
                _wait_for_votes(crowd, rng.randint(1, 200))
            end(pid, signal.SIGKILL)
        pid = forker.start()
        forker.wait_until_listening()
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
        end(pid, signal.SIGTERM)
    finally:
        stop.set()
        forker.close()
    return reckon(root, crowd) | {"kills": kills}


def _wait_for_votes(crowd: list[Annotator], more: int) -> None:
    """Until so many more are acknowledged, ten seconds at most."""
    until = time.monotonic() + 10
    wanted = more + sum(len(one.acknowledged) for one in crowd)
    while time.monotonic() < until and sum(len(one.acknowledged) for one in crowd) < wanted:
        time.sleep(0.002)


def reckon(root: Path, crowd: list[Annotator]) -> dict[str, Any]:
    """Compare what the people were told with what is in the database (read by duckdb alone)."""
    import duckdb

    connection = duckdb.connect(str(root / "preferences.duckdb"), read_only=True)

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return list(connection.execute(sql).fetchall())

    stored = {str(row[0]): row[1:] for row in rows(
        "SELECT vote_id, kind, undoes, annotator, assignment_id FROM votes")}  # fmt: skip
    sent = {body["vote_id"]: (one.name, body) for one in crowd for body in one.sent}
    acknowledged = [(one.name, body) for one in crowd for body in one.acknowledged]
    lost = [b["vote_id"] for name, b in acknowledged if not _is_there(stored, name, b)]
    doubled = rows(
        "SELECT assignment_id FROM votes AS v WHERE kind = 'vote' AND NOT EXISTS (SELECT 1 FROM"
        " votes AS u WHERE u.kind = 'undo' AND u.undoes = v.vote_id) GROUP BY 1 HAVING count(*) > 1"
    )
    wrong_state = rows(
        "SELECT a.assignment_id, a.state, count(v.vote_id) FROM assignments AS a LEFT JOIN"
        " current_votes AS v USING (assignment_id) GROUP BY 1, 2"
        " HAVING (a.state = 'done') <> (count(v.vote_id) = 1)"
    )
    twice = rows(
        "SELECT pair_id, annotator FROM assignments WHERE repeat_of IS NULL"
        " GROUP BY 1, 2 HAVING count(*) > 1"
    )
    crowded = rows(
        "SELECT pair_id FROM assignments WHERE state <> 'abandoned' GROUP BY 1"
        f" HAVING count(*) > {PLACES}"
    )
    held = rows(
        "SELECT annotator FROM assignments WHERE state = 'open' GROUP BY 1 HAVING count(*) > 4"
    )
    connection.close()
    return {
        "people": len(crowd), "sent": len(sent), "acknowledged": len(acknowledged),
        "stored": len(stored), "sent_again": sum(one.repeats for one in crowd), "lost": lost,
        "unknown": sorted(set(stored) - set(sent)), "doubled": doubled, "wrong_state": wrong_state,
        "twice": twice, "crowded": crowded, "held": held,
        "problems": [problem for one in crowd for problem in one.problems],
    }  # fmt: skip


def _is_there(stored: dict[str, tuple[Any, ...]], name: str, body: dict[str, Any]) -> bool:
    row = stored.get(body["vote_id"])
    if row is None:
        return False
    kind, undoes, annotator, assignment = row
    if "undoes" in body:
        return (kind, str(undoes), annotator) == ("undo", body["undoes"], name)
    return (kind, assignment, annotator) == ("vote", body["assignment_id"], name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
