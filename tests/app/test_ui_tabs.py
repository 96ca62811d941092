"""The tabs against an Operations in memory: what is shown, and what a button asks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from feedback_app.arguments import build_parser
from feedback_app.ui import actions, data_views, library, research, runs
from feedback_app.ui.run_watch import chosen
from tests.app.fake_operations import NASTY, FakeOperations


class Page:
    """Runs the page's handlers as the researcher rita, by the element ids of the components."""

    def __init__(self, operations: FakeOperations) -> None:
        self.blocks = research.build(operations)
        self.by_id = {
            block.elem_id: block
            for block in self.blocks.blocks.values()
            if getattr(block, "elem_id", None)
        }

    def fire(self, elem_id: str, event: str, *values: Any) -> dict[str, Any]:
        """Handle an event; the answer by the outputs' element ids."""
        block = self.by_id[elem_id]
        (item,) = [
            item
            for item in self.blocks.fns.values()
            if (block._id, event) in item.targets and len(item.inputs) == len(values)
        ][:1]
        answer = item.fn(SimpleNamespace(username="rita"), *values)
        return {getattr(part, "elem_id", None) or str(part): v for part, v in answer.items()}

    def send(self, elem_id: str, data: dict[str, Any], *values: Any) -> dict[str, Any]:
        """Handle a `submit` of a component that sends data along."""
        block = self.by_id[elem_id]
        (item,) = [i for i in self.blocks.fns.values() if (block._id, "submit") in i.targets]
        answer = item.fn(SimpleNamespace(username="rita"), gr.EventData(None, data), *values)
        return {getattr(part, "elem_id", None) or str(part): v for part, v in answer.items()}

    def poll(self) -> Callable[..., Any]:
        """What the Train tab's timer asks; the answer by element ids, or gr.skip()."""
        timers = [i for i in self.blocks.fns.values() if "tick" in str(i.targets)]
        (item,) = [i for i in timers if len(i.inputs) == 4]
        assert not item.queue

        def ask(*values: str) -> Any:
            answer = item.fn(SimpleNamespace(username="rita"), *values)
            if answer == gr.skip():
                return answer
            return {getattr(part, "elem_id", None) or str(part): v for part, v in answer.items()}

        return ask

    def first(self) -> str:
        return f"{0:016x}"

    def open(self, name: str, *values: Any) -> dict[str, Any]:
        """Open a tab; values: of the inputs that its loader reads, none of them set by default."""
        tab = self.by_id[f"tab-{name}"]
        loader = next(i for i in self.blocks.fns.values() if (tab._id, "select") in i.targets)
        return self.fire(f"tab-{name}", "select", *(values or [None] * len(loader.inputs)))


@pytest.fixture
def operations(tmp_path: Path) -> FakeOperations:
    return FakeOperations(tmp_path)


@pytest.fixture
def page(operations: FakeOperations) -> Page:
    return Page(operations)


POLICY_VALUES = ("dpo", 2048.0, 0.7, 0.3, "", True, " cpu ", 5.0)


def test_buttons_ask_for_what_the_inputs_say(page: Page, operations: FakeOperations) -> None:
    page.fire("retrain-reward", "click", True, 3.0)
    page.fire("train-policy", "click", *POLICY_VALUES)
    page.fire("make-pairs", "click", 12.0, "policy_v1")
    page.fire("run-round", "click", False, *POLICY_VALUES)
    wanted = {"algorithm": "dpo", "total_steps": 2048, "learned_weight": 0.7, "dense_weight": 0.3,
              "device": "cpu", "seed": 5, "reward_model": None, "on_votes": True}  # fmt: skip
    assert operations.calls == [
        ("retrain_reward", {"include_simulated": True, "seed": 3}),
        ("train_policy", wanted),
        ("generate_pairs", {"count": 12, "versus": "policy_v1"}),
        ("run_round", {"include_simulated": False, **wanted}),
    ]


def test_a_started_run_is_shown_at_once_and_can_be_cancelled(page: Page) -> None:
    shown = page.fire("train-policy", "click", *POLICY_VALUES)
    assert 'data-state="running"' in shown["run-status"] and "1:15 left" in shown["run-status"]
    assert shown["run-command"].startswith("python -m rlhf_core.train_rlhf")
    assert "Entropy" in shown["run-curves"]
    assert '<option value="run1" selected>' in shown["run-picker"]
    seen = mark_of(shown["run-status"])  # the buttons mean the run that they stand beside
    after = page.fire("cancel-run", "click", seen, shown["run-picked"])
    assert 'data-state="cancelled"' in after["run-status"]
    again = page.fire("resume-run", "click", seen)
    assert 'data-state="running"' in again["run-status"] and again["run-picked"] == "run1>"


def mark_of(panel: str) -> str:
    (mark,) = re.findall(r'data-shown="([^"]*)"', panel)
    return str(mark)


