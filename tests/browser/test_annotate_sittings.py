"""Sittings on the annotation page: by touch, by keys, on two devices; and the first visit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.annotating import listener, ready, server_votes, skip, state, text_of, wait
from tests.browser.conftest import Server, running

pytestmark = pytest.mark.browser
MAIN = "document.querySelector('.studio').dataset"


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
