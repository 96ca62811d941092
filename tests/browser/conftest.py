"""A real server on a temporary workspace with short synthetic pairs, and a real Chromium.

The pairs are generated here: every beat has its own pitch, so that a listener, or a test, could
tell where in the song the sound is. Nobody's music and nobody's votes.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

PASSWORD = "correct horse battery"
ARGS = [
    "--no-sandbox", "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-quic",
]  # fmt: skip
LISTENERS = [f"listener{number}" for number in range(1, 36)]
VOTES_PER_PAIR = 40  # so that every listener is given every pair
REQUIRED_S = 1.2  # to be heard on each side before voting opens
RATE = 16000
BEAT_S = 0.3


def chromium_path() -> str | None:
    """A Chromium of the system; None means playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def song(beats: int) -> np.ndarray:
    """(beats * RATE * BEAT_S,) one struck note a beat, climbing a pentatonic scale."""
    seconds = np.arange(int(RATE * BEAT_S)) / RATE
    notes = [0, 3, 5, 7, 10]
    out = []
    for beat in range(beats):
        pitch = 110 * 2 ** ((notes[beat % 5] + 12 * (beat // 5 % 3)) / 12)
        loud = 0.5 + 0.35 * np.sin(beat / beats * 6.0) * (1 if beat % 4 else 1.3)
        tone = np.sin(2 * np.pi * pitch * seconds) + 0.4 * np.sin(4 * np.pi * pitch * seconds)
        out.append(0.4 * loud * tone * np.exp(-3.5 * seconds / BEAT_S))
    return np.concatenate(out)


def render(source: np.ndarray, edl: Any) -> np.ndarray:
    """The edit by hard cuts: enough for testing a player."""
    size = int(RATE * BEAT_S)
    parts = []
    for beat in edl.beats:
        part = source[beat.source_beat * size : (beat.source_beat + 1) * size]
        gain = np.linspace(beat.gain_start, beat.gain_end, size)
        parts.append((part[::-1] if beat.reverse else part) * gain)
    return np.concatenate(parts)


def peaks(samples: np.ndarray, count: int = 400) -> list[float]:
    return [float(np.abs(part).max()) for part in np.array_split(samples, count)]


@dataclass(frozen=True)
class Workshop:
    """Makes workspaces with pairs in them."""

    root: Path

    def fill(self, count: int, beats: int = 16, **settings: Any) -> None:
        from feedback_app.services import open_services
        from rlhf_core.types import BeatGrid

        services = open_services(
            self.root, votes_per_pair=VOTES_PER_PAIR, auto_generate=False, **settings
        )
        try:
            services.operations.add_user("res", "researcher", PASSWORD)
            for name in LISTENERS:
                services.operations.add_user(name, "annotator", PASSWORD)
            grid = BeatGrid(np.arange(beats + 1) * BEAT_S, np.arange(beats) % 4, 60 / BEAT_S)
            self._song(services, beats)
            for index in range(count):
                self._pair(services, index, grid)
        finally:
            services.close()

    def _song(self, services: Any, beats: int) -> None:
        from feedback_app.database import utc_now

        services.store.add_song(
            {
                "song_id": "0123456789abcdef",
                "path": "songs/0123456789abcdef/study.wav",
                "title": "Study <b>in</b> five notes",
                "duration_s": beats * BEAT_S,
                "sample_rate": RATE,
                "channels": 1,
                "n_beats": beats,
                "tempo_bpm": 60 / BEAT_S,
                "status": "ready",
                "synthetic": True,
                "added_at": utc_now(),
            }
        )

    def _pair(self, services: Any, index: int, grid: Any) -> None:
        from rlhf_core.editing.differences import differing_regions
        from rlhf_core.editing.edl import build_edl
        from rlhf_core.types import Passage

        beats, passage = grid.n_beats, Passage(0, grid.n_beats)
        source = song(beats)
        plans = {"a": np.zeros(beats, dtype=np.int64), "b": np.zeros(beats, dtype=np.int64)}
        for beat, action in PLANS_A[index % len(PLANS_A)].items():
            plans["a"][int(beat * beats)] = action
        for beat, action in PLANS_B[index % len(PLANS_B)].items():
            plans["b"][int(beat * beats)] = action
        edls = {name: build_edl(actions, grid, passage) for name, actions in plans.items()}
        original = build_edl(np.zeros(beats, dtype=np.int64), grid, passage)
        regions = differing_regions(edls["a"], edls["b"])
        folder = services.workspace.runs / "made" / "audio" / f"pair{index:04d}"
        folder.mkdir(parents=True)
        edits = []
        for name, edl in edls.items():
            samples = render(source, edl)
            soundfile.write(folder / f"{name}.flac", samples, RATE)
            edits.append(
                {
                    "edit_id": f"pair{index:04d}-{name}",
                    "song_id": "0123456789abcdef",
                    "start_beat": 0,
                    "end_beat": beats,
                    "policy": "policy_v1",
                    "preset": None,
                    "temperature": 1.0,
                    "seed": index,
                    "actions": plans[name].tolist(),
                    "edl": edl.to_json(),
                    "audio_path": services.workspace.relative(folder / f"{name}.flac"),
                    "duration_s": edl.duration_s,
                    "peaks": peaks(samples),
                }
            )
        soundfile.write(folder / "original.flac", source, RATE)
        services.store.add_pair(
            {
                "pair_id": f"pair{index:04d}",
                "song_id": "0123456789abcdef",
                "edit_a": f"pair{index:04d}-a",
                "edit_b": f"pair{index:04d}-b",
                "original_path": services.workspace.relative(folder / "original.flac"),
                "original_edl": original.to_json(),
                "original_peaks": peaks(source),
                "pool": "random",
                "regions_a": regions[0],
                "regions_b": regions[1],
            },
            edits,
        )


# Which action is done where (as a share of the passage); ids as in rlhf_core.editing.actions.
PLANS_A: list[dict[float, int]] = [{0.25: 1, 0.3125: 1}, {0.25: 2}, {0.3125: 1}, {0.25: 4}]
PLANS_B: list[dict[float, int]] = [{0.75: 3}, {0.8125: 9}, {0.75: 8, 0.8125: 6}, {0.8125: 1}]


@dataclass
class Server:
    """The app as its own process; can be killed and started again on the same port."""

    root: Path
    port: int = 0
    url: str = ""
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)  # over the ones below

    def start(self) -> None:
        command = [sys.executable, "-u", "-m", "feedback_app", "serve", "--workspace",
                   str(self.root), "--port", str(self.port)]  # fmt: skip
        settings = {
            "auto_generate": "false",
            "required_cap_s": REQUIRED_S,
            "votes_per_pair": VOTES_PER_PAIR,
            "headphone_check": "false",
            "repeat_rate": 0,
            "gold_rate": 0,
        } | self.settings
        chosen = {f"FEEDBACK_APP_{name.upper()}": str(value) for name, value in settings.items()}
        environment = os.environ | chosen
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, lines), daemon=True).start()
        while (line := lines.get(timeout=90)) is not None:
            if found := re.search(r"http://[\d.]+:\d+", line):
                self.url = found.group()
                self.port = int(self.url.rsplit(":", 1)[1])
                return
        raise AssertionError("the server did not start:\n" + "".join(self.output))

    def _read(self, process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.output.append(line)
            lines.put(line)
        lines.put(None)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=30)
            self.process = None


