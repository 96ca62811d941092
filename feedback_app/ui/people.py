"""The People tab: who votes, how much, and who may sign in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from feedback_app.ui import text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.text import Html, esc


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(text.heading("People", "Annotators listen and vote. Researchers see this page."))
    table = gr.HTML(elem_id="people-table")
    with gr.Row(equal_height=False, elem_classes="fa-steps"):
        with gr.Column(elem_classes="fa-panel", min_width=280):
            gr.HTML(text.heading("Add somebody"))
            name = gr.Textbox(label="Name", elem_id="user-name", max_lines=1)
            role = gr.Radio(
                ["annotator", "researcher"], value="annotator", label="Role", elem_id="user-role"
            )
            add = gr.Button("Add", variant="primary", elem_id="add-user")
            added = gr.HTML(elem_id="user-added")
        with gr.Column(elem_classes="fa-panel", min_width=280):
            gr.HTML(text.heading("Somebody's account"))
            who = gr.Dropdown([], label="Name", elem_id="disable-name")
            reset = gr.Button("New password", elem_id="reset-password")
            with gr.Row():
                disable = gr.Button("Disable", variant="stop", elem_id="disable-user")
                enable = gr.Button("Allow again", elem_id="enable-user")
            said = gr.HTML(elem_id="people-message")
    shown = [table, who]

    def people() -> dict[Any, Any]:
        rows = operations.list_annotators()
        names = [row["name"] for row in rows if row.get("can_sign_in", True)]
        return {table: people_table(rows), who: gr.Dropdown(choices=names)}

    def load() -> dict[Any, Any]:
        # a password that was shown once is gone after leaving the tab
        return people() | {added: "", said: ""}

    def create(wanted: str | None, wanted_role: str) -> dict[Any, Any]:
        if not (wanted or "").strip():
            return {added: text.notice("Give a name.", "warn")}
        made = operations.add_user(str(wanted).strip(), wanted_role)
        return people() | {added: password_note(made), name: ""}

    def new_password(chosen: str | None) -> dict[Any, Any]:
        if not chosen:
            return {said: text.notice("Choose a name first.", "warn")}
        return {said: password_note(operations.set_password(chosen))}

    def switch(disabled: bool) -> Any:
        def handler(chosen: str | None) -> dict[Any, Any]:
            if not chosen:
                return {said: text.notice("Choose a name first.", "warn")}
            operations.set_disabled(chosen, disabled)
            words = "can no longer sign in; the votes stay" if disabled else "may sign in again"
            return people() | {said: text.notice(f"{chosen} {words}.", "good")}

        return handler

    add.click(guard(create), [name, role], [*shown, added, name])
    name.submit(guard(create), [name, role], [*shown, added, name])
    reset.click(guard(new_password), [who], [said])
    disable.click(guard(switch(True)), [who], [*shown, said])
    enable.click(guard(switch(False)), [who], [*shown, said])
    return Loader(guard(load), [*shown, added, said])


def password_note(made: Mapping[str, Any]) -> Html:
    """The new password, shown this once."""
    return Html(
        '<div class="fa-notice fa-good" role="status">'
        f"<b>{esc(made['name'])}</b> can sign in with the password "
        f'<code class="fa-secret">{esc(made["password"])}</code>. '
        "It is shown only now: pass it on.</div>"
    )


def people_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Everybody with their votes; those of judges (programs) are counted apart."""
    if not rows:
        return text.empty("Nobody yet. Add an annotator below.")
    headers = ("Name", "Role", "Votes", "Simulated votes", "Last vote", "State")
    return text.table(headers, [_row(row) for row in rows])


def _row(row: Mapping[str, Any]) -> list[object]:
    simulated = int(row.get("simulated") or 0)
    state = text.chip("can sign in", "good")
    if row.get("disabled"):
        state = text.chip("disabled", "bad")
    elif not row.get("can_sign_in", True):
        state = text.chip("judge" if simulated else "imported", "warn" if simulated else "plain")
    return [
        Html(f"<b>{esc(row['name'])}</b>"),
        row.get("role"),
        text.number(int(row.get("votes") or 0)),
        text.number(simulated),
        text.when(row.get("last_vote")),
        state,
    ]
