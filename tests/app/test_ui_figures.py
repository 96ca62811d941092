"""The Results and People tabs on a real workspace, and their charts."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import gradio as gr
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_people import cast_by_three, desk, put, vote
from test_ui_charts import of_class, parse

from feedback_app.services import Services
from feedback_app.ui import drawings, people, people_charts, results, results_charts
from feedback_app.ui.estimates import Dot, dot_chart, matrix
from feedback_app.ui.guard import Guard
from feedback_app.ui.pair_view import pair_html
from rlhf_core.editing.edl import build_edl
from tests.app.fake_operations import edit, grid

__all__ = ["desk"]
NASTY = "</svg><script>alert('x')</script>\" & ${1}"


class Tab:
    """Fires a tab's handlers as the researcher res, by the element ids of the components."""

    def __init__(self, build: Any, services: Services) -> None:
        with gr.Blocks() as self.blocks:
            self.loader = build(services.operations, Guard(services.operations))
        self.by_id = {
            block.elem_id: block for block in self.blocks.blocks.values() if block.elem_id
        }

    def _named(self, answer: dict[Any, Any]) -> dict[str, Any]:
        return {part.elem_id or str(part): value for part, value in answer.items()}

    def load(self, **values: Any) -> dict[str, Any]:
        """values: what components hold, by id with _ for -; None where not told."""
        held = {name.replace("_", "-"): value for name, value in values.items()}
        read = [held.get(part.elem_id) for part in self.loader.inputs or ()]
        answer = self.loader.handler(SimpleNamespace(username="res"), *read)
        assert set(answer) == set(self.loader.outputs)
        return self._named(answer)

    def fire(self, elem_id: str, event: str, *values: Any) -> dict[str, Any]:
        block = self.by_id[elem_id]
        item = next(f for f in self.blocks.fns.values() if (block._id, event) in f.targets)
        assert len(item.inputs) == len(values)
        answer = item.fn(SimpleNamespace(username="res"), *values)
        assert set(answer) <= set(item.outputs)
        return self._named(answer)


def test_results_show_the_loop_the_board_and_any_pair(desk: Services) -> None:
    cast_by_three(desk)
    run = desk.store.database.execute
    for version, parent in (("policy_v1", None), ("policy_v2", "policy_v1")):
        run(
            "INSERT INTO policies VALUES (?, 'x.pt', ?, NULL, 'reward_v1', NULL, 'active', 'ppo',"
            " '{}', now()::TIMESTAMP)",
            [version, parent],
        )
    run(
        "INSERT INTO reward_models VALUES ('reward_v1', 'x.pt', NULL, NULL, 'active', false,"
        """ '{"accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8, "ceiling": 0.9}', 33,"""
        " now()::TIMESTAMP)"
    )
    tab = Tab(results.build, desk)
    shown = tab.load()
    assert "<strong>33</strong><span>votes by people" in shown["results-summary"]
    charts = parse(f"<div>{shown['results-charts']}</div>")
    assert len(of_class(charts, "whisker")) == 2  # an accuracy and a win rate
    board = shown["leaderboard"]
    assert "policy_v1" in board and "Fewer than 30 votes on policy_v1, policy_v2" in board
    assert "too narrow" in board  # one song, three people
    assert "Beats kept" in shown["behaviour"]
    assert (
        shown["pair-player"].count("<audio") == 3 and "votes" in shown["pair-picker"].choices[0][0]
    )
    found = tab.fire("pair-find", "submit", "broken", results.ANY)
    assert [value for _, value in found["pair-picker"].choices] == ["pair0011"]
    nothing = tab.fire("pair-version", "input", "zzz", "policy_v2")
    assert "No pair fits" in nothing["pair-player"]
    again = tab.load(pair_find="pair00", pair_picker="pair0011")  # back from another tab
    assert again["pair-picker"].value == "pair0011" and len(again["pair-picker"].choices) > 1
    kept, gone = (tab.load(pair_version=name) for name in ("policy_v2", "deleted"))
    assert kept["pair-version"].value == "policy_v2"
    assert gone["pair-version"].value == results.ANY
    assert "No dry run yet" in shown["dry-leaderboard"]
    for value in shown.values():
        assert "<script" not in str(value)


