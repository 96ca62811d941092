"""Votes against the real server: 1, 10 and 50 simulated annotators, with and without think time.

    python benchmarks/votes.py [--runs 5] [--seconds 10] [--browser]

Measured is a vote's POST until its whole answer (stored for good, with the next pair in it) has
been read, by a plain asyncio client on the same machine; audio is not fetched. Bars: 50 annotators
who take nearly a second each (50 votes/s), median over the runs: p50 < 20 ms and p95 < 100 ms;
without think time at least 5 times the votes/s of the same handler behind Gradio's queue (unlimited
concurrency there). Pairs are made up, of real size: 64 beats, 400 peaks; of all pools, half of them
ranked. Votes are simulated.

--browser: in a real Chromium, milliseconds from the key of a vote until the next pair sounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import orjson

PAIRS, PEOPLE, PLACES = 2400, 50, 20
SETTINGS = {
    "AUTO_PREPARE": "false", "AUTO_GENERATE": "false", "REQUIRED_REGION_SHARE": "0",
    "VOTES_PER_PAIR": str(PLACES), "VOTES_PER_MINUTE": "1000000", "READS_PER_MINUTE": "1000000",
}  # fmt: skip
BARS = {"p50": 20.0, "p95": 100.0, "ratio": 5.0}
QUEUE = "/by-queue"
THINK_S = 0.9  # on average; 50 people then send a little over 50 votes/s


# -- the workspace --------------------------------------------------------------------------------


def fill(root: Path) -> list[str]:
    """Pairs and people; returns a session's token for each of the people."""
    from feedback_app.database import utc_now
    from feedback_app.services import open_services
    from rlhf_core.editing.edl import build_edl
    from rlhf_core.types import BeatGrid, Passage

    grid = BeatGrid(np.arange(65) * 0.4837, np.arange(65)[:-1] % 4, 60 / 0.4837)
    edls = []
    for cut in (None, 12, 40):
        actions = np.zeros(64, dtype=np.int64)
        if cut is not None:
            actions[cut : cut + 4] = 1
        edls.append(orjson.dumps(build_edl(actions, grid, Passage(0, 64)).to_json()).decode())
    peaks = orjson.dumps(np.random.default_rng(0).random(400).round(4).tolist()).decode()
    services = open_services(root)
    now = utc_now()
    song = {"song_id": "s", "path": "songs/s/s.wav", "title": "s", "status": "ready",
            "synthetic": True, "added_at": now}  # fmt: skip
    services.store.add_song(song)

    def work(cursor: Any) -> None:
        for side, edl in zip("ab", edls[1:], strict=True):
            cursor.execute(
                "INSERT INTO edits SELECT 'p' || i || ?, 's', 0, 64, 'policy_v1', NULL, 1.0, i,"
                " '[]', ?, 'none.flac', 29.0, ? FROM range(?) AS t(i)",
                [side, edl, peaks, PAIRS],
            )
        cursor.execute(
            "INSERT INTO pairs SELECT 'p' || i, 's', 'p' || i || 'a', 'p' || i || 'b', 'none.flac',"
            " 31.0, ?, ?, ['random', 'chosen', 'cross', 'broad'][i % 4 + 1], '[[5.8, 7.7]]',"
            " '[[19.3, 21.3]]', NULL, NULL, 'made', ?, false,"
            " false FROM range(?) AS t(i)",
            [edls[0], peaks, now, PAIRS],
        )
        cursor.execute(
            "INSERT OR REPLACE INTO pair_scores SELECT pair_id, 'reward_v0', random(),"
            " row_number() OVER (ORDER BY hash(pair_id)), 'made', created_at FROM pairs"
            " WHERE pool IN ('chosen', 'broad')"
        )

    services.store.database.write(work)
    tokens = []
    for number in range(PEOPLE):
        services.operations.add_user(f"simulated{number}", "annotator", "a good password")
        tokens.append(services.sessions.sign_in(f"simulated{number}", "a good password", "local"))
    services.close()
    return tokens


