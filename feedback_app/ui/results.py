"""The Results tab: what the loop has learned, which version people like, and any pair to listen to.

Human and simulated votes never share a figure. Every estimate comes with its interval; a note
stands where votes are too few to say anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from feedback_app.ui import text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.pair_view import no_pair, pair_html, pair_label
from feedback_app.ui.results_charts import (
    behaviour_html,
    leaderboard_html,
    rounds_html,
    summary_html,
)
from feedback_app.ui.text import Html

PAIRS_LISTED = 100
ANY = "any version"


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(text.heading("What the loop has learned"))
    summary = gr.HTML(elem_id="results-summary")
    drawn = gr.HTML(elem_id="results-charts")
    gr.HTML(
        text.heading(
            "Policy versions compared by people",
            "From human votes on pairs of two versions, without hidden repeats and gold pairs.",
        )
    )
    board = gr.HTML(elem_id="leaderboard")
    gr.HTML(
        text.heading("What each policy does", "Over a sample of its edits; intervals over edits.")
    )
    behaviour = gr.HTML(elem_id="behaviour")
    gr.HTML(
        text.heading("Listen to any edit", "Both edits of a pair, with what was done to the song.")
    )
    with gr.Column(elem_classes="fa-panel"):
        with gr.Row(elem_classes="fa-row"):
            wanted = gr.Textbox(
                label="Find (Enter)", placeholder="song, version, pair id, pool",
                elem_id="pair-find", max_lines=1,
            )  # fmt: skip
            version = gr.Dropdown([ANY], value=ANY, label="Version", elem_id="pair-version")
        pair = gr.Dropdown([], label="Pair", elem_id="pair-picker")
        player = gr.HTML(elem_id="pair-player")
    with gr.Accordion("Dry runs: votes of judges", open=False, elem_id="dry-results"):
        dry = gr.HTML(elem_id="dry-leaderboard")

    def listed(find: str | None, of: str | None, had: str | None = None) -> dict[Any, Any]:
        """The pairs that fit; the one that was picked stays, where it is among them."""
        rows = operations.find_pairs(
            text=find or "", version=None if of in (None, ANY) else of, limit=PAIRS_LISTED
        )
        ids = [row["pair_id"] for row in rows]
        picked = had if had in ids else next(iter(ids), None)
        choices = [(pair_label(row), row["pair_id"]) for row in rows]
        shown = pair_html(operations.pair_view(picked)) if picked else _none(find, of)
        return {pair: gr.Dropdown(choices=choices, value=picked), player: shown}

    def load(find: str | None, of: str | None, had: str | None) -> dict[Any, Any]:
        found = operations.results()
        versions = [str(row["version"]) for row in found["policy_behaviour"]]
        kept = of if of in versions else ANY
        return {
            summary: summary_html(found),
            drawn: rounds_html(found["rounds"]),
            board: leaderboard_html(
                found["leaderboard"], found["leaderboard_about"], found["covariates"]
            ),
            behaviour: behaviour_html(found["policy_behaviour"]),
            version: gr.Dropdown(choices=[ANY, *versions], value=kept),
            dry: dry_html(found["simulated_leaderboard"], found["simulated_about"]),
        } | listed(find, kept, had)

    def pick(pair_id: str | None) -> dict[Any, Any]:
        return {player: pair_html(operations.pair_view(pair_id)) if pair_id else no_pair()}

    pair.input(guard(pick), [pair], [player], show_progress="hidden")
    for event in (wanted.submit, version.input):
        event(guard(listed), [wanted, version], [pair, player], show_progress="hidden")
    outputs = [summary, drawn, board, behaviour, version, dry, pair, player]
    return Loader(guard(load), outputs, [wanted, version, pair])


def _none(find: str | None, of: str | None) -> Html:
    if (find or "").strip() or of not in (None, ANY):
        return text.empty("No pair fits. Take words out, or choose any version.")
    return no_pair()


def dry_html(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Html:
    """The leaderboard of simulated votes, marked as such."""
    if not rows:
        return text.empty("No dry run yet. Start one on the Train tab before people are asked.")
    return text.join(
        text.notice("Simulated votes by judges: nobody heard these edits.", "warn"),
        leaderboard_html(rows, about),
    )
