"""Whole sittings on the annotation page: by touch, through outages, long; and the first visit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.conftest import PASSWORD, Server, Visit, running

pytestmark = pytest.mark.browser
MAIN = "document.querySelector('.studio').dataset"


def state(page: Page, name: str) -> Any:
    return page.evaluate(f"window.__player.{name}")


def wait(page: Page, condition: str) -> None:
    page.wait_for_function(f"() => {condition}", timeout=15000, polling=30)


def ready(page: Page) -> None:
    page.wait_for_selector(".studio[data-phase=ready]", timeout=20000)


def server_votes(page: Page) -> list[dict[str, Any]]:
    return page.evaluate("fetch('/api/my-votes').then((answer) => answer.json())")


def skip(page: Page) -> str:
    """Vote "can't judge" on what is shown; returns its assignment."""
    wait(page, "window.__player.assignment !== null")
    assignment = state(page, "assignment")
    page.keyboard.press("t")
    wait(page, f"window.__player.assignment !== {json.dumps(assignment)}")
    return str(assignment)


def enter(page: Page, name: str) -> None:
    """Fill in and send the form of the sign-in page."""
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")


def listener(browser: Any, server: Server, name: str) -> Page:
    context = browser.new_context()
    context.add_init_script("localStorage.setItem('tour-seen/1', '1')")
    page = context.new_page()
    page.goto(server.url + "/login?next=/annotate")
    enter(page, name)
    page.wait_for_selector(".studio")
    return page


def sign_in_again(visit: Visit) -> None:
    """From the notice of an ended session; what was kept is then sent."""
    visit.page.get_by_role("link", name="Sign in again").click()
    enter(visit.page, visit.name)
    ready(visit.page)
    wait(visit.page, "window.__player.unsent === 0")


def all_arrived(page: Page, given: list[str]) -> None:
    """The server has one vote on each assignment, those that the page knows of."""
    stored = server_votes(page)
    assert sorted(vote["assignment_id"] for vote in stored) == sorted(given)
    assert sorted(vote["vote_id"] for vote in stored) == sorted(state(page, "votes"))


def test_a_sitting_by_touch_on_a_phone(sign_in: Callable[..., Any]) -> None:
    visit = sign_in(viewport={"width": 420, "height": 860}, has_touch=True, is_mobile=True)
    page = visit.page
    ready(page)
    for choice in ("left", "tie"):
        wait(page, "window.__player.assignment !== null")
        for side in ("left", "right"):
            page.locator(f"[data-listen={side}]").tap()
            for _ in state(page, "differences"):
                if state(page, "missing")[side] == 0:
                    break
                page.locator("[data-do=difference]").tap()
                start, end = state(page, "differences")[state(page, "loop")][side]
                page.wait_for_timeout(int(min(end - start, 1.2) * 1000) + 200)
        wait(page, "window.__player.open")
        if choice == "left":
            page.locator("[data-strength='3']").tap()
        page.locator(f"[data-vote={choice}]").tap()
    wait(page, "window.__player.unsent === 0")
    assert [vote["choice"] for vote in server_votes(page)] == ["tie", "left"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.locator("[data-do=undo]").tap()
    wait(page, "window.__player.unsent === 0")
    assert [vote["choice"] for vote in server_votes(page)] == ["left"]
    assert not visit.problems


def test_any_vote_of_the_sitting_is_undone_from_the_list(sign_in: Callable[..., Any]) -> None:
    page = sign_in().page
    ready(page)
    first, second = skip(page), skip(page)
    third = skip(page)
    wait(page, "window.__player.unsent === 0")
    chosen = state(page, "votes")[1]
    page.get_by_role("button", name="My votes").click()
    page.locator(f"[data-undo='{chosen}']").click()
    wait(page, f"window.__player.assignment === {json.dumps(second)}")
    wait(page, "window.__player.unsent === 0")
    left = {vote["vote_id"] for vote in server_votes(page)}
    assert left == set(state(page, "votes")) and len(left) == 2 and chosen not in left
    assert len({first, second, third}) == 3


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


def text_of(page: Page) -> str:
    return " ".join(page.inner_text(".studio").split())


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


def test_tags_strength_and_comment_by_keys(sign_in: Callable[..., Any]) -> None:
    visit = sign_in()
    page = visit.page
    ready(page)
    page.keyboard.press("5")
    page.keyboard.press("4")
    page.keyboard.press("5")
    chosen = "[data-tag][aria-pressed=true]"
    assert page.locator(chosen).count() == 1
    tag = page.locator(chosen).get_attribute("data-tag")
    assert page.inner_text("[data-id=notes-text]") == tag
    page.keyboard.press("g")
    page.keyboard.type("1 2 q t u ? nothing of this is a key here")
    assert state(page, "votes") == []
    page.keyboard.press("Escape")
    before = state(page, "assignment")
    page.keyboard.press("x")
    page.keyboard.press("q")
    assert state(page, "assignment") == before, "too early: a knock, and what is missing"
    page.keyboard.press("t")
    wait(page, "window.__player.unsent === 0")
    vote = server_votes(page)[0]
    assert (vote["tags"], vote["strength"]) == ([tag], None)
    assert vote["comment"] == "1 2 q t u ? nothing of this is a key here"
    assert page.locator(chosen).count() == 0, "the next pair starts afresh"
    page.keyboard.press("?")
    sheet = page.inner_text("dialog[open]")
    assert "Tags, in their order" in sheet and "4 … 9" in sheet
    assert not visit.problems


def test_a_pair_without_its_audio_is_passed_over(sign_in: Callable[..., Any]) -> None:
    visit = sign_in()
    page = visit.page
    ready(page)
    gone: list[str] = []

    def lose(route: Any) -> None:
        """The sounds of one assignment are not there; the server's part is tested without."""
        gone.append(route.request.url)
        route.fulfill(status=404, json={"error": "this file is not there any more"})

    wait(page, "window.__player.prefetched !== null")
    ahead = state(page, "prefetched")
    page.route("**/media/*", lose, times=3)
    skip(page)
    assert state(page, "assignment") == ahead, "what was there already is shown"
    wait(page, "window.__player.prefetched !== null")
    assert len(gone) == 3, "another one was fetched meanwhile, and nobody had to wait for it"
    page.unroute("**/media/*")
    page.route("**/media/*", lose, times=6)
    page.reload()
    ready(page)
    assert "was left out: its audio is not on the server" in text_of(page)
    assert not visit.problems