@contextmanager
def server(root: Path, *, queue: bool) -> Iterator[int]:
    """The app in a process of its own; with `queue`, with the handler behind Gradio's as well."""
    if queue:
        command = [sys.executable, __file__, "--serve", str(root)]
    else:
        command = [sys.executable, "-m", "feedback_app", "serve", "--workspace", str(root)]
        command += ["--port", "0"]
    settings = {f"FEEDBACK_APP_{name}": value for name, value in SETTINGS.items()}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | settings
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("listening on "):
            break
    else:
        raise SystemExit("the server did not start")
    try:
        yield int(line.strip().rsplit(":", 1)[1])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def serve_with_queue(root: Path) -> None:
    """The app with one more page: the vote handler as a Gradio event."""
    import gradio as gr
    import uvicorn

    from feedback_app.app import _user_name, build_app
    from feedback_app.server import _strings, _vote_form
    from feedback_app.services import open_services

    services = open_services(root)
    annotation = services.annotation

    def vote(data: dict[str, Any], request: gr.Request) -> str:
        form, exclude = _vote_form(data), _strings(data, "exclude")
        done = annotation.vote(str(request.username), form, exclude).result()
        showing, following = annotation.showing, done["next"]
        answer = {
            "ok": True,
            "reveal": showing.reveal(done["assignment"]),
            "next": None if following is None else showing.payload(following),
            "progress": done["progress"],
            "hint": done["hint"],
        }
        return orjson.dumps(answer).decode()

    vote.__annotations__["request"] = gr.Request  # told by type, and names here are local ones
    with gr.Blocks(analytics_enabled=False) as page:
        given, told = gr.JSON(), gr.JSON()
        gr.Button().click(vote, given, told, api_name="vote", concurrency_limit=None)
    app = build_app(services)
    # Before the other routes: the sign-in middleware then covers it like everything else.
    gr.mount_gradio_app(app, page, QUEUE, auth_dependency=_user_name, run_history=False)
    config = uvicorn.Config(app, port=0, log_level="warning", access_log=False)

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            port = self.servers[0].sockets[0].getsockname()[1]
            print(f"listening on http://127.0.0.1:{port}", flush=True)

    try:
        Announced(config).run()
    except KeyboardInterrupt:
        pass
    finally:
        services.close()


# -- the clients ----------------------------------------------------------------------------------