def test_people_are_weighed_with_the_effect_told_and_taken_back(desk: Services) -> None:
    cast_by_three(desk)
    tab = Tab(people.build, desk)
    shown = tab.load()
    assert "Krippendorff" in shown["people-summary"] and "<b>eve</b>" in shown["people-table"]
    assert shown["weight-name"].choices == [("ann", "ann"), ("bob", "bob"), ("eve", "eve")]
    told = tab.fire("weight-effect", "click", "eve", 0.0)["weight-message"]
    assert "eve at 0 % in place of 100 %" in told and "with the change" in told
    assert desk.store.weights()["eve"] == 1
    applied = tab.fire("weight-apply", "click", "eve", 0.0, " by chance ")
    assert desk.store.weights()["eve"] == 0
    assert "left out" in applied["people-table"] and "by chance" in applied["weight-changes"]
    assert "<td>res</td>" in applied["weight-changes"]  # who did it
    back = tab.fire("weight-undo", "click")
    assert "eve counts 100 % again" in back["weight-message"]
    assert "taken back" in back["weight-changes"]
    assert "Choose a name" in tab.fire("weight-apply", "click", None, 0.0, "")["weight-message"]


def test_somebody_is_invited_and_their_password_is_shown_once(desk: Services) -> None:
    tab = Tab(people.build, desk)
    shown = tab.fire("add-user", "click", " zoë ", "annotator", "http://127.0.0.1:7860")
    (secret,) = re.findall(r'fa-secret">([^<]+)<', shown["user-added"])
    assert f"password {secret}" in shown["user-added"].split("fa-invitation")[1]
    assert "http://127.0.0.1:7860/login" in shown["user-added"]
    assert "this machine only" in shown["user-added"] and shown["user-name"] == ""
    assert "zoë" in shown["people-table"] and secret not in str(tab.load())
    renewed = tab.fire("reset-password", "click", "zoë")["people-message"]
    assert "fa-secret" in renewed and secret not in renewed
    off = tab.fire("disable-user", "click", "zoë")
    assert "can no longer sign in" in off["people-message"] and "disabled" in off["people-table"]
    assert "may sign in again" in tab.fire("enable-user", "click", "zoë")["people-message"]
    assert "Give a name" in tab.fire("add-user", "click", " ", "annotator", "")["user-added"]


def test_typed_words_are_found_and_shown_as_text(desk: Services) -> None:
    put(desk, vote("pair0001", NASTY, "a", comment=NASTY, tags=[NASTY]),
        vote("pair0002", NASTY, "b", comment="groove"))  # fmt: skip
    tab = Tab(people.build, desk)
    shown = tab.load()
    assert "alert(" in shown["comment-table"] and "alert(" in shown["tag-chart"]
    for value in shown.values():
        assert ("<script" not in str(value) and "${1}" not in str(value)) or value is shown[
            "comment-tag"
        ]
    found = tab.fire("comment-find", "submit", "GROOVE", people.ANY_TAG)["comment-table"]
    assert "groove" in found and "alert(" in found.split("groove")[0]
    assert (
        "No vote with" in tab.fire("comment-find", "submit", "x%y", people.ANY_TAG)["comment-table"]
    )


def test_an_empty_workspace_says_what_to_do(desk: Services) -> None:
    shown = Tab(people.build, desk).load()
    assert "Add annotators below" in shown["people-summary"] and shown["people-charts"] == ""
    shown = Tab(results.build, desk).load()
    assert "No round yet" in shown["results-charts"] and "too few" in shown["results-summary"]
    assert "let people vote" in shown["leaderboard"] and "No edits yet" in shown["behaviour"]
    desk.store.database.execute("DELETE FROM pairs")
    assert "No pair yet" in Tab(results.build, desk).load()["pair-player"]