def test_polling_changes_nothing_while_nothing_changes(
    page: Page, operations: FakeOperations
) -> None:
    first = page.open("train", "")
    poll = page.poll()
    seen, listed = mark_of(first["run-status"]), mark_of(first["run-picker"])
    assert seen == mark_of(first["run-queue"]) == mark_of(first["run-curves"])
    assert poll("", seen, listed, "r2,r1") == gr.skip()
    operations.runs[0]["message"] = "something new"
    changed = poll("", seen, listed, "r2,r1")
    assert "something new" in changed["run-status"] and "run-picker" not in changed


def test_a_late_answer_about_another_run_is_mended_and_moves_no_pick(page: Page) -> None:
    """Somebody picks r1; an answer about r2, asked for before, arrives after it."""
    late = page.open("train", "")
    assert 'fa-run-id">r2<' in late["run-status"] and "run-picked" not in late
    picked = page.send("run-picker", {"act": "show", "of": "r1"}, "")
    assert picked["run-picked"] == "r1"
    poll = page.poll()
    mended = poll("r1", mark_of(late["run-status"]), mark_of(picked["run-picker"]), "r2,r1")
    assert 'fa-run-id">r1<' in mended["run-status"] and "run-picker" not in mended
    mended = poll("r1", "", mark_of(late["run-picker"]), "r2,r1")  # panels of two states
    assert 'fa-run-id">r1<' in mended["run-status"]
    assert '<option value="r1" selected>' in mended["run-picker"]


def test_coming_back_to_the_tab_shows_the_run_that_was_picked(page: Page) -> None:
    assert 'fa-run-id">r2<' in page.open("train", "")["run-status"]
    assert 'fa-run-id">r1<' in page.open("train", "r1")["run-status"]


def test_songs_are_added_split_and_corrected(
    page: Page, operations: FakeOperations, tmp_path: Path
) -> None:
    shown = page.send("upload-songs", {"keys": ["new song"]})
    assert "new song" in shown["song-table"] and "1 song taken in" in shown["library-message"]
    first = operations.songs[0]["song_id"]
    page.fire("song-split", "input", first, "test")
    assert operations.songs[0]["split"] == "test"
    page.fire("beats-halve", "click", first)
    assert operations.calls[-1] == ("correct_beats", {"song_id": first, "how": "halve"})
    assert "Choose a song" in page.fire("beats-double", "click", None)["library-message"]
    assert "Say which" in page.fire("add-folder", "click", "  ")["library-message"]


def test_a_song_with_pairs_keeps_its_split_and_says_what_a_correction_costs(page: Page) -> None:
    free = page.fire("song-picker", "input", page.first())
    assert free["song-split"].interactive and free["song-about"] == ""
    held = page.fire("song-picker", "input", f"{1:016x}")
    assert not held["song-split"].interactive
    assert "It stays train: there are 7 pairs" in held["song-split"].info
    assert "3 pairs" in held["song-about"] and "5 votes" in held["song-about"]


def test_tapped_beats_are_saved_and_nothing_else_comes_that_way(
    page: Page, operations: FakeOperations
) -> None:
    how = "tap:1.000,1.500,2.000,2.500"
    page.send("song-waveform", {"act": "tapped", "of": page.first(), "how": how})
    assert operations.calls[-1] == ("correct_beats", {"song_id": page.first(), "how": how})
    before = len(operations.calls)
    for data in ({}, {"act": "tapped", "of": page.first(), "how": "reset"}, {"act": "x"}):
        page.send("song-waveform", data)
    assert len(operations.calls) == before


def test_a_song_is_removed_after_what_that_means_was_said(
    page: Page, operations: FakeOperations
) -> None:
    asked = page.fire("remove-song", "click", page.first())["song-asking"]
    for words in ("cannot be undone", "9 files", "7 pairs", "5 votes by 2 people", "Remove it for"):
        assert words in asked
    assert "<img" not in asked and len(operations.songs) == 3
    page.send("song-asking", {"act": "dismiss", "of": page.first()})
    assert len(operations.songs) == 3
    told = page.send("song-asking", {"act": "remove-song", "of": page.first()})
    assert "was removed" in told["library-message"] and len(operations.songs) == 2


EVERYTHING: tuple[Any, ...] = ("parquet", "human", False, [], [], [], [], [], 0, "", False)


def test_an_export_is_shown_written_and_linked(page: Page, operations: FakeOperations) -> None:
    shown = page.fire("export", "click", *EVERYTHING)
    address = 'href="/research/download/preferences-parquet-0123456789ab.parquet"'
    assert address in shown["export-link"] and "README.md" in shown["export-link"]
    assert "41 rows" in shown["export-link"] and "0" * 64 in shown["export-link"]
    some = ("trl", "both", True, [2], ["policy_v1"], [], ["random"], [], 0.8, "", True)
    told = page.fire("export-format", "input", *some)
    assert "41 votes chosen" in told["export-preview"] and "<img" not in told["export-preview"]
    assert told["export-command"] == (
        "python -m feedback_app export DIR --format trl --include-simulated --pseudonyms "
        "--rounds 2 --versions policy_v1 --pools random --agreement 0.8 --features"
    )
    words = told["export-command"].split()[3:]
    assert build_parser().parse_args(words).agreement == 0.8
    page.fire("export", "click", *some)
    assert operations.calls[-1][1] == {
        "format": "trl", "include_simulated": True, "rounds": [2], "versions": ["policy_v1"],
        "pools": ["random"], "agreement": 0.8, "features": True,
        "pseudonyms": True,
    }  # fmt: skip


