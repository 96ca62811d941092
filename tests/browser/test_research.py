"""The researcher's page in a real browser, on the real server: each tab's main path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
import soundfile
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import PASSWORD, Server, Visit, running

pytestmark = pytest.mark.browser
SLOW = 30_000  # ms that a step may take on a busy machine before the test fails
SONG_NAME = "Grüße <b>'1'.wav"


@pytest.fixture(scope="module")
def studio(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server of its own, for these tests change users and songs. It starts no run by itself."""
    patch = pytest.MonkeyPatch()
    patch.setenv("FEEDBACK_APP_AUTO_PREPARE", "false")
    with running(tmp_path_factory.mktemp("research") / "workspace", count=3) as started:
        yield started
    patch.undo()


@pytest.fixture
def desk(browser: Browser, studio: Server) -> Iterator[Visit]:
    """The researcher, signed in, with the page open."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(SLOW)
    seen = Visit("res", context, page, [], [])
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("pageerror", lambda error: seen.problems.append(str(error)))
    page.on("dialog", lambda dialog: (seen.problems.append(dialog.message), dialog.dismiss()))
    sign_in(page, studio, "res", PASSWORD)
    page.wait_for_url("**/research**")
    expect(page.locator("#run-status .fa-empty, #run-status .fa-run")).to_be_visible(timeout=SLOW)
    yield seen
    assert seen.problems == []
    outside = [url for url in seen.requests if not url.startswith((studio.url, "data:", "blob:"))]
    assert outside == []
    context.close()


def sign_in(page: Page, server: Server, name: str, password: str) -> None:
    page.goto(server.url + "/login")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_train_tells_why_it_cannot_and_keeps_its_settings_in_reach(desk: Visit) -> None:
    page = desk.page
    page.locator("#retrain-reward").click()
    expect(page.get_by_text("there are no votes to learn from yet")).to_be_visible(timeout=SLOW)
    expect(page.locator("#algorithm input[value=ppo]")).to_be_checked()
    page.locator("#steps input").fill("0")
    page.locator("#train-policy").click()
    expect(page.get_by_text("total_steps is 0")).to_be_visible(timeout=SLOW)
    page.locator("#by-command button").first.click()
    expect(page.locator("#commands")).to_contain_text("train-policy --total-steps 0", timeout=SLOW)
    open_tab(page, "Versions")
    expect(page.locator("#policy-versions")).to_contain_text("No version yet", timeout=SLOW)
    open_tab(page, "Dry run")
    page.locator("#simulate").click()
    expect(page.get_by_text("there is no policy yet")).to_be_visible(timeout=SLOW)
    expect(page.locator("#dry-runs")).to_contain_text("No dry run yet", timeout=SLOW)


def test_a_song_is_uploaded_and_seen_whatever_it_is_called(desk: Visit, tmp_path: Path) -> None:
    page = desk.page
    open_tab(page, "Library")
    expect(page.locator("#song-table")).to_contain_text("Study <b>in</b> five notes", timeout=SLOW)
    assert page.locator("#song-table b b").count() == 0
    noise = np.random.default_rng(5).normal(0, 0.1, 16000 * 10)
    soundfile.write(tmp_path / SONG_NAME, noise, 16000)
    page.locator("#upload-songs input[type=file]").set_input_files(tmp_path / SONG_NAME)
    expect(page.locator("#library-message")).to_contain_text("1 song taken in", timeout=SLOW)
    expect(page.locator("#song-table")).to_contain_text("Grüße", timeout=SLOW)
    page.locator("#folder-path textarea, #folder-path input").first.fill(str(tmp_path / "none"))
    page.locator("#add-folder").click()
    expect(page.get_by_text("there is no such file or folder")).to_be_visible(timeout=SLOW)


def test_a_broken_upload_goes_on_and_each_file_is_told_of(desk: Visit, tmp_path: Path) -> None:
    page = desk.page
    open_tab(page, "Library")
    for number in range(2):
        noise = np.random.default_rng(number).normal(0, 0.1, 44100 * 30)
        soundfile.write(tmp_path / f"noise {number}.wav", noise, 44100)
    (tmp_path / "notes.wav").write_bytes(b"")
    asked: list[str] = []

    def breaks(route: Route) -> None:
        asked.append(route.request.url)
        route.abort() if len(asked) in (2, 3) else route.continue_()

    page.route("**/research/uploads*", breaks)
    page.locator("#upload-songs input[type=file]").set_input_files(sorted(tmp_path.glob("*.wav")))
    lines = page.locator("#upload-songs li")
    expect(lines.nth(0)).to_contain_text("sent", timeout=SLOW)
    expect(lines.nth(1)).to_contain_text("sent", timeout=SLOW)
    expect(lines.nth(2)).to_contain_text("between 0 and 300 MB are taken", timeout=SLOW)
    expect(page.locator("#library-message")).to_contain_text("2 songs taken in", timeout=SLOW)
    offsets = [parse_qs(urlsplit(url).query)["offset"][0] for url in asked]
    assert offsets[1:4] == ["0", "0", "0"] and int(offsets[4]) == 2 * 1024 * 1024


def test_beats_are_tapped_by_key_and_seen_before_they_are_saved(
    desk: Visit, studio: Server
) -> None:
    page = desk.page
    place = studio.root / "songs" / "0123456789abcdef" / "study.wav"
    place.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(place, np.zeros(16000 * 8), 16000)
    open_tab(page, "Library")
    audio = page.locator("#song-waveform audio")
    expect(audio).to_be_visible(timeout=SLOW)
    audio.evaluate("song => song.load()")
    page.wait_for_function("document.querySelector('#song-waveform audio').duration > 7")
    save = page.locator("#song-waveform [data-id=save]")
    expect(save).to_be_disabled()
    page.locator("#folder-path textarea, #folder-path input").first.press("t")
    assert audio.evaluate("song => song.paused")  # a letter typed is no tap
    page.locator("#song-waveform [data-id=taps]").click()
    page.keyboard.press("t")  # plays
    page.wait_for_function("!document.querySelector('#song-waveform audio').paused")
    audio.evaluate("song => { song.playbackRate = 0.0625; }")  # so that the taps are where we say
    for seconds in (1.0, 1.5, 2.0, 3.0):  # one beat was missed
        audio.evaluate("(song, at) => { song.currentTime = at; }", seconds)
        page.keyboard.press("t")
    expect(page.locator("#song-waveform [data-id=taps]")).to_contain_text("4 taps, 1", timeout=SLOW)
    words = page.locator("#song-waveform [data-id=taps]").inner_text()
    assert float(words.split()[2]) == pytest.approx(120, abs=8)
    expect(save).to_be_enabled()
    page.locator("#song-waveform [data-id=clear]").click()
    expect(save).to_be_disabled()


def test_a_pair_can_be_listened_to_with_its_edits_drawn(desk: Visit) -> None:
    page = desk.page
    open_tab(page, "Results")
    expect(page.locator("#results-summary")).to_contain_text("votes by people", timeout=SLOW)
    expect(page.locator("#pair-player audio")).to_have_count(3, timeout=SLOW)
    expect(page.locator("#pair-player svg.fa-edl")).to_have_count(2)
    assert page.locator("#pair-player .e-cut").count() > 0
    for place in range(3):
        audio = page.locator("#pair-player audio").nth(place)
        audio.evaluate("player => player.play()")
        page.wait_for_function(
            "i => document.querySelectorAll('#pair-player audio')[i].currentTime > 0.2", arg=place
        )
        audio.evaluate("player => player.pause()")


def test_a_new_user_signs_in_with_the_password_shown_and_can_be_shut_out(
    desk: Visit, browser: Browser, studio: Server
) -> None:
    page = desk.page
    open_tab(page, "People")
    page.locator("#user-name textarea, #user-name input").first.fill("zoë")
    page.locator("#add-user").click()
    secret = page.locator("#user-added .fa-secret")
    expect(secret).to_be_visible(timeout=SLOW)
    expect(page.locator("#people-table")).to_contain_text("zoë")
    password = secret.inner_text()
    guest = browser.new_context()
    visitor = guest.new_page()
    sign_in(visitor, studio, "zoë", password)
    visitor.wait_for_url("**/annotate**")
    refused = visitor.goto(studio.url + "/research/")
    assert refused is not None
    assert refused.status == 403 or "/research" not in visitor.url
    for path in ("/research/config", "/research/gradio_api/info"):
        assert guest.request.get(studio.url + path).status in (401, 403)
    open_tab(page, "Data")
    open_tab(page, "People")
    expect(page.locator("#user-added")).not_to_contain_text(password)
    page.locator("#disable-name input").click()
    page.get_by_role("option", name="zoë").click()
    page.locator("#disable-user").click()
    expect(page.locator("#people-message")).to_contain_text("can no longer sign in", timeout=SLOW)
    assert guest.request.get(studio.url + "/api/me").status in (401, 403)
    guest.close()


def test_votes_are_imported_and_exported(desk: Visit, tmp_path: Path) -> None:
    page = desk.page
    open_tab(page, "Data")
    votes = tmp_path / "votes.csv"
    lines = ["pair_id,annotator,choice,strength", "pair0000,eve,a,2", "pair0001,eve,tie,",
             "pair0002,eve,<b>,1", "nowhere,eve,b,1"]  # fmt: skip
    votes.write_text("\n".join(lines) + "\n", encoding="utf-8")
    page.locator("#import-file input[type=file]").set_input_files(votes)
    report = page.locator("#import-report")
    expect(report).to_contain_text("2 votes taken in, 2 rows rejected", timeout=SLOW)
    assert report.locator("td").nth(0).inner_text() == "4"
    assert report.locator("td").nth(2).inner_text() == "5"
    open_tab(page, "People")
    open_tab(page, "Data")
    preview = page.locator("#export-preview")
    expect(preview).to_contain_text("2 votes chosen", timeout=SLOW)
    page.locator("#export-voters input[value=simulated]").check()
    expect(preview).to_contain_text("No vote fits these filters", timeout=SLOW)
    expect(page.locator("#export-command")).to_contain_text("--only-simulated")
    page.locator("#export-voters input[value=human]").check()
    expect(preview).to_contain_text("2 votes chosen", timeout=SLOW)
    page.locator("#export").click()
    link = page.locator("#export-link a").first
    expect(link).to_be_visible(timeout=SLOW)
    with page.expect_download() as waiting:
        link.click()
    saved = tmp_path / "out.parquet"
    waiting.value.save_as(saved)
    rows = pd.read_parquet(saved)
    assert sorted(zip(rows["pair_id"], rows["choice"], strict=True)) == [
        ("pair0000", "a"), ("pair0001", "tie"),
    ]  # fmt: skip
    page.locator("#sql-ask").click()
    answer = page.locator("#sql-answer")
    expect(answer.locator("td").first).to_have_text("eve", timeout=SLOW)
    expect(answer.locator("td").nth(1)).to_have_text("2")
    page.locator("#sql-query .cm-content").fill("DROP TABLE votes")
    page.locator("#sql-ask").click()
    expect(page.get_by_text("the box only reads")).to_be_visible(timeout=SLOW)
    open_tab(page, "Results")
    expect(page.locator("#results-summary strong").first).to_have_text("2", timeout=SLOW)


def test_somebody_s_weight_is_changed_with_its_effect_shown_and_taken_back(
    desk: Visit, tmp_path: Path
) -> None:
    page = desk.page
    votes = tmp_path / "two people.csv"
    rows = [f"pair{i:04d},{who},{choice}" for i in range(3) for who, choice in
            (("fay", "a"), ("gus", "ab"[i % 2]))]  # fmt: skip
    votes.write_text("\n".join(["pair_id,annotator,choice", *rows]) + "\n", encoding="utf-8")
    open_tab(page, "Data")
    page.locator("#import-file input[type=file]").set_input_files(votes)
    expect(page.locator("#import-report")).to_contain_text("6 votes", timeout=SLOW)
    open_tab(page, "People")
    expect(page.locator("#people-summary")).to_contain_text("Krippendorff", timeout=SLOW)
    page.locator("#weight-name input").click()
    page.get_by_role("option", name="gus").click()
    page.locator("#weight-effect").click()
    expect(page.locator("#weight-message")).to_contain_text("gus at 0 %", timeout=SLOW)
    page.locator("#weight-apply").click()
    expect(page.locator("#people-table")).to_contain_text("left out", timeout=SLOW)
    page.locator("#weight-undo").click()
    expect(page.locator("#weight-message")).to_contain_text("counts 100 % again", timeout=SLOW)
    expect(page.locator("#people-table")).not_to_contain_text("left out")


def test_the_page_fits_a_phone_in_every_tab(desk: Visit) -> None:
    page = desk.page
    page.set_viewport_size({"width": 420, "height": 900})
    for name in ("Train", "Versions", "Dry run", "Library", "Results", "People", "Data"):
        tab = page.get_by_role("tab", name=name, exact=True)
        if tab.count() and tab.first.is_visible():
            tab.first.click()
        else:
            page.locator("#research-tabs .overflow-menu > button").click()
            page.locator("#research-tabs .overflow-dropdown button", has_text=name).click()
        expect(page.locator(f"#tab-{name.lower().replace(' ', '-')}")).to_be_visible(timeout=SLOW)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 420, name


def test_a_reload_shows_the_same_run_with_its_command(desk: Visit, tmp_path: Path) -> None:
    page = desk.page
    page.locator("#make-pairs").click()
    expect(page.get_by_text("there is no policy yet")).to_be_visible(timeout=SLOW)
    tone = 0.1 * np.sin(np.arange(16000 * 10) / 9) * (np.arange(16000 * 10) % 8000 < 2000)
    soundfile.write(tmp_path / "clicks.wav", tone, 16000)
    open_tab(page, "Library")
    page.locator("#upload-songs input[type=file]").set_input_files(tmp_path / "clicks.wav")
    expect(page.locator("#library-message")).to_contain_text("1 song taken in", timeout=SLOW)
    page.reload()
    label = page.locator("#run-status .fa-run-id")
    expect(label).to_have_text(re.compile(r"^analyse-"), timeout=SLOW)
    runs = page.locator("#run-picker select")
    run_id = runs.locator("option").first.get_attribute("value")  # other songs' may still go on
    assert run_id is not None
    runs.select_option(run_id)
    expect(label).to_have_text(run_id, timeout=SLOW)
    expect(page.locator("#run-command")).to_contain_text("rlhf_core.precache_stems", timeout=SLOW)
    expect(page.locator("#run-status .fa-run")).to_have_attribute(
        "data-state", "finished", timeout=SLOW
    )
    page.reload()
    expect(page.locator("#run-status .fa-run-id")).to_have_text(run_id, timeout=SLOW)
