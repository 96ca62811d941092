"""The SQL box of the Data tab: one SELECT over a snapshot of the votes, as a table and as CSV."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import gradio as gr

from feedback_app.ui import text
from feedback_app.ui.data_views import download, result_table
from feedback_app.ui.guard import Guard
from feedback_app.ui.text import Html, esc

FIRST = """SELECT annotator, count(*) AS votes, round(avg(response_ms) / 1000, 1) AS seconds,
       round(avg((choice IN ('tie', 'both_bad'))::INT), 2) AS undecided
FROM votes GROUP BY annotator ORDER BY votes DESC"""
EXAMPLES = {
    "Who votes how": FIRST,
    "Wins between versions": """SELECT policy_a, policy_b, count(*) AS votes,
       count(*) FILTER (choice = 'a') AS wins_a, count(*) FILTER (choice = 'b') AS wins_b
FROM votes WHERE policy_a <> policy_b AND pool NOT IN ('repeat', 'gold') GROUP BY ALL""",
    "Pairs that people disagree on": """SELECT pair_id, song_title, for_a, for_b, ties, agreement
FROM pairs WHERE agreement < 0.7 ORDER BY n_votes DESC""",
    "What versions do": """SELECT policy, action, round(count(*) / sum(count(*)) OVER
       (PARTITION BY policy), 3) AS share FROM beats GROUP BY ALL ORDER BY policy, share DESC""",
    "The columns": "DESCRIBE all_votes",
}
ABOUT = (
    "DuckDB's SQL over a copy of the votes: votes (of people), all_votes (simulated ones too), "
    "pairs, edits, beats. Nothing else is in reach, and nothing is changed."
)


def build(operations: Any, guard: Guard) -> list[Any]:
    """Build the box where it is called; what a load of the tab sets is returned (nothing yet)."""
    with gr.Column(elem_classes="fa-panel"):
        gr.HTML(text.heading("Ask in SQL", ABOUT))
        with gr.Row(elem_classes="fa-row"):
            example = gr.Dropdown(
                list(EXAMPLES), value=next(iter(EXAMPLES)), label="An example to begin with",
                elem_id="sql-example", scale=2,
            )  # fmt: skip
            ask = gr.Button("Ask", variant="primary", elem_id="sql-ask", scale=1)
        query = gr.Code(FIRST, language="sql", label="Query", lines=4, elem_id="sql-query")
        answer = gr.HTML(elem_id="sql-answer")

    def pick(name: str) -> dict[Any, Any]:
        return {query: EXAMPLES.get(name, FIRST), answer: ""}

    def run(asked: str | None) -> dict[Any, Any]:
        return {answer: answer_html(operations.sql(asked or ""))}

    example.input(guard(pick), [example], [query, answer], show_progress="hidden")
    ask.click(guard(run), [query], [answer])
    return []


def answer_html(found: dict[str, Any]) -> Html:
    """Rows, how many there are, the CSV and which snapshot they are of."""
    name = PurePath(str(found["csv"])).name
    count, shown = int(found["count"]), len(found["rows"])
    words = f"{'more than ' if found['more'] else ''}{text.plural(count, 'row')}"
    words += f", the first {shown} shown" if shown < count else ""
    line = (
        f'<p class="fa-quiet">{esc(words)} · {esc(found["seconds"])} s · '
        f"{download(name, 'as CSV')} · snapshot <code>{esc(str(found['snapshot'])[:12])}</code></p>"
    )
    return text.join(result_table(found["columns"], found["rows"]), Html(line))
