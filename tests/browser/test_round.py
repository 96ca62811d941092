"""The product: one whole round in a real browser, against the real server, on one song file.

A researcher uploads a song and invites an annotator; pairs appear; the annotator listens and votes
by keyboard, undoes one; the researcher retrains the reward, trains a policy by PPO and one by DPO,
promotes it, new pairs come from it, and the exported dataset holds exactly the votes that were
cast. The tests below are the steps, in order, on one server.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browser.conftest import PASSWORD, Server
from tests.rounds import SMALL, make_song

pytestmark = pytest.mark.browser
WAIT = 120_000  # ms before a step counts as stuck; on a quiet machine each takes a few seconds
VOTES = [("q", "z"), ("w", "x"), ("q", "c"), ("e", ""), ("w", ""), ("r", ""), ("q", "x"),
         ("w", "z"), ("q", ""), ("w", "c"), ("t", "")]  # fmt: skip


@dataclass
class Studio:
    """The server, both people's windows, and what they did so far."""

    server: Server
    researcher: Page
    listener: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    votes: list[dict[str, Any]] = field(default_factory=list)

    def open_tab(self, name: str) -> Page:
        self.researcher.get_by_role("tab", name=name, exact=True).click()
        return self.researcher


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_song(tmp_path_factory.mktemp("music"))


def sign_in(page: Page, server: Server, name: str, password: str, path: str) -> None:
    page.goto(server.url + "/login")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(lambda url: urlsplit(url).path.startswith(path), timeout=WAIT)


def first_sign_in(page: Page, server: Server) -> None:
    """As researcher with the printed password, which opens the account once, for a new one."""
    found = re.search(r"name researcher\s+password (\S+)", "".join(server.output))
    assert found is not None, server.output
    sign_in(page, server, "researcher", found.group(1), "/login")
    asked = page.locator("input[name=new_password]")
    expect(asked).to_be_visible(timeout=WAIT)
    for chosen in (found.group(1), PASSWORD):
        page.fill("input[name=password]", found.group(1))
        asked.fill(chosen)
        asked.press("Enter")
        if chosen != PASSWORD:  # the printed one itself is refused, beside the field
            expect(page.locator("#new-password-problem")).to_be_visible(timeout=WAIT)
            assert asked.input_value() == ""
    page.wait_for_url(lambda url: urlsplit(url).path.startswith("/research"), timeout=WAIT)


