"""Script typed into every text that people can type: shown as text on every page, run on none.

Also the proof that the pages need no route of Gradio's but those that `middleware` lets through.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import PASSWORD, Server, Workshop

pytestmark = pytest.mark.browser
SLOW = 30_000
# In HTML content, in an attribute, in Gradio's client-side templates, in a script block.
HOSTILE = (
    "<img src=x onerror=window.pwned=1>",
    "\" onmouseover='window.pwned=2' autofocus onfocus=window.pwned=2 x=\"",
    "${window.pwned=3}",
    "{{constructor.constructor('window.pwned=4')()}}",
    "</script><script>window.pwned=5</script>",
)
TABS = ("Train", "Library", "Results", "People", "Data")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("hostile") / "workspace"
    Workshop(root).fill(3)
    fill(root)
    server = Server(root, settings={"auto_prepare": "false", "tags": HOSTILE[0]})
    try:
        server.start()
        yield server
    finally:
        server.stop()


def fill(root: Path) -> None:
    """Hostile song titles, names, comments, tags, run errors and settings."""
    from feedback_app.database import utc_now
    from feedback_app.services import open_services
    from feedback_app.votes import VoteForm

    services = open_services(root, votes_per_pair=40, required_region_share=0.0, gold_rate=0.0)
    now = utc_now()
    for number, text in enumerate(HOSTILE):
        song = {"song_id": f"{number:016x}", "path": f"songs/{number}/x.wav", "title": text,
                "synthetic": False, "added_at": now}  # fmt: skip
        services.store.add_song(song | {"status": "failed", "error": text})
        name = text[:60]
        services.operations.add_user(name, "annotator", PASSWORD)
        shown = services.annotation.next(name).result()
        form = VoteForm(str(uuid4()), shown["assignment_id"], "left", tags=(text[:60],),
                        comment=text, client_version=text)  # fmt: skip
        services.annotation.vote(name, form).result()
        services.store.database.execute(
            "INSERT INTO runs (run_id, kind, folder, state, ingested, created_at, settings, error,"
            " argv) VALUES (?, 'train-reward', ?, 'failed', true, ?, '{}', ?, ?)",
            [
                f"train-reward-20260101-00000{number}-abc",
                f"runs/{number}",
                now,
                text,
                f'["{number}"]',
            ],
        )
        (services.workspace.runs / str(number)).mkdir()
        (services.workspace.runs / str(number) / "log.txt").write_text(text + "\n")
    services.store.database.execute(
        "UPDATE songs SET title = ? WHERE status = 'ready'", [HOSTILE[0]]
    )
    services.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script("localStorage.setItem('tour-seen/1', '1')")
    page = context.new_page()
    page.set_default_timeout(SLOW)
    yield page
    context.close()


def enter(page: Page, server: Server, name: str) -> None:
    page.goto(server.url + "/login")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")


def untouched(page: Page) -> None:
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x]").count() == 0


def test_no_page_runs_what_people_typed(hostile: Server, page: Page) -> None:
    refused: list[str] = []
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("response", lambda answer: refused.append(answer.url) if answer.status == 403 else None)
    for text in HOSTILE[:2]:  # a wrong password: the sign-in page shows the name again
        page.goto(hostile.url + "/login")
        page.fill("input[name=name]", text)
        page.fill("input[name=password]", "wrong password")
        page.press("input[name=password]", "Enter")
        page.wait_for_selector("text=wrong")
        untouched(page)
    enter(page, hostile, "res")
    page.wait_for_url("**/research**")
    seen = ""
    for tab in TABS:
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(1500)
        untouched(page)
        seen += page.inner_text("body")
    assert HOSTILE[0] in seen and HOSTILE[4] in seen  # they were there, as text
    page.goto(hostile.url + "/annotate")
    page.wait_for_selector("#player")
    page.wait_for_timeout(1500)
    untouched(page)
    assert dialogs == [] and refused == []


def test_an_annotator_with_a_hostile_name(hostile: Server, page: Page) -> None:
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status == 403 else None)
    enter(page, hostile, HOSTILE[0])
    page.wait_for_url("**/annotate**")
    page.wait_for_selector("#player button")
    page.wait_for_timeout(1500)
    untouched(page)
    assert refused == []