def test_the_same_pair_waits_on_another_device(
    sign_in: Callable[..., Any], browser: Any, server: Server
) -> None:
    visit = sign_in()
    ready(visit.page)
    skip(visit.page)
    wait(visit.page, "window.__player.prefetched !== null && window.__player.unsent === 0")
    shown = state(visit.page, "assignment")
    page = listener(browser, server, visit.name)
    ready(page)
    assert state(page, "assignment") == shown
    page.context.close()


def serious(page: Page) -> list[str]:
    """axe-core's serious and critical findings on what is shown now."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(sign_in: Callable[..., Any], scheme: str) -> None:
    page = sign_in(tour=True, color_scheme=scheme).page
    ready(page)
    page.wait_for_selector("dialog[open]")
    assert serious(page) == [], "the walk-through"
    page.keyboard.press("Escape")
    assert serious(page) == [], "a pair"
    skip(page)
    page.wait_for_selector("[data-id=reveal]:not([hidden])")
    page.keyboard.press("g")
    assert serious(page) == [], "after a vote, with tags and comment open"
    page.keyboard.press("Escape")
    for sheet in ("help", "votes", "headphones"):
        page.locator(f".head-actions [data-do={sheet}]").click()
        page.wait_for_selector("dialog[open]")
        assert serious(page) == [], sheet
        page.keyboard.press("Escape")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: the headphone check must be passed, and pairs are many and short."""
    root = tmp_path_factory.mktemp("strict") / "workspace"
    with running(root, count=6) as server:
        server.stop()
        server.settings = {"headphone_check": "true", "headphone_skip": "false"}
        server.start()
        yield server


def test_the_headphone_check_comes_first_and_is_kept(browser: Any, strict: Server) -> None:
    page = listener(browser, strict, "listener1")
    sheet = page.locator("dialog[open][data-id=headphones]")
    sheet.wait_for()
    assert not page.locator("[data-id=headphones-leave]").is_visible(), "no way round it here"
    page.keyboard.press("Escape")
    for right in (False, True):
        page.locator("[data-id=headphones-go]").click()
        for _ in range(6):
            wait(page, "window.__player.headphones.truth !== null")
            truth = state(page, "headphones.truth")
            page.keyboard.press(str(truth if right else truth % 3 + 1))
        wait(page, f"window.__player.headphones.outcome === '{'passed' if right else 'failed'}'")
        assert state(page, "assignment") is None, "no pair before it is passed"
    page.keyboard.press("Enter")
    ready(page)
    wait(page, "window.__player.playing")
    page.reload()
    ready(page)
    assert sheet.count() == 0, "asked once"
    page.context.close()


def test_only_both_ears_together_hear_the_tone(sign_in: Callable[..., Any]) -> None:
    """The signal itself, by numpy: equal magnitudes, and a phase that turns once round 600 Hz."""
    page = sign_in().page
    rate = 24000
    left, right, plain_left, plain_right = page.evaluate(
        """async (rate) => {
          const { interval } = await import("/static/headphones.js");
          return [...interval(rate, true), ...interval(rate, false)].map((ear) => [...ear]);
        }""",
        rate,
    )
    assert plain_left == plain_right and len(left) == rate
    whole = slice(2000, -2000)  # without the ramps
    size = len(left[whole])
    spectra = [np.fft.rfft(np.array(ear)[whole] * np.hanning(size)) for ear in (left, right)]
    hertz = np.fft.rfftfreq(size, 1 / rate)
    cross = spectra[1] * np.conj(spectra[0])

    def phase(centre: float) -> float:
        band = np.abs(hertz - centre) < 3
        return float(np.angle(cross[band].sum()) % (2 * np.pi))

    for centre, share in ((582, 0.25), (600, 0.5), (618, 0.75)):
        assert phase(centre) == pytest.approx(2 * np.pi * share, abs=0.6)
    outside = (hertz < 555) | (hertz > 645)
    assert np.abs(np.angle(cross[outside])).max() < 0.2
    inside = (hertz > 555) & (hertz < 645)
    power = [float((np.abs(one[inside]) ** 2).sum()) for one in spectra]
    assert power[1] / power[0] == pytest.approx(1, abs=0.15), "neither ear hears it by level"
    level = np.sqrt(np.mean(np.array(left)[whole] ** 2))
    assert level == pytest.approx(0.12, rel=0.05)


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