@pytest.fixture(scope="module")
def studio(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    server = Server(tmp_path_factory.mktemp("product") / "workspace", settings=SMALL)
    server.start()
    pages = []
    for _ in range(2):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_init_script("localStorage.setItem('tour-seen/1', '1')")
        pages.append(context.new_page())
        pages[-1].set_default_timeout(WAIT)
    whole = Studio(server, *pages)
    expect.set_options(timeout=WAIT)
    for page in pages:
        page.on("request", lambda request: whole.requests.append(request.url))
        page.on("pageerror", lambda error: whole.problems.append(str(error)))
        page.on("dialog", lambda dialog: (whole.problems.append(dialog.message), dialog.dismiss()))
    yield whole
    expect.set_options(timeout=5000)
    for page in pages:
        page.context.close()
    server.stop()


STARTED = """kind => {
  const id = document.querySelector("#run-status .fa-run-id")?.innerText ?? "";
  return id.startsWith(kind) ? id : null;
}"""
ENDED = """([before, kind]) => {
  const run = document.querySelector("#run-status .fa-run");
  const id = document.querySelector("#run-status .fa-run-id")?.innerText ?? "";
  const ended = ["finished", "failed", "cancelled"].includes(run?.dataset.state);
  return ended && id !== before && id.startsWith(kind + "-") ? run.dataset.state : null;
}"""


def press_and_wait(page: Page, button: str, kind: str) -> None:
    """Press a button and wait until a new run of a kind is shown as finished."""
    label = page.locator("#run-status .fa-run-id")
    before = label.inner_text() if label.count() else ""
    page.locator(button).click()
    state = page.wait_for_function(ENDED, arg=[before, kind], timeout=WAIT).json_value()
    assert state == "finished", page.locator("#run-status").inner_text()


def test_01_a_researcher_uploads_a_song_and_invites_an_annotator(
    studio: Studio, song: Path
) -> None:
    first_sign_in(studio.researcher, studio.server)
    page = studio.open_tab("Library")
    page.locator("#upload-songs input[type=file]").set_input_files(song)
    expect(page.locator("#library-message")).to_contain_text("1 song taken in")
    expect(page.locator("#song-table")).to_contain_text("Ваня's")  # Gradio drops <>
    page = studio.open_tab("People")
    page.locator("#user-name textarea, #user-name input").first.fill("ada")
    page.locator("#add-user").click()
    secret = page.locator("#user-added .fa-secret")
    expect(secret).to_be_visible()
    sign_in(studio.listener, studio.server, "ada", secret.inner_text(), "/annotate")


def test_02_first_versions_and_pairs_appear_by_themselves(studio: Studio) -> None:
    page = studio.open_tab("Versions")
    expect(page.locator("#reward-versions")).to_contain_text("reward_v0", timeout=WAIT)
    expect(page.locator("#policy-versions")).to_contain_text("policy_v1", timeout=WAIT)
    studio.listener.wait_for_selector(".studio[data-phase=ready]", timeout=WAIT)


def hear_both_sides(page: Page) -> None:
    """By keys alone: the differences of each side in turn, until enough of that side was heard."""
    for key, side in (("1", "left"), ("2", "right")):
        page.keyboard.press(key)
        heard = f"() => window.__player.missing.{side} === 0"
        for place in page.evaluate("window.__player.differences"):
            page.keyboard.press("d")
            start, end = place[side]
            with suppress(PlaywrightTimeout):  # a short place may not be enough: on to the next
                page.wait_for_function(heard, timeout=2000 + 1000 * (end - start))
                break
    assert page.evaluate("window.__player.open"), page.evaluate(
        "() => { const { missing, differences, side, position, playing } = window.__player;"
        " return JSON.stringify({ missing, differences, side, position, playing }); }"
    )


def vote(studio: Studio, key: str, strength: str) -> None:
    page = studio.listener
    page.wait_for_selector(".studio[data-phase=ready]", timeout=WAIT)
    hear_both_sides(page)
    if strength:
        page.keyboard.press(strength)
    pair = page.evaluate("window.__player.assignment")
    page.keyboard.press(key)
    page.wait_for_function(
        "a => window.__player.assignment !== a || !document.querySelector('[data-phase=ready]')",
        arg=pair,
    )


def own_votes(studio: Studio) -> list[dict[str, Any]]:
    answer = studio.listener.evaluate("fetch('/api/my-votes').then((found) => found.json())")
    return list(answer["votes"] if isinstance(answer, dict) else answer)


def test_03_the_sound_moves(studio: Studio) -> None:
    page = studio.listener
    page.keyboard.press("1")
    page.wait_for_function("() => window.__player.playing && window.__player.position > 0.2")
    first = page.evaluate("window.__player.position")
    page.wait_for_function("p => window.__player.position > p + 0.3", arg=first)
    page.keyboard.press("3")
    page.wait_for_function("() => window.__player.side === 'original' && window.__player.playing")


@pytest.mark.parametrize("part", [slice(0, 4), slice(4, 8), slice(8, 11)], ids=["a", "b", "c"])
def test_04_votes_by_keyboard(studio: Studio, part: slice) -> None:
    before = len(own_votes(studio))
    for key, strength in VOTES[part]:
        vote(studio, key, strength)
    deadline = time.monotonic() + 10
    while len(own_votes(studio)) < before + len(VOTES[part]) and time.monotonic() < deadline:
        studio.listener.wait_for_timeout(100)
    assert len(own_votes(studio)) == before + len(VOTES[part])


def test_05_one_vote_is_undone(studio: Studio) -> None:
    before = own_votes(studio)
    studio.listener.keyboard.press("u")
    deadline = time.monotonic() + 10
    while len(own_votes(studio)) == len(before) and time.monotonic() < deadline:
        studio.listener.wait_for_timeout(100)
    studio.votes = own_votes(studio)
    gone = {row["vote_id"] for row in before} - {row["vote_id"] for row in studio.votes}
    assert len(gone) == 1 and len(studio.votes) == 10


def test_06_the_reward_learns(studio: Studio) -> None:
    page = studio.open_tab("Train")
    press_and_wait(page, "#retrain-reward", "train-reward")
    assert "rlhf_core.train_reward" in page.locator("#run-command").inner_text()
    studio.open_tab("Versions")
    expect(page.locator("#reward-versions")).to_contain_text("reward_v1")
    # One song is not enough for a figure on songs left out, and the card says so.
    expect(page.locator("#reward-versions")).to_contain_text("at least two songs")


def test_07_a_policy_is_proposed_though_the_server_dies_meanwhile(studio: Studio) -> None:
    page = studio.open_tab("Train")
    page.locator("#steps input").fill("4096")
    page.locator("#train-policy").click()
    label = page.locator("#run-status .fa-run-id")
    # in one look: for a second a late answer may show the run before
    run_id = page.wait_for_function(STARTED, arg="train-policy-", timeout=WAIT).json_value()
    expect(page.locator("#run-queue")).to_contain_text("then evaluation, rendering examples")
    expect(page.locator("#run-status .fa-run")).to_have_attribute("data-state", "running")
    studio.server.stop(signal.SIGKILL)
    studio.server.start()
    page.reload()
    studio.open_tab("Train")
    state = page.wait_for_function(ENDED, arg=[run_id, "examples"], timeout=WAIT).json_value()
    assert state == "finished", page.locator("#run-status").inner_text()
    page.locator("#run-picker select").select_option(run_id)
    expect(label).to_have_text(run_id)
    expect(page.locator("#run-curves")).to_contain_text("Entropy")
    studio.open_tab("Versions")
    expect(page.locator("#policy-versions")).to_contain_text("policy_v2", timeout=WAIT)


def test_07b_by_the_other_algorithm_too(studio: Studio) -> None:
    page = studio.open_tab("Train")
    page.locator("#algorithm input[value=dpo]").check()
    page.locator("#steps input").fill("2048")
    press_and_wait(page, "#train-policy", "examples")  # which follows by itself
    studio.open_tab("Versions")
    expect(page.locator("#policy-versions")).to_contain_text("policy_v3", timeout=WAIT)


def test_08_a_version_is_heard_promoted_and_makes_new_pairs(studio: Studio) -> None:
    page = studio.open_tab("Versions")
    card = page.locator("#policy-versions [data-version=policy_v2]")
    card.get_by_text("Listen: before and after").click()
    for place in range(3):
        audio = card.locator("audio").nth(place)
        audio.evaluate("player => player.play()")
        page.wait_for_function("player => player.currentTime > 0.2", arg=audio.element_handle())
        audio.evaluate("player => player.pause()")
    card.get_by_role("button", name="Compare with parent").click()
    expect(page.locator("#compared")).to_contain_text("Beats kept", ignore_case=True)
    expect(page.locator("#compared svg.fa-edl")).to_have_count(2)
    card.get_by_role("button", name="Promote").click()
    expect(page.locator("#version-message")).to_contain_text("policy_v2 is active now")
    other = page.locator("#policy-versions [data-version=policy_v3]")
    other.get_by_role("button", name="Delete").click()
    page.locator("#version-question").get_by_role("button", name="No, leave it").click()
    expect(page.locator("#version-question .fa-confirm")).to_have_count(0)
    expect(other).to_be_visible()
    studio.open_tab("Train")
    page.locator("#pairs-count input").fill("3")
    press_and_wait(page, "#make-pairs", "generate")
    page = studio.open_tab("Results")
    player = page.locator("#pair-player")
    expect(player).to_contain_text("made by")  # some pair: the tab has been filled
    find = page.locator("#pair-find input, #pair-find textarea").first
    find.fill("policy_v2")  # of the new pairs one may be by presets alone
    find.press("Enter")
    expect(player).to_contain_text("made by policy_v2")


def test_09_the_export_holds_exactly_the_votes_cast(studio: Studio, tmp_path: Path) -> None:
    page = studio.open_tab("Data")
    page.locator("#export").click()
    with page.expect_download() as waiting:
        page.locator("#export-link a[download$='.parquet']").click()
    waiting.value.save_as(tmp_path / "votes.parquet")
    rows = pd.read_parquet(tmp_path / "votes.parquet")
    assert sorted(rows["vote_id"].astype(str)) == sorted(row["vote_id"] for row in studio.votes)
    cast = {row["vote_id"]: row for row in studio.votes}
    for row in rows.to_dict("records"):
        said = cast[str(row["vote_id"])]
        if said["choice"] in ("left", "right"):
            shown_left = "b" if row["b_first"] else "a"
            other = {"a": "b", "b": "a"}[shown_left]
            assert row["choice"] == (shown_left if said["choice"] == "left" else other)
        else:
            assert row["choice"] == said["choice"]
        assert row["annotator"] == "ada" and not row["simulated"]
    assert set(rows["policy_a"]) | set(rows["policy_b"]) >= {"policy_v1"}


def test_10_nothing_left_the_machine_and_no_page_broke(studio: Studio) -> None:
    local = (studio.server.url, "data:", "blob:")
    assert [url for url in studio.requests if not url.startswith(local)] == []
    assert studio.problems == []