def test_dry_runs_are_counted_and_not_drawn() -> None:
    rounds = [{"policy": "policy_v2", "accuracy": 0.6, "accuracy_low": 0.5, "accuracy_high": 0.7,
               "votes": 9, "simulated": dry, "human": None} for dry in (False, True)]  # fmt: skip
    html = results_charts.rounds_html(rounds)
    assert "1 round of dry runs" in html and html.count('class="whisker') == 1
    assert "Nobody has compared policy_v2" in html
    assert "No round yet" in results_charts.rounds_html(rounds[1:])


def test_action_shares_are_of_all_actions_most_used_first() -> None:
    lines = results_charts.action_lines([{"actions": {"KEEP": 6, "CUT": 3, "LOOP": 1}}], [1.0])
    assert [(line.name, list(line.y)) for line in lines[:2]] == [("cut", [0.3]), ("loop", [0.1])]


def test_dots_stand_where_their_values_are_and_names_are_text() -> None:
    dots = [Dot(NASTY, 0.25, 0.0, 0.5), Dot("b", 0.75, 0.5, 1.0, second=0.5), Dot("c", None)]
    root = parse(dot_chart("t", dots, x_label="x", bounds=(0.0, 1.0), reference=(0.5, "half")))
    circles = [float(dot.get("cx", "")) for dot in of_class(root, "dot")]
    (line,) = of_class(root, "reference")
    middle = float(re.findall(r"M([\d.]+)", line.get("d") or "")[0])
    assert middle == pytest.approx(sum(circles) / 2) and circles[0] < middle < circles[1]
    assert len(of_class(root, "whisker")) == 2 and len(of_class(root, "diamond")) == 1
    (diamond,) = of_class(root, "diamond")
    assert float(re.findall(r"M([\d.]+)", diamond.get("d") or "")[0]) == pytest.approx(middle)
    assert "nothing yet" in dot_chart("t", [], x_label="x", about="nothing yet")


def test_a_matrix_has_a_square_for_every_two() -> None:
    root = parse(
        matrix("k", ["a", "b", NASTY], {("b", "a"): (0.5, "κ"), ("a", NASTY): (-0.1, "κ")})
    )
    squares = [item for item in root.iter() if item.tag.endswith("rect")]
    assert len(squares) == 3
    assert [item.get("class") for item in squares] == ["cell", "cell below", "none"]
    many = matrix("k", [f"p{i}" for i in range(20)], {})
    assert "6 more by command" in many and many.count("<rect") == 14 * 13 // 2


def test_levels_are_told_by_height_not_by_colour_alone() -> None:
    from rlhf_core.types import Passage

    actions = [0] * 64
    actions[8], actions[20:22], actions[40] = 7, (6, 6), 8  # quieter, a fade out, louder
    edl = build_edl(actions, grid(), Passage(0, 64)).to_json()
    root = ElementTree.fromstring(drawings.edl_drawing(edl))

    def ends(name: str) -> tuple[float, float]:
        """The heights of a block at its start and at its end."""
        (block,) = of_class(root, f"e-{name}")
        left, right = re.findall(r"V([\d.]+)L[\d.]+ ([\d.]+)", block.get("d") or "")[0]
        return 66 - float(left), 66 - float(right)

    assert ends("quieter")[0] == ends("quieter")[1] < 26
    assert ends("louder")[0] == ends("louder")[1] > 26
    assert ends("fade") == (26, pytest.approx(0, abs=0.1))


def test_a_pair_has_players_for_both_edits_and_the_original() -> None:
    pair = {"pair_id": "p", "title": NASTY, "pool": "random", "votes_a": 2, "votes_b": 1,
            "edit_a": edit("pa", {8: 1}, "policy_v2"),
            "edit_b": edit("pb", {9: 1}, "policy_v3")}  # fmt: skip
    html = pair_html(pair)
    for source in ("/research/media/pa", "/research/media/pb", "/research/original/p"):
        assert f'src="{source}"' in html
    assert "2 for A, 1 for B" in html and "<script" not in html


def test_judges_are_marked_in_the_table() -> None:
    row = {"name": "j", "role": "annotator", "votes": 0, "simulated": 3, "can_sign_in": False}
    assert "judge" in people_charts.people_table([row])
    assert "Add an annotator" in people_charts.people_table([])
