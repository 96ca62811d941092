"""A dry run for real, in the browser: set up, watched, looked at, and removed without a trace.

The votes are a program's (simulated); one song, few votes, few steps.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Server
from tests.browser.test_round import first_sign_in
from tests.rounds import SMALL, make_song

pytestmark = [pytest.mark.browser, pytest.mark.long]
WAIT = 240_000  # ms before a step counts as stuck; on a quiet machine each takes a few seconds


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def ready(page: Page, song: Path) -> None:
    """Upload a song and wait until its first pairs are there."""
    open_tab(page, "Library")
    page.locator("#upload-songs input[type=file]").set_input_files(song)
    expect(page.locator("#library-message")).to_contain_text("1 song taken in", timeout=WAIT)
    all_of_them = f"{SMALL['first_pairs']} pairs waiting"
    there = page.locator("#research-header .fa-chips", has_text=all_of_them)
    ends = time.monotonic() + WAIT / 1000
    while not there.count() and time.monotonic() < ends:
        page.wait_for_timeout(1000)
        open_tab(page, "Train")
        open_tab(page, "Library")  # opening a tab counts the pairs anew
    expect(there).to_be_visible()


def test_a_dry_run_is_made_watched_and_removed(browser: Browser, tmp_path: Path) -> None:
    server = Server(tmp_path / "workspace", settings=SMALL | {"assign_score": 0,
                    "assign_random": 0.85, "assign_cross": 0.15})  # fmt: skip
    server.start()
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(WAIT)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        first_sign_in(page, server)
        ready(page, make_song(tmp_path))
        header = page.locator("#research-header .fa-chips").inner_text()
        runs, models = names_in(server.root / "runs"), names_in(server.root / "models")
        whole_dry_run(page)
        open_tab(page, "Versions")
        expect(page.locator("#policy-versions")).to_contain_text("From dry runs: simulated (1)")
        open_tab(page, "Results")
        expect(page.locator("#results-summary")).to_contain_text("simulated votes", timeout=WAIT)
        assert page.locator("#results-summary strong").all_inner_texts()[:2] == ["0", "8"]
        assert (
            page.locator("#research-header .fa-chips").inner_text() == header
        )  # none wait for people
        removed(page)
        assert names_in(server.root / "runs") == runs and names_in(server.root / "models") == models
        assert page.locator("#research-header .fa-chips").inner_text() == header
    finally:
        page.context.close()
        server.stop()
    assert problems == []


def whole_dry_run(page: Page) -> None:
    """Eight votes of a judge that errs in its own manner, from the form to the table."""
    open_tab(page, "Dry run")
    page.locator("#dry-more button").first.click()
    page.locator("#dry-by-command button").first.click()
    for name, value in (("rounds", "1"), ("votes", "8"), ("steps", "2048"), ("lapse", "0.3")):
        page.locator(f"#dry-{name} input").fill(value)
    page.locator("#dry-side-bias input").fill("-0.5")
    page.locator("#dry-side-bias input").press("Tab")
    told = "simulate --judge mixture --rounds 1 --votes 8 --total-steps 2048 --lapse 0.3"
    expect(page.locator("#dry-command")).to_contain_text(f"{told} --side-bias -0.5", timeout=WAIT)
    page.locator("#simulate").click()
    expect(page.locator("#dry-message")).to_contain_text("dry1 has started", timeout=WAIT)
    panel = page.locator("[data-dry-run=dry1]")
    expect(panel.locator("[role=progressbar]")).to_be_visible(timeout=WAIT)
    expect(panel).to_have_attribute("data-state", "finished", timeout=WAIT)
    expect(panel).to_contain_text("lapses 0.3, side bias -0.5")
    expect(panel).to_contain_text("simulated")
    cells = panel.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells[:3] == ["1", "dry1_policy_v1", "8"]
    assert all(re.match(r"\d+ %", cells[place]) for place in (4, 5, 6)), cells


def removed(page: Page) -> None:
    """Asked first, kept on a no, gone on a yes, here and among the versions."""
    open_tab(page, "Dry run")
    panel, question = page.locator("[data-dry-run=dry1]"), page.locator("#dry-question")
    for answer in ("No, leave it", "Remove dry1"):
        expect(panel).to_be_visible(timeout=WAIT)
        panel.get_by_role("button", name="Remove …").click()
        expect(question).to_contain_text("with all that it made", timeout=WAIT)
        question.get_by_role("button", name=answer).click()
        expect(question.locator("button")).to_have_count(0, timeout=WAIT)
    expect(page.locator("#dry-message")).to_contain_text("8 simulated votes", timeout=WAIT)
    expect(page.locator("#dry-runs")).to_contain_text("No dry run yet", timeout=WAIT)
    open_tab(page, "Versions")
    expect(page.locator("#policy-versions")).not_to_contain_text("dry run", timeout=WAIT)