class Client:
    """One annotator's keep-alive connection; as little HTTP as is needed."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.head = f"Host: 127.0.0.1:{port}\r\nCookie: session={token}\r\n"
        self.hash = uuid4().hex

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, method: str, path: str, body: Any = None) -> bytes:
        data = b"" if body is None else orjson.dumps(body)
        head = f"{method} {path} HTTP/1.1\r\n{self.head}Content-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status = await self.reader.readline()
        length, chunked = 0, False
        while (line := await self.reader.readline()) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
            chunked = chunked or (name.lower() == "transfer-encoding" and "chunked" in value)
        answer = await (self._chunks() if chunked else self.reader.readexactly(length))
        if b" 200 " not in status:
            raise SystemExit(f"{method} {path}: {status!r} {answer[:300]!r}")
        return answer

    async def _chunks(self) -> bytes:
        parts = []
        while size := int(await self.reader.readline(), 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return b"".join(parts)

    async def first(self) -> str:
        return str(orjson.loads(await self.ask("GET", "/api/next"))["assignment_id"])

    async def vote(self, assignment: str, queue: bool) -> str:
        """Vote on an assignment; returns the next one."""
        listened = {
            "left_s": 14.2, "right_s": 12.9, "original_s": 3.1, "switches": 7,
            "regions_left_s": [1.9], "regions_right_s": [2.0], "first_side": "left",
        }  # fmt: skip
        body = {
            "vote_id": str(uuid4()), "assignment_id": assignment,
            "choice": random.choice(("left", "right")), "strength": 2, "tags": ["good flow"],
            "comment": "", "listened": listened, "response_ms": 4321, "client_version": "bench",
        }  # fmt: skip
        if not queue:
            answer = orjson.loads(await self.ask("POST", "/api/vote", body))
        else:
            join = {"data": [body], "fn_index": 0, "session_hash": self.hash}
            await self.ask("POST", f"{QUEUE}/gradio_api/queue/join", join)
            stream = await self.ask(
                "GET", f"{QUEUE}/gradio_api/queue/data?session_hash={self.hash}"
            )
            events = [orjson.loads(line[5:]) for line in stream.split(b"\n\n") if line]
            done = next(one for one in events if one["msg"] == "process_completed")
            if not done["success"]:
                raise SystemExit(f"the queue's handler failed: {done}")
            answer = done["output"]["data"][0]
        return str(answer["next"]["assignment_id"])


async def sitting(
    client: Client, assignment: str, until: float, think_s: float, queue: bool
) -> tuple[float, list[float]]:
    """One annotator until a moment; when the last answer came, and milliseconds of each vote."""
    took, ended = [], 0.0
    if think_s:
        await asyncio.sleep(random.random() * think_s)
    while time.perf_counter() < until:
        started = time.perf_counter()
        assignment = await client.vote(assignment, queue)
        ended = time.perf_counter()
        took.append(1000 * (ended - started))
        if think_s:
            pause = think_s * random.uniform(0.5, 1.5)
            await asyncio.sleep(max(0.0, pause - took[-1] / 1000))
    return ended, took


async def load(
    port: int, tokens: list[str], seconds: float, think_s: float, queue: bool
) -> tuple[float, list[float]]:
    """(votes/s, sorted milliseconds) of as many annotators as there are tokens."""
    clients = [await Client(port, token).__aenter__() for token in tokens]
    given = await asyncio.gather(*(one.first() for one in clients))
    started = time.perf_counter()
    until = started + seconds
    sittings = (
        sitting(one, first, until, think_s, queue)
        for one, first in zip(clients, given, strict=True)
    )
    done = await asyncio.gather(*sittings)
    elapsed = max(ended for ended, _ in done) - started
    for client in clients:
        await client.__aexit__()
    took = sorted(one for _, votes in done for one in votes)
    return len(took) / elapsed, took


def report(name: str, runs: list[tuple[float, list[float]]]) -> dict[str, float]:
    """Print the median over runs of votes/s, p50, p95 and the worst; returns them."""
    rows = [
        (rate, *(float(np.percentile(took, share)) for share in (50, 95, 100)))
        for rate, took in runs
    ]
    rate, p50, p95, worst = (statistics.median(column) for column in zip(*rows, strict=True))
    spread = ", ".join(f"{row[1]:.0f}/{row[2]:.0f}" for row in rows)
    print(
        f"{name:34s} {rate:7.1f} votes/s  p50 {p50:6.1f}  p95 {p95:6.1f}  worst {worst:6.1f} ms"
        f"   (p50/p95 of each run: {spread})",
        flush=True,
    )
    return {"rate": rate, "p50": p50, "p95": p95}


def both_loads(
    root: Path, tokens: list[str], runs: int, seconds: float, queue: bool
) -> dict[str, float]:
    """1, 10 and 50 annotators, with and without thought; the figures of the last ones."""
    found: dict[str, float] = {}
    way = "Gradio's queue" if queue else "our route"
    with server(root, queue=queue) as port:
        asyncio.run(load(port, tokens[:4], 1, 0.0, queue))  # the first votes warm the server up
        for count in (1, 10, PEOPLE):
            some, times = tokens[:count], runs if count == PEOPLE and not queue else 2
            thinking = [
                asyncio.run(load(port, some, seconds, THINK_S, queue)) for _ in range(times)
            ]
            found = report(f"{way}, {count}, {THINK_S} s of thought", thinking)
            closed = [asyncio.run(load(port, some, seconds / 4, 0.0, queue)) for _ in range(3)]
            found |= {"closed": report(f"{way}, {count}, no thought", closed)["rate"]}
    return found


# -- the browser ----------------------------------------------------------------------------------

SOUNDED = """
window.sounded = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when = 0, ...rest) {
  const wait = Math.max(0, when - this.context.currentTime) * 1000;
  window.sounded.push(performance.now() + wait);
  return start.call(this, when, ...rest);
};
addEventListener("keydown", (event) => {
  window.pressed = event.timeStamp;
  window.sounded = [];
}, true);
"""


def in_browser(root: Path, votes: int) -> None:
    """Key of a vote until the first sample of the next pair is due on the audio clock."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import ARGS, PASSWORD, chromium_path, running

    took = []
    with running(root, count=votes + 3, beats=64) as app, sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=chromium_path(), args=ARGS).new_page()
        page.add_init_script("localStorage.setItem('tour-seen/1', '1')" + SOUNDED)
        page.goto(app.url + "/login?next=/annotate")
        page.fill("input[name=name]", "listener1")
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_selector(".studio[data-phase=ready]")
        page.keyboard.press("1")
        for _ in range(votes):
            page.wait_for_function("() => window.__player.prefetched !== null")
            page.keyboard.press("t")
            page.wait_for_function("() => window.sounded.length > 0")
            took.append(page.evaluate("window.sounded[0] - window.pressed"))
    took.sort()
    print(
        f"browser, {votes} votes: key to sound p50 {np.percentile(took, 50):.1f}, "
        f"p95 {np.percentile(took, 95):.1f}, worst {took[-1]:.1f} ms (bar: 100 ms)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        serve_with_queue(args.serve)
        return
    print("load average before:", ", ".join(f"{one:.1f}" for one in os.getloadavg()))
    with tempfile.TemporaryDirectory() as folder:
        if args.browser:
            in_browser(Path(folder) / "workspace", 40)
            return
        for name in ("http", "queue"):
            (Path(folder) / name).mkdir()
        tokens = fill(Path(folder) / "http")
        found = both_loads(Path(folder) / "http", tokens, args.runs, args.seconds, False)
        tokens = fill(Path(folder) / "queue")
        queued = both_loads(Path(folder) / "queue", tokens, args.runs, args.seconds, True)
        found["ratio"] = found["closed"] / queued["closed"]
    for name, bar in BARS.items():
        good = found[name] >= bar if name == "ratio" else found[name] < bar
        print(f"{name} {found[name]:.1f} (bar {bar:g}): {'met' if good else 'MISSED'}")
    print("load average after:", ", ".join(f"{one:.1f}" for one in os.getloadavg()))


if __name__ == "__main__":
    main()
