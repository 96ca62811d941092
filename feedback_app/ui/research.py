"""The researcher's page: one tab per job, each built by its own module.

A tab's `build` returns a `Loader`; the first tab is filled when the page loads, the others when
they are opened, so that a page load stays cheap and what a tab shows is never older than its
opening. The page keeps no state of its own: a reload shows the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from feedback_app.ui import data, dry_run, library, people, results, text, train, versions
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.text import Html

TABS: tuple[tuple[str, str, Callable[[Any, Guard], Loader]], ...] = (
    ("Train", "train", train.build),
    ("Versions", "versions", versions.build),
    ("Dry run", "dry-run", dry_run.build),
    ("Library", "library", library.build),
    ("Results", "results", results.build),
    ("People", "people", people.build),
    ("Data", "data", data.build),
)
STYLES = ("research.css", "versions.css")


def build(operations: Any, settings: Any = None) -> gr.Blocks:
    """The page. Mount it with `ui/theme.py`'s theme, css and head and with an `auth_dependency`.

    operations: `feedback_app.operations.Operations`, or what answers like it.
    """
    guard = Guard(operations)
    here = Path(__file__)
    style = "\n".join(here.with_name(name).read_text(encoding="utf-8") for name in STYLES)
    with gr.Blocks(title="Research · audio editor", fill_width=True) as page:
        # gr.HTML as a carrier: the page brings its own styles, whoever mounts it
        gr.HTML(f"<style>{style}</style>", elem_classes="fa-style")
        header = gr.HTML(_header({}), elem_id="research-header")
        with gr.Tabs(elem_id="research-tabs", elem_classes="fa-tabs"):
            built = []
            for title, name, make in TABS:
                with gr.Tab(title, id=name, elem_id=f"tab-{name}") as tab:
                    built.append((tab, make(operations, guard)))

        def overview() -> dict[Any, Any]:
            return {header: _header(operations.pairs_overview())}

        page.load(guard(overview), None, [header], show_progress="hidden")
        first = built[0][1]
        page.load(first.handler, first.inputs, first.outputs, show_progress="hidden")
        for tab, loader in built:
            tab.select(loader.handler, loader.inputs, loader.outputs, show_progress="hidden")
            tab.select(guard(overview), None, [header], show_progress="hidden")
    built_page: gr.Blocks = page
    return built_page


def _header(pairs: dict[str, Any]) -> Html:
    """What the page is, how many pairs wait for votes, and the ways elsewhere."""
    counts = ""
    if pairs:
        waiting, done = int(pairs.get("open") or 0), int(pairs.get("done") or 0)
        counts = text.join(
            text.chip(f"{text.plural(waiting, 'pair')} waiting for votes", "info"),
            text.chip(f"{done:,} judged", "plain"),
        )
    return Html(
        '<header class="fa-top"><div><h1>Research</h1>'
        f'<span class="fa-chips">{counts}</span></div><nav>'
        '<a href="/annotate">Annotate</a>'
        '<form method="post" action="/logout"><button type="submit">Sign out</button></form>'
        "</nav></header>"
    )
