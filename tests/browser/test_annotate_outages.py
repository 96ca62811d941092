"""The annotation page when network, server or session go away, and over 200 pairs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.annotating import (
    all_arrived,
    enter,
    ready,
    server_votes,
    sign_in_again,
    skip,
    state,
    text_of,
    wait,
)
from tests.browser.conftest import Server, running

pytestmark = pytest.mark.browser


def test_a_sitting_through_every_kind_of_outage(
    sign_in: Callable[..., Any], server: Server
) -> None:
    """No network, a killed server, an ended session: nothing is lost and nothing doubled."""
    visit = sign_in()
    page, context = visit.page, visit.context
    ready(page)
    given = [skip(page)]
    wait(page, "window.__player.prefetched !== null")
    context.set_offline(True)
    given.append(skip(page))
    wait(page, "window.__player.delivery === 'waiting'")
    context.set_offline(False)
    wait(page, "window.__player.unsent === 0 && window.__player.prefetched !== null")
    server.stop(signal.SIGKILL)
    given.append(skip(page))
    wait(page, "window.__player.delivery === 'waiting'")
    server.start()
    page.evaluate("window.dispatchEvent(new Event('online'))")
    wait(page, "window.__player.unsent === 0 && window.__player.prefetched !== null")
    context.clear_cookies()
    given.append(skip(page))
    wait(page, "window.__player.delivery === 'signed-out'")
    sign_in_again(visit)
    all_arrived(page, given)


@pytest.mark.long
def test_a_minute_without_network(sign_in: Callable[..., Any]) -> None:
    """A real minute: votes go on while there are pairs, then the page waits, then all is stored."""
    visit = sign_in()
    page, context = visit.page, visit.context
    ready(page)
    given = [skip(page)]
    wait(page, "window.__player.prefetched !== null && window.__player.unsent === 0")
    context.set_offline(True)
    given += [skip(page)]
    wait(page, "window.__player.unsent === 1")
    assert state(page, "playing"), "what was fetched ahead plays"
    page.wait_for_timeout(10_000)
    assert "No connection. 1 vote is kept on this device" in text_of(page)
    given.append(str(state(page, "assignment")))
    page.keyboard.press("t")
    page.wait_for_selector(".studio[data-phase=trouble]")
    page.wait_for_timeout(50_000)
    assert "No answer from the server" in text_of(page)
    assert "2 votes are kept on this device" in text_of(page)
    assert state(page, "unsent") == 2
    context.set_offline(False)
    wait(page, "window.__player.unsent === 0 && window.__player.assignment !== null")
    assert "Connected again. Everything is saved." in text_of(page)
    all_arrived(page, given)
    page.keyboard.press("u")
    wait(page, "window.__player.unsent === 0")
    assert len(server_votes(page)) == 2 and not visit.problems


@pytest.mark.long
def test_a_minute_without_server_in_which_the_session_ended(
    sign_in: Callable[..., Any], server: Server
) -> None:
    """Killed in the middle, back after a minute, by then signed out; nothing is pressed to help."""
    visit = sign_in()
    page, context = visit.page, visit.context
    ready(page)
    wait(page, "window.__player.prefetched !== null")
    server.stop(signal.SIGKILL)
    given = [skip(page)]
    page.wait_for_timeout(60_000)
    assert "1 vote is kept on this device" in text_of(page)
    context.clear_cookies()
    given.append(str(state(page, "assignment")))
    page.keyboard.press("t")
    server.start()
    wait(page, "window.__player.delivery === 'signed-out'")
    assert "Your session has ended. 2 votes are kept on this device" in text_of(page)
    sign_in_again(visit)
    all_arrived(page, given)
    server.stop(signal.SIGKILL)
    given.append(skip(page))
    page.wait_for_timeout(5_000)
    server.start()
    wait(page, "window.__player.unsent === 0 && window.__player.assignment !== null")
    all_arrived(page, given)
    assert not visit.problems


MEMORY_PAIRS = 200
COUNT_BUFFERS = """
window.alive = 0;
const gone = new FinalizationRegistry((count) => { window.alive -= count; });
const decode = AudioContext.prototype.decodeAudioData;
AudioContext.prototype.decodeAudioData = async function (bytes) {
  const buffer = await decode.call(this, bytes);
  window.alive += 1;
  gone.register(buffer, 1);
  return buffer;
};
"""


@pytest.mark.long
def test_memory_stays_flat_over_200_pairs(browser: Any, tmp_path: Path) -> None:
    """Decoded sounds are let go, and the page's heap after 200 pairs is about that after 40."""
    with running(tmp_path / "workspace", count=MEMORY_PAIRS + 5, beats=8) as server:
        context = browser.new_context()
        context.add_init_script("localStorage.setItem('tour-seen/1', '1')")
        context.add_init_script(COUNT_BUFFERS)
        page = context.new_page()
        page.goto(server.url + "/login?next=/annotate")
        enter(page, "listener1")
        ready(page)
        page.keyboard.press("1")
        heap, alive = {}, {}
        tools = context.new_cdp_session(page)
        for number in range(1, MEMORY_PAIRS + 1):
            skip(page)
            if number in (40, MEMORY_PAIRS):
                wait(page, "window.__player.unsent === 0 && window.__player.prefetched !== null")
                for _ in range(3):
                    tools.send("HeapProfiler.collectGarbage")
                    page.wait_for_timeout(200)
                heap[number] = tools.send("Runtime.getHeapUsage")["usedSize"] / 2**20
                alive[number] = page.evaluate("window.alive")
        print(f"heap {heap} MiB, decoded sounds alive {alive}")
        assert len(server_votes(page)) == MEMORY_PAIRS
        assert alive[MEMORY_PAIRS] <= 12, "what is shown, what is next, the last vote's"
        assert heap[MEMORY_PAIRS] < heap[40] + 4, "MiB"
        context.close()
