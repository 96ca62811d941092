"""The Data tab: the preference dataset out, in the forms that other tools read, and votes in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import gradio as gr

from feedback_app.ui import text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.text import Html, esc

FORMATS = (
    ("Parquet: the full record", "parquet"),
    ("CSV: the full record", "csv"),
    ("JSON lines: the full record", "jsonl"),
    ("TRL: chosen and rejected", "trl"),
    ("Chatbot Arena: winner column", "arena"),
)
SHOWN_REJECTS = 50


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(text.heading("Take the data along", "One row per vote, with both edits and the song."))
    with gr.Row(equal_height=False, elem_classes="fa-steps"):
        with gr.Column(elem_classes="fa-panel", min_width=280):
            gr.HTML(text.heading("Export"))
            form = gr.Dropdown(
                list(FORMATS), value="parquet", label="Format", elem_id="export-format"
            )
            simulated = gr.Checkbox(
                False,
                label="With simulated votes",
                info="They are marked as simulated in every row.",
                elem_id="export-simulated",
            )
            export = gr.Button("Export", variant="primary", elem_id="export")
            link = gr.HTML(elem_id="export-link")
        with gr.Column(elem_classes="fa-panel", min_width=280):
            gr.HTML(
                text.heading(
                    "Import votes",
                    "CSV or JSON lines with pair_id, annotator, choice (a, b, tie, both_bad, "
                    "skip) and strength (1–3 or empty).",
                )
            )
            file = gr.File(
                label="Votes file",
                file_types=[".csv", ".jsonl", ".ndjson", ".json"],
                elem_id="import-file",
                height=140,
            )
            report = gr.HTML(elem_id="import-report")

    def write(wanted: str, with_simulated: bool) -> dict[Any, Any]:
        made = operations.export(format=wanted, include_simulated=bool(with_simulated))
        return {link: export_link(made)}

    def read(path: str | None) -> dict[Any, Any]:
        if not path:
            return {report: gr.skip(), file: gr.skip()}
        return {report: import_report(operations.import_votes(str(path))), file: None}

    def load() -> dict[Any, Any]:
        return {link: "", report: ""}

    export.click(guard(write), [form, simulated], [link])
    file.upload(guard(read), [file], [report, file])
    return Loader(guard(load), [link, report])


def export_link(made: Mapping[str, Any]) -> Html:
    """Where the written file can be fetched, with what proves its content."""
    name = PurePath(str(made["path"])).name
    rows = text.plural(int(made["rows"]), "row")
    address = esc(f"/research/download/{quote(name)}")
    return Html(
        '<div class="fa-notice fa-good" role="status">'
        f'<p><a href="{address}" download="{esc(name)}"><b>Download {esc(name)}</b></a></p>'
        f'<p>{esc(rows)}</p><p class="fa-hash">sha256 <code>{esc(made["sha256"])}</code></p></div>'
    )


def import_report(answer: Mapping[str, Any]) -> Html:
    """How many rows went in, and each one that did not with its line and reason."""
    rejected = list(answer.get("rejected") or [])
    taken = text.plural(int(answer.get("accepted") or 0), "vote") + " taken in"
    if not rejected:
        return text.notice(f"{taken}, nothing rejected.", "good")
    head = text.notice(f"{taken}, {text.plural(len(rejected), 'row')} rejected:", "warn")
    rows = [(row["line"], row["reason"]) for row in rejected[:SHOWN_REJECTS]]
    more = len(rejected) - len(rows)
    rest = Html(f'<p class="fa-quiet">and {more} more</p>') if more else ""
    return text.join(head, text.table(("Line", "Why"), rows), rest)
