"""The annotation page in a real Chromium against the real server: sound, switching, votes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Page

from tests.browser.annotating import ready, server_votes, state, wait

pytestmark = pytest.mark.browser

# Oracle for "the same moment", independent of map.js: straight from the EDL rows of both sides.
EXPECTED = """(from, to, t) => {
  const row = from.find(([, start, length]) => t >= start && t < start + length);
  const phase = (t - row[1]) / row[2];
  return to.filter(([beat]) => beat === row[0]).map(([, start, length]) => start + phase * length);
}"""


def hear_everything(page: Page) -> None:
    """By keys alone: go round every difference on both sides until voting opens."""
    for _ in range(4):
        for side in ("1", "2"):
            page.keyboard.press(side)
            for _ in state(page, "differences"):
                if state(page, "open"):
                    return
                page.keyboard.press("d")
                name = "left" if side == "1" else "right"
                start, end = state(page, "differences")[state(page, "loop")][name]
                page.wait_for_timeout(int(min(end - start, 1.2) * 1000) + 150)
    wait(page, "window.__player.open")


def test_sound_plays_and_switching_keeps_the_moment(sign_in: Callable[..., Any]) -> None:
    visit = sign_in()
    page = visit.page
    ready(page)
    page.keyboard.press("1")
    wait(page, "window.__player.playing && window.__player.position > 0.3")
    first = state(page, "position")
    wait(page, f"window.__player.position > {first} + 0.3")
    page.keyboard.press(" ")
    wait(page, "!window.__player.playing")

    places = state(page, "beats")["left"]
    for index in range(0, len(places), 3):
        beat, start, length, reverse = places[index]
        time = start + 0.3 * length
        page.evaluate("(t) => window.__player.seek(t)", time)
        expected = page.evaluate(
            f"(t) => ({EXPECTED})(window.__player.beats.left, window.__player.beats.right, t)", time
        )
        page.keyboard.press("s")
        assert state(page, "side") == "right"
        now = state(page, "position")
        if expected and not reverse:
            assert min(abs(now - place) for place in expected) < 0.005, (beat, now, expected)
        else:
            kept = [row for row in state(page, "beats")["right"] if row[0] > beat]
            assert abs(now - min(kept)[1]) < 0.005, "a beat that was cut lands on its join"
        page.keyboard.press("s")
        assert abs(state(page, "position") - time) < 0.005, "straight back is where one was"
    assert not visit.problems


def test_switching_while_it_plays_loses_no_time(sign_in: Callable[..., Any]) -> None:
    page = sign_in().page
    ready(page)
    page.evaluate("window.__player.seek(0)")
    page.keyboard.press("1")
    wait(page, "window.__player.playing && window.__player.position > 0.4")
    moved = page.evaluate(
        """() => {
          const before = window.__player.song;
          document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "2", bubbles: true }));
          return [before, window.__player.song, window.__player.side];
        }"""
    )
    assert moved[2] == "right"
    assert abs(moved[1] - moved[0]) < 0.1, "in beats of the song"


def test_a_keyboard_sitting_with_an_undo(sign_in: Callable[..., Any]) -> None:
    visit = sign_in()
    page = visit.page
    ready(page)
    before = len(server_votes(page))
    for key, strength in (("q", "x"), ("w", ""), ("e", "")):
        ready(page)
        wait(page, "window.__player.assignment !== null")
        assignment = state(page, "assignment")
        page.keyboard.press(key)
        assert state(page, "assignment") == assignment, "voting opens only when both were heard"
        hear_everything(page)
        if strength:
            page.keyboard.press(strength)
        wait(page, "window.__player.prefetched !== null")
        page.keyboard.press(key)
        assert state(page, "assignment") not in (assignment, None), "the next pair is there at once"
        assert state(page, "playing")
        wait(page, "window.__player.unsent === 0")
    votes = server_votes(page)
    assert len(votes) == before + 3
    mine = {vote["vote_id"]: vote for vote in votes}
    cast = [mine[vote] for vote in state(page, "votes")[-3:]]
    assert [vote["choice"] for vote in cast] == ["left", "right", "tie"]
    assert [vote["strength"] for vote in cast] == [2, None, None]
    page.keyboard.press("u")
    wait(page, "window.__player.unsent === 0")
    assert state(page, "assignment") == assignment, "the pair of the undone vote is back"
    assert state(page, "open"), "and what was heard of it still counts"
    assert len(server_votes(page)) == before + 2
    page.keyboard.press("r")
    wait(page, "window.__player.unsent === 0")
    assert len(server_votes(page)) == before + 3
    assert not visit.problems


def test_a_vote_outlives_a_dead_network_and_a_reload(sign_in: Callable[..., Any]) -> None:
    page = sign_in().page
    ready(page)
    before = len(server_votes(page))
    assignment = state(page, "assignment")
    page.route("**/api/vote", lambda route: route.abort())
    page.keyboard.press("t")
    wait(page, "window.__player.unsent === 1 && window.__player.delivery === 'waiting'")
    voted = state(page, "votes")[-1]
    page.reload()
    ready(page)
    assert state(page, "unsent") == 1
    assert len(server_votes(page)) == before
    page.unroute("**/api/vote")
    page.evaluate("window.dispatchEvent(new Event('online'))")
    wait(page, "window.__player.unsent === 0")
    stored = server_votes(page)
    assert len(stored) == before + 1
    assert voted in json.dumps(stored)
    page.keyboard.press("u")
    wait(page, "window.__player.unsent === 0 && window.__player.votes.length === 0")
    assert len(server_votes(page)) == before, "also a vote from before the reload can be undone"
    wait(page, f"window.__player.assignment === {json.dumps(assignment)}")


def test_a_session_that_ends_keeps_the_vote(sign_in: Callable[..., Any]) -> None:
    visit = sign_in()
    page = visit.page
    ready(page)
    before = len(server_votes(page))
    visit.context.clear_cookies()
    page.keyboard.press("t")
    wait(page, "window.__player.delivery === 'signed-out'")
    page.get_by_role("link", name="Sign in again").click()
    page.fill("input[name=name]", visit.name)
    page.fill("input[name=password]", "correct horse battery")
    page.press("input[name=password]", "Enter")
    ready(page)
    wait(page, "window.__player.unsent === 0")
    assert len(server_votes(page)) == before + 1


def test_nothing_is_asked_of_the_internet_and_nothing_tells(
    sign_in: Callable[..., Any], server: Any
) -> None:
    visit = sign_in()
    page = visit.page
    bodies: list[str] = []
    page.on("response", lambda r: bodies.append(r.text()) if "/api/next" in r.url else None)
    page.reload()
    ready(page)
    wait(page, "window.__player.prefetched !== null")
    origin = urlsplit(server.url).netloc
    outside = [url for url in visit.requests if urlsplit(url).netloc not in ("", origin)]
    assert outside == []
    assert bodies
    for word in ("policy", "preset", "temperature", "pool", "actions", "pair0", "reward"):
        assert not any(word in body for body in bodies), word
    assert not any("pair0" in url for url in visit.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_sideways_scrolling(
    sign_in: Callable[..., Any], scheme: str
) -> None:
    visit = sign_in(
        viewport={"width": 420, "height": 860},
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
    )
    page = visit.page
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.locator("[data-listen=right]").tap()
    wait(page, "window.__player.side === 'right' && window.__player.playing")
    box = page.locator("[data-wave=left]").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    wait(page, "window.__player.side === 'left' && window.__player.position > 1")
    for name in ("left", "right", "tie", "both_bad", "skip"):
        button = page.locator(f"[data-vote={name}]").bounding_box()
        assert button is not None
        assert button["height"] >= 44
        assert button["x"] + button["width"] <= 420


def test_the_walk_through_comes_once(sign_in: Callable[..., Any]) -> None:
    page = sign_in(tour=True).page
    ready(page)
    dialog = page.locator("dialog[open]")
    assert dialog.count() == 1
    assert not state(page, "playing")
    for _ in range(4):
        page.keyboard.press("Enter")
    wait(page, "window.__player.playing")
    assert dialog.count() == 0
    page.reload()
    ready(page)
    assert dialog.count() == 0


def test_the_map_by_hand(sign_in: Callable[..., Any]) -> None:
    """Ten beats of one second; each answer worked out by hand from the rules, not by the code."""
    page = sign_in().page
    ready(page)
    found = page.evaluate(
        """async () => {
          const { mapTime, timeOf, stepBeats } = await import("/static/map.js");
          const rows = (beats) => beats.map((beat, i) =>
            [Math.abs(beat), i, 1, beat < 0 ? 1 : 0]);
          const whole = rows([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
          const cut = rows([0, 1, 4, 5, 6, 7]);             // 2, 3, 8, 9 are gone
          const twice = rows([0, 1, 2, 3, 2, 3, 4, 5]);     // a repeated bar of two
          const swapped = rows([0, 3, 4, 1, 2, 5]);
          const backwards = rows([0, 1, -2, 3]);
          return {
            same: mapTime(whole, cut, 5.25),                // beat 5 is the fourth row
            join: mapTime(whole, cut, 2.75),                // gone: the start of beat 4
            end: mapTime(whole, cut, 9.5),                  // nothing after: the last kept beat
            first: mapTime(whole, twice, 2.5),              // first pass
            later: mapTime(twice, twice, 4.5),              // second pass stays the second
            fewer: mapTime(twice, whole, 4.5),              // only one there
            moved: mapTime(whole, swapped, 3.5),
            reversed: mapTime(whole, backwards, 2.25),
            back: mapTime(whole, twice, 2.9, { from: 4.5, to: 2.5 }),
            on: mapTime(whole, twice, 3.5, { from: 4.5, to: 2.5 }),
            still: mapTime(cut, whole, 2.0, { from: 2.75, to: 2.0 }),
            nearest: timeOf(twice, { beat: 2, phase: 0, occurrence: 7 }, 5),
            wraps: stepBeats(whole, 9.5, 1),
          };
        }"""
    )
    assert found == pytest.approx(
        {
            "same": 3.25, "join": 2, "end": 5, "first": 2.5, "later": 4.5, "fewer": 2.5,
            "moved": 1.5, "reversed": 2.75, "back": 4.9, "on": 5.5, "still": 2.75, "nearest": 4,
            "wraps": 0.5,
        }
    )  # fmt: skip


def test_the_server_dies_and_comes_back_in_the_middle(
    sign_in: Callable[..., Any], server: Any
) -> None:
    page = sign_in().page
    ready(page)
    wait(page, "window.__player.prefetched !== null")
    server.stop(signal.SIGKILL)
    page.keyboard.press("t")
    wait(page, "window.__player.unsent === 1 && window.__player.assignment !== null")
    assert state(page, "playing"), "the pair that was fetched ahead plays without a server"
    page.keyboard.press("t")
    page.wait_for_selector(".studio[data-phase=trouble]")
    assert "kept on this device" in page.inner_text(".studio")
    server.start()
    page.evaluate("window.dispatchEvent(new Event('online'))")
    wait(page, "window.__player.unsent === 0 && window.__player.assignment !== null")
    assert sorted(vote["vote_id"] for vote in server_votes(page)) == sorted(state(page, "votes"))


# Every sound becomes the same steady tone, and an audio worklet beside the output records it.
TONE_AND_RECORDER = """
const decode = AudioContext.prototype.decodeAudioData;
AudioContext.prototype.decodeAudioData = async function (bytes) {
  const buffer = await decode.call(this, bytes);
  const data = buffer.getChannelData(0);
  for (let i = 0; i < data.length; i++) {
    data[i] = 0.5 * Math.sin((2 * Math.PI * 440 * i) / buffer.sampleRate);
  }
  return buffer;
};
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) window.output = this;
  return connect.call(this, target, ...rest);
};
window.record = async () => {
  const code = `registerProcessor("tape", class extends AudioWorkletProcessor {
    process([input]) { if (input[0]) this.port.postMessage(input[0].slice()); return true; }
  })`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  await window.output.context.audioWorklet.addModule(url);
  const tape = new AudioWorkletNode(window.output.context, "tape");
  window.tape = [];
  tape.port.onmessage = (event) => window.tape.push(...event.data);
  connect.call(window.output, tape);
};
"""


def test_a_switch_has_neither_gap_nor_click(sign_in: Callable[..., Any]) -> None:
    """Where both sides hold the same sound, switching must leave it as if nothing had happened."""
    page = sign_in(script=TONE_AND_RECORDER).page
    ready(page)
    page.keyboard.press("1")
    wait(page, "window.__player.playing")
    page.evaluate("window.record()")
    # Timed in the page; 440 Hz goes into a beat of 0.3 s evenly, so any two beats are the same.
    page.evaluate(
        """async () => {
          const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
          window.__player.seek(0.02);
          await pause(150);
          window.tape.length = 0;
          for (let i = 0; i < 5; i++) {
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "s", bubbles: true }));
            await pause(70);
          }
        }"""
    )
    samples = np.array(page.evaluate("window.tape.slice()"))
    samples = samples[: len(samples) // 256 * 256]
    loudest = np.abs(samples).max()
    assert loudest > 0.1
    steady = np.abs(samples.reshape(-1, 256)).max(axis=1)
    assert steady.min() > 0.98 * loudest, "no gap"
    curve = np.abs(np.diff(samples, 2)).max()
    rate = page.evaluate("window.output.context.sampleRate")
    assert curve < 1.5 * loudest * (2 * np.pi * 440 / rate) ** 2, "no click"