def test_an_export_under_way_shows_how_far_it_is_and_can_be_ended(
    page: Page, operations: FakeOperations
) -> None:
    under_way = operations.run_view("r1") | {"state": "running", "progress": 0.25}
    shown = data_views.running(under_way)
    assert 'aria-valuenow="25"' in shown and 'data-act="cancel" data-of="r1"' in shown
    assert "data-act" not in data_views.running(under_way | {"state": "cancelled"})
    page.send("export-link", {"act": "remove", "of": "r1"})
    page.send("export-link", {"act": "cancel", "of": "r1"})
    assert operations.calls == [("cancel_run", {"run_id": "r1"})]


def test_a_question_in_sql_is_answered_as_a_table(page: Page) -> None:
    told = page.fire("sql-ask", "click", "SELECT 1")["sql-answer"]
    assert "7 rows, the first 1 shown" in told and "query-1.csv" in told and "<img" not in told
    with pytest.warns(UserWarning, match="only reads"):
        page.fire("sql-ask", "click", "DROP TABLE votes")


def test_an_import_reports_bad_rows(page: Page, tmp_path: Path) -> None:
    votes = tmp_path / "votes.csv"
    votes.write_text("good\n<script>bad\ngood\n", encoding="utf-8")
    told = page.fire("import-file", "upload", str(votes), "")["import-report"]
    assert "2 votes taken in, 1 row rejected" in told and "<td>2</td>" in told
    assert "<script>" not in told


def test_nothing_typed_reaches_the_page_as_markup(page: Page) -> None:
    for name in ("train", "versions", "dry-run", "library", "data"):
        for value in page.open(name).values():
            if isinstance(value, str):
                assert "<script" not in value and "${" not in value and "{{" not in value
    assert "alert(1)" in page.open("library")["song-table"]


def test_files_that_are_not_taken_in_are_told_with_their_reason() -> None:
    answer = {"added": 1, "skipped": [{"path": "/tmp/x/<b>.txt", "reason": "not audio"}]}
    html = library.taken_in(answer)
    assert "1 song taken in; analysis is running" in html
    assert "<td>&lt;b&gt;.txt</td><td>not audio</td>" in html


def test_another_list_is_another_element() -> None:
    """Gradio patches HTML by position, and a select that was used keeps its place in the list."""

    def element(options: str, chosen: str) -> str:
        return actions.choice("show", "Run", [(c, c) for c in options], chosen).split(">")[0]

    assert element("abc", "b") == element("abc", "b")
    assert len({element("abc", "b"), element("abc", "c"), element("xabc", "b")}) == 3


def test_which_run_is_shown() -> None:
    def run(run_id: str, state: str, previous: str | None = None) -> dict[str, Any]:
        return {"run_id": run_id, "state": state, "settings": {"previous": previous}}

    round_of = [run("evaluate", "running", "policy"), run("policy", "finished", "reward"),
                run("rank", "finished"), run("reward", "finished")]  # fmt: skip
    assert chosen(round_of, "reward>") == "evaluate"  # who watches a round is taken along
    assert chosen(round_of, "reward") == "reward"  # an ended run that somebody picked stays
    assert chosen(round_of, "", "policy") == "evaluate"
    assert chosen(round_of, "rank>") == "rank"
    assert chosen(round_of, "", "rank") == "rank"  # nothing moves the page by itself
    assert chosen(round_of, "") == "evaluate"  # what goes on
    assert chosen(round_of[1:], "") == "policy"  # else the newest
    assert chosen(round_of, "gone>") == "evaluate"
    assert chosen([], "gone", "gone") is None
    again = [run("again", "running", "reward"), run("policy", "cancelled", "reward"), round_of[3]]
    assert chosen(again, "reward>") == "again"  # the resumed one, not the one cancelled


def test_a_failed_run_says_why(operations: FakeOperations) -> None:
    view = operations.run_view("r1") | {"state": "failed", "error": f"no votes {NASTY}"}
    html = runs.status(view)
    assert "no votes &lt;script&gt;" in html and 'data-state="failed"' in html


def test_empty_workspaces_say_what_to_do() -> None:
    assert "Upload" in library.song_table([])
    assert "Start one" in runs.status(None)
    done = {"kind": "examples", "state": "finished", "settings": {"policy": NASTY, "versus": "p1"}}
    assert "Versions</b> tab" in runs.status(done) and "<script" not in runs.status(done)
    assert "Versions</b> tab" not in runs.status(done | {"state": "failed"})
    assert "nothing rejected" in data_views.import_report({"accepted": 2, "rejected": []})
    twice = {"accepted": 1, "rejected": [{"line": 2, "reason": "vote 1-2 is here already"}]}
    html = data_views.import_report(twice)
    assert "<td>" not in html and "1 vote taken in, 1 left out that was here already" in html
