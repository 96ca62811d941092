"""The annotation page in the hands of a test: sign in, wait, vote, and what the server has."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page

from tests.browser.conftest import PASSWORD, Server, Visit


def state(page: Page, name: str) -> Any:
    return page.evaluate(f"window.__player.{name}")


def wait(page: Page, condition: str) -> None:
    page.wait_for_function(f"() => {condition}", timeout=15000, polling=30)


def ready(page: Page) -> None:
    page.wait_for_selector(".studio[data-phase=ready]", timeout=20000)


def server_votes(page: Page) -> list[dict[str, Any]]:
    return page.evaluate("fetch('/api/my-votes').then((answer) => answer.json())")


def text_of(page: Page) -> str:
    return " ".join(page.inner_text(".studio").split())


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
