"""Versions, the queue and dry runs on the page, against an Operations in memory."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from feedback_app.arguments import build_parser
from feedback_app.ui import commanding, comparing, dry_run, dry_run_form, runs, versions
from tests.app.fake_operations import NASTY, FakeOperations
from tests.app.test_ui_tabs import POLICY_VALUES, Page


class Cards(Page):
    """Presses buttons inside HTML, as the browser does."""

    def press(self, elem_id: str, act: str, of: str, *values: Any) -> dict[str, Any]:
        block = self.by_id[elem_id]
        (item,) = [
            item for item in self.blocks.fns.values() if (block._id, "submit") in item.targets
        ]
        event = gr.EventData(None, {"act": act, "of": of})
        answer = item.fn(SimpleNamespace(username="rita"), event, *values)
        if answer == gr.skip():
            return {}
        return {getattr(part, "elem_id", None) or str(part): v for part, v in answer.items()}


@pytest.fixture
def operations(tmp_path: Path) -> FakeOperations:
    return FakeOperations(tmp_path)


@pytest.fixture
def page(operations: FakeOperations) -> Cards:
    return Cards(operations)


def test_cards_decide_on_versions(page: Cards, operations: FakeOperations) -> None:
    shown = page.press("policy-versions", "promote", "policy_v3")
    assert "policy_v3 is active now" in shown["version-message"]
    assert operations.policies[2]["status"] == "active"
    assert "policy_v1 is active again" in page.fire("roll-back", "click")["version-message"]
    page.press("policy-versions", "reject", "policy_v2")
    assert operations.policies[1]["status"] == "rejected"
    for nonsense in ("", "delete everything", "promote-simulated-not"):
        assert page.press("policy-versions", nonsense, "policy_v2") == {}


def test_what_is_irreversible_or_simulated_asks_first(
    page: Cards, operations: FakeOperations
) -> None:
    asked = page.press("policy-versions", "delete-ask", "policy_v3")
    assert "3 files, 4.2 MB" in asked["version-question"]
    assert operations.calls[-1][1]["confirmed"] is False
    assert page.press("version-question", "dismiss", "policy_v3")["version-question"] == ""
    gone = page.press("version-question", "delete", "policy_v3")
    assert "policy_v3" not in gone["policy-versions"] and gone["version-question"] == ""
    operations.policies[1]["simulated"] = True
    operations.policies[1]["status"] = "proposed"
    assert 'data-act="promote-ask"' in page.open("versions")["policy-versions"]
    with pytest.warns(UserWarning, match="simulated votes"):  # not by the plain action either
        page.press("policy-versions", "promote", "policy_v2")
    assert operations.policies[1]["status"] == "proposed"
    asked = page.press("policy-versions", "promote-ask", "policy_v2")
    assert "nobody" in asked["version-question"]
    page.press("version-question", "promote-simulated", "policy_v2")
    assert operations.policies[1]["status"] == "active"


def test_cards_show_intervals_verdict_and_what_is_synthetic(operations: FakeOperations) -> None:
    card = versions.policy_card(operations.policies[1])
    assert (
        "71 % (60–80)" in card
        and "Verdict: better than its parent" in card
        and "better on unseen songs" in card
    )
    doubtful = versions.policy_card(operations.policies[2])
    assert "56 % (44–67)" in doubtful and "Verdict: doubtful" in doubtful
    good = operations.list_reward_models()[1]
    assert "length, 55 % (45–64)" in versions.reward_card(good)
    poor = good | {"metrics": good["metrics"] | {"accuracy": 0.5}}
    assert "not better than a baseline" not in versions.reward_card(good)
    assert "not better than a baseline" in versions.reward_card(poor)
    asked_twice = {"ceiling": 1.0, "ceiling_from": "repeats", "consistency": {
        "repeats": 3, "ceiling_low": 0.5, "ceiling_high": 1.0}}  # fmt: skip
    told = versions.reward_card(good | {"metrics": good["metrics"] | asked_twice})
    assert "100 % (50–100), by 3 hidden repeats" in told
    assert "synthetic edits, no votes" in versions.reward_card(operations.list_reward_models()[0])
    simulated = versions.reward_card(good | {"simulated": True, "dry_run": "dry7"})
    assert "simulated votes" in simulated and "dry7" in simulated


def test_a_card_tells_its_lineage() -> None:
    row = {
        "version": "policy_v2", "algorithm": "dpo", "parent": "policy_v1", "seed": 0,
        "reward_model": "reward_v1", "snapshot": "ab12" * 16, "code_version": "0.1.0 (abc)",
        "settings": {"algorithm": "dpo", "total_steps": 40000, "on_votes": True}, "run_id": "r2",
    }  # fmt: skip
    told = versions.lineage(row)
    for part in ("policy_v1", "reward_v1", "ab12ab12ab12<", "0.1.0 (abc)", "steps 40,000",
                 "on the votes themselves", "<dd>0</dd>", "r2"):  # fmt: skip
        assert part in told, part


def test_examples_play_in_the_card_before_first(operations: FakeOperations) -> None:
    row = operations.policies[2]
    card = comparing.card_examples(row, operations.examples_of(row))
    before, after, original = (
        card.index(f"/research/example/examples-1/0/{side}") for side in ("b", "a", "original")
    )
    assert before < after < original
    assert card.index("policy_v2 <small>") < card.index("policy_v3 <small>")
    assert "<script" not in card and "alert(1)" in card and NASTY not in card
    assert comparing.card_examples(operations.policies[0], None) == ""


def test_two_versions_stand_side_by_side(page: Cards, operations: FakeOperations) -> None:
    shown = page.press("policy-versions", "compare", "policy_v3")
    assert shown["compare-left"].value == "policy_v3"
    assert shown["compare-right"].value == "policy_v2"
    table = shown["compared"]
    assert '<tr class="fa-differs"><th scope="row">Parent</th><td>policy_v2</td>' in table
    assert '<tr><th scope="row">Reward model</th><td>reward_v1</td><td>reward_v1</td>' in table
    assert "71 % (60–80)" in table and table.count("fa-edl") >= 2
    assert "Choose two" in page.fire("compare", "click", None, "policy_v1")["compared"]
    page.fire("compare-render", "click", "policy_v1", "policy_v3")
    wanted = {"version": "policy_v1", "versus": "policy_v3"}
    assert operations.calls[-1] == ("make_examples", wanted)


def test_the_queue_shows_what_waits_and_lets_it_be_taken_out(
    page: Cards, operations: FakeOperations
) -> None:
    page.fire("train-policy", "click", *POLICY_VALUES)
    operations.runs.insert(0, operations._run("r8", "train-policy") | {"state": "queued"})
    shown = page.open("train")
    assert "waiting for r2" in shown["run-queue"] and "Take out" in shown["run-queue"]
    assert "then evaluation, rendering examples" in shown["run-queue"]
    picked = page.press("run-queue", "show", "r8", "run1>")
    assert '<option value="r8" selected>' in picked["run-picker"] and picked["run-picked"] == "r8>"
    assert picked["cancel-run"].value == "Take out of the queue"
    after = page.press("run-queue", "cancel", "r8", "run1>")
    assert "r8 is taken out of the queue" in after["train-message"]
    assert operations.calls[-1] == ("cancel_run", {"run_id": "r8"})
    assert runs.queue([{"run_id": "x", "kind": "rank", "state": "running", "then": []}], "x") == ""


def test_a_failed_run_says_why_and_where_its_folder_is() -> None:
    shown = runs.status({"state": "failed", "kind": "train-policy", "run_id": "r1",
                         "error": f"{NASTY}\nlog line", "folder": "/w/runs/r1"})  # fmt: skip
    assert "alert(1)" in shown and "<script" not in shown
    assert "<pre" in shown and "/w/runs/r1" in shown


def test_a_dry_run_is_started_shown_and_removed(page: Cards, operations: FakeOperations) -> None:
    assert "No dry run yet" in page.open("dry-run")["dry-runs"]
    manner = (0.5, None, 0.1, 0.05, -0.4)  # of ties what is usual
    values = ("heard_even", 2.0, 50.0, 0.5, 4096.0, 3.0, *manner[1:], 0.2)
    shown = page.fire("simulate", "click", *values)
    wanted = {"judge": "heard_even", "rounds": 2, "votes": 50, "noise": 0.5, "total_steps": 4096,
              "seed": 3, "tie_margin": 0.25, "lapse": 0.1, "skip": 0.05, "side_bias": -0.4,
              "both_bad": 0.2}  # fmt: skip
    assert operations.calls[-1] == ("simulate", wanted)
    words = shlex.split(dry_run_form.command(wanted))
    told = vars(build_parser().parse_args(words[3:]))
    assert "--tie-margin" not in words and {name: told[name] for name in wanted} == wanted
    html = shown["dry-runs"]
    assert "72 % (61–82)" in html and "70 % (55–82)" in html and "accepted" in html
    assert html.count(">simulated<") == 1 and "1:05 by the clock so far" in html
    assert "remove-ask" not in html
    shown = page.press("dry-runs", "cancel", "dry1")
    assert 'data-act="remove-ask"' in shown["dry-runs"]
    asked = page.press("dry-runs", "remove-ask", "dry1")
    assert "with all that it made" in asked["dry-question"] and operations.dry
    gone = page.press("dry-question", "remove", "dry1")
    assert "100 simulated votes" in gone["dry-message"] and "No dry run" in gone["dry-runs"]
    assert ("heard_even · no quiet holes (listens)", "heard_even") in dry_run.judge_choices(
        operations.judges()
    )


@pytest.mark.parametrize("row", range(4))
def test_the_commands_shown_are_the_commands_there_are(row: int) -> None:
    chosen = commanding.policy_arguments("dpo", 2048.0, 0.7, 0.3, "reward_v1", True, "cuda:0", 5)
    words = shlex.split(commanding.lines(True, 3, chosen, 12, "policy_v1").splitlines()[row])
    assert words[:3] == ["python", "-m", "feedback_app"]
    told = vars(build_parser().parse_args(words[3:]))
    expected = [
        {"command": "retrain-reward", "include_simulated": True, "seed": 3},
        {"command": "train-policy", **chosen},
        {"command": "pairs", "action": "generate", "count": 12, "versus": "policy_v1"},
        {"command": "round", "include_simulated": True}
        | {name: value for name, value in chosen.items() if name != "reward_model"},
    ][row]
    assert {name: told[name] for name in expected} == expected
