"""What the Data tab shows, as HTML: previews, links, reports. Everything in it is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from feedback_app.importing import KNOWN
from feedback_app.ui import actions, runs, text
from feedback_app.ui.text import Html, esc

SHOWN_REJECTS = 50
CELL = 48  # characters of a value in the preview
DOWNLOADS = "/research/download/"


def rounds_choices(count: int) -> list[tuple[str, int]]:
    """Rounds by number; the first ends with the first trained version."""
    return [
        (f"{number} (before any trained version)" if number == 1 else str(number), number)
        for number in range(1, count + 1)
    ]


def preview_table(found: Mapping[str, Any]) -> Html:
    """How many votes an export would hold, and its first rows."""
    votes, columns, rows = int(found["votes"]), found["columns"], found["rows"]
    chosen = text.heading("Preview", f"{text.plural(votes, 'vote')} chosen; the first rows:")
    if not rows:
        why = "No vote fits these filters." if not votes else "None of them fits this form."
        return text.join(text.heading("Preview"), text.empty(why))
    head = "".join(
        f'<th scope="col" title="{esc(column["about"])}">{esc(column["name"])}</th>'
        for column in columns
    )
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row[column['name']])}</td>" for column in columns) + "</tr>"
        for row in rows
    )
    table = f'<table class="fa-table fa-cells"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
    return text.join(chosen, Html(f'<div class="fa-scroll" tabindex="0">{table}</table></div>'))


def _cell(value: Any) -> Html:
    if value is None:
        return Html('<span class="fa-quiet">null</span>')
    if isinstance(value, bool):
        return esc_html("true" if value else "false")
    plain = isinstance(value, (str, int, float))
    words = str(value) if plain else json.dumps(value, ensure_ascii=False)
    return esc_html(words if len(words) <= CELL else f"{words[:CELL]}…")


def esc_html(value: object) -> Html:
    return Html(esc(value))


def result_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """The rows of a query."""
    head = "".join(f'<th scope="col">{esc(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    table = f'<table class="fa-table fa-cells"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
    return Html(f'<div class="fa-scroll fa-tall" tabindex="0">{table}</table></div>')


def download(name: str, label: str) -> Html:
    address = esc(f"{DOWNLOADS}{quote(name)}")
    return Html(f'<a href="{address}" download="{esc(name)}"><b>{esc(label)}</b></a>')


def export_link(made: Mapping[str, Any]) -> Html:
    """Where the written export can be fetched, with what proves its content."""
    data, folder = PurePath(str(made["path"])), PurePath(str(made["folder"])).name
    rows = text.plural(int(made["rows"]), "row")
    missing = int(made.get("missing_files") or 0)
    gone = f"; {text.plural(missing, 'file')} of audio or features not there any more"
    zipped = download(f"{folder}.zip", "everything as a zip")
    return Html(
        '<div class="fa-notice fa-good" role="status">'
        f"<p>{download(f'{folder}{data.suffix}', f'Download {folder}{data.suffix}')}</p>"
        f"<p>{download(f'{folder}.README.md', 'dataset card')} · {zipped}</p>"
        f"<p>{esc(rows)}{esc(gone) if missing else ''}</p>"
        f'<p class="fa-hash">sha256 <code>{esc(made["sha256"])}</code></p></div>'
    )


def running(view: Mapping[str, Any]) -> Html:
    """How far an export is, with a button that ends it, or why it ended without a file."""
    shown = runs.status({**view, "results": None})
    if view["state"] in runs.ENDED:
        return shown
    end = actions.button("cancel", view["run_id"], "Cancel this export", kind="stop")
    return text.join(shown, Html(f'<p class="fa-buttons">{end}</p>'))


def import_report(answer: Mapping[str, Any]) -> Html:
    """How many rows went in, and each one that did not with its line and reason."""
    told = list(answer.get("rejected") or [])
    rejected = [row for row in told if not str(row["reason"]).endswith(KNOWN)]
    taken = text.plural(int(answer.get("accepted") or 0), "vote") + " taken in"
    if known := len(told) - len(rejected):
        taken += f", {known:,} left out that {'was' if known == 1 else 'were'} here already"
    if not rejected:
        return text.notice(f"{taken}, nothing rejected.", "good")
    head = text.notice(f"{taken}, {text.plural(len(rejected), 'row')} rejected:", "warn")
    rows = [(row["line"], row["reason"]) for row in rejected[:SHOWN_REJECTS]]
    more = len(rejected) - len(rows)
    rest = Html(f'<p class="fa-quiet">and {more} more</p>') if more else ""
    return text.join(head, text.table(("Line", "Why"), rows), rest)
