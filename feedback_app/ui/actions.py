"""Buttons inside HTML: a click becomes an event that says what is to be done and about what.

Cards and lists are one `gr.HTML` each, so their buttons cannot be Gradio's. `panel` makes the
component; its `submit` event carries {"act", "of"} of the button, for a handler that was wrapped by
`Guard.event`. The browser may send anything: a handler looks `act` up in what it knows.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

import gradio as gr

from feedback_app.ui.text import Html, esc

CLICKS = """
element.addEventListener("click", event => {
  const button = event.target.closest("button[data-act]");
  if (button && element.contains(button)) {
    trigger("submit", {act: button.dataset.act, of: button.dataset.of});
  }
});
element.addEventListener("change", event => {
  const list = event.target.closest("select[data-act]");
  if (list && element.contains(list)) trigger("submit", {act: list.dataset.act, of: list.value});
});
"""


def panel(elem_id: str) -> gr.HTML:
    """HTML whose buttons (`button`) send what they are about."""
    return gr.HTML(elem_id=elem_id, js_on_load=CLICKS)


def carrier(elem_id: str) -> gr.Textbox:
    """A value that the browser keeps and nobody sees.

    For the mark of what the page shows (`seen_js`), which is read from the page and not kept in a
    gr.State: answers may arrive in another order than the server gave them, and the mark must go
    with the one that is seen.
    """
    return gr.Textbox("", visible="hidden", elem_id=elem_id, container=False)


def marked(body: Html, mark: str) -> Html:
    """A panel's HTML with the mark of the state that it shows, for `seen_js` to read.

    Every sending differs from the one before, so that one of the same state is drawn again.
    """
    marks = f'data-shown="{esc(mark)}" data-sent="{time.monotonic_ns()}"'
    return Html(f'<div {marks} style="display: contents">{body}</div>')


def seen_js(panels: tuple[str, ...], place: int) -> str:
    """For an event's `js`: puts the mark that all these panels show in place of an input.

    panels: elem_ids of HTML made by `marked`. Where they differ, or one shows nothing yet, the mark
    is empty, and the handler answers with everything: what answers in an unlucky order have mixed
    does not stay mixed.
    """
    return f"""(...values) => {{
      const marks = {json.dumps(panels)}.map(
        id => document.querySelector(`#${{id}} [data-shown]`)?.dataset.shown ?? "");
      values[{place}] = marks.every(mark => mark === marks[0]) ? marks[0] : "";
      return values;
    }}"""


def button(act: str, of: object, label: str, *, kind: str = "plain", why: str = "") -> Html:
    """A button. kind: plain, main or stop. why: it is off, and this is why (shown on hover)."""
    off = f' disabled title="{esc(why)}"' if why else ""
    return Html(
        f'<button type="button" class="fa-button fa-button-{esc(kind)}" data-act="{esc(act)}" '
        f'data-of="{esc(of)}"{off}>{esc(label)}</button>'
    )


def choice(act: str, label: str, options: Sequence[tuple[str, str]], chosen: str | None) -> Html:
    """A list with one chosen; another choice asks for `act` of it. options: (value, label).

    Gradio patches HTML in place, node by node, and a select keeps what somebody chose by its place
    in the list; so another list is an element of another name, which is put in the old one's place.
    """
    rows = "".join(
        f'<option value="{esc(value)}"{" selected" if value == chosen else ""}>{esc(name)}</option>'
        for value, name in options
    )
    name = f"fa-list-{zlib.crc32(rows.encode()):08x}"
    return Html(
        f'<{name}><label class="fa-choice"><span>{esc(label)}</span>'
        f'<select data-act="{esc(act)}" autocomplete="off">{rows}</select></label></{name}>'
    )


def asked(data: Any) -> tuple[str, str]:
    """(act, of) of an event, as text; empty where something else was sent."""
    if not isinstance(data, dict):
        return "", ""
    return str(data.get("act") or ""), str(data.get("of") or "")


def confirm(question: object, act: str, of: object, yes: str) -> Html:
    """A question with the button that does it and one that does not."""
    return Html(
        f'<div class="fa-notice fa-warn fa-confirm" role="alertdialog"><p>{esc(question)}</p>'
        f'<div class="fa-buttons">{button(act, of, yes, kind="stop")}'
        f"{button('dismiss', of, 'No, leave it')}</div></div>"
    )