@contextmanager
def running(root: Path, count: int, **plan: Any) -> Iterator[Server]:
    Workshop(root).fill(count, **plan)
    server = Server(root)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of the annotation page; each visit is by another listener."""
    with running(tmp_path_factory.mktemp("browser") / "workspace", count=10) as started:
        yield started


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=ARGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def listeners() -> Iterator[str]:
    return iter(LISTENERS)


@dataclass
class Visit:
    """One person in one browser window, with everything that the page asked for."""

    name: str
    context: BrowserContext
    page: Page
    requests: list[str]
    problems: list[str]


@pytest.fixture
def sign_in(
    browser: Browser, server: Server, listeners: Iterator[str]
) -> Iterator[Callable[..., Visit]]:
    """sign_in(path="/annotate", tour=False, script="", **context options) -> Visit by a new one.

    script: JavaScript that runs before the page's own.
    """
    contexts = []

    def visit(
        path: str = "/annotate", tour: bool = False, script: str = "", **options: Any
    ) -> Visit:
        name = next(listeners)
        context = browser.new_context(**options)
        contexts.append(context)
        if not tour:
            context.add_init_script("localStorage.setItem('tour-seen/1', '1')")
        if script:
            context.add_init_script(script)
        page = context.new_page()
        seen = Visit(name, context, page, [], [])
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: seen.problems.append(str(error)))
        page.goto(server.url + "/login?next=" + path)
        page.fill("input[name=name]", name)
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: urlsplit(url).path.startswith(path), timeout=20000)
        return seen

    yield visit
    for context in contexts:
        context.close()
