"""The People tab: who votes and how well, how much it counts, and who may sign in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from feedback_app.ui import text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.people_charts import (
    changes_table,
    charts_html,
    comments_table,
    effect_html,
    people_table,
    summary_html,
    tags_html,
)
from feedback_app.ui.text import Html, esc

ANY_TAG = "any tag"
FOUND_SHOWN = 30
WITH_ADDRESS = "(name, role) => [name, role, window.location.origin]"  # what annotators open


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(text.heading("People", "Annotators listen and vote. Researchers see this page."))
    summary = gr.HTML(elem_id="people-summary")
    table = gr.HTML(elem_id="people-table")
    drawn = gr.HTML(elem_id="people-charts")
    with gr.Row(equal_height=False, elem_classes="fa-steps"):
        adding = _add_panel()
        account = _account_panel()
    weighing = _weight_panel()
    comments = _comments_panel()
    shown = [summary, table, drawn, account["who"], weighing["who"], weighing["changes"]]

    def people() -> dict[Any, Any]:
        found = operations.people()
        rows = found["people"]
        return {
            summary: summary_html(found),
            table: people_table(rows),
            drawn: charts_html(found),
            account["who"]: gr.Dropdown(
                choices=[row["name"] for row in rows if row.get("can_sign_in", True)]
            ),
            weighing["who"]: gr.Dropdown(choices=[row["name"] for row in rows if row["figures"]]),
            weighing["changes"]: changes_table(found["changes"]),
            comments["tag"]: gr.Dropdown(
                choices=[ANY_TAG, *(row["tag"] for row in found["tags"])], value=ANY_TAG
            ),
            comments["drawn"]: tags_html(found["tags"]),
        }

    def load() -> dict[Any, Any]:
        # a password that was shown once is gone after leaving the tab
        forgotten = (adding["said"], account["said"], weighing["said"])
        newest = comments_table(operations.search_votes(limit=FOUND_SHOWN))
        fresh = {comments["found"]: newest, comments["text"]: ""}
        return people() | dict.fromkeys(forgotten, "") | fresh

    refreshed = [*shown, comments["tag"], comments["drawn"]]
    _on_adding(operations, guard, adding, people, refreshed)
    _on_account(operations, guard, account, people, refreshed)
    _on_weighing(operations, guard, weighing, people, refreshed)
    _on_search(operations, guard, comments)
    said = [adding["said"], account["said"], weighing["said"]]
    return Loader(guard(load), [*refreshed, *said, comments["found"], comments["text"]])


Parts = dict[str, Any]
Fill = Callable[[], dict[Any, Any]]


def _add_panel() -> Parts:
    with gr.Column(elem_classes="fa-panel", min_width=280):
        gr.HTML(text.heading("Invite somebody"))
        name = gr.Textbox(label="Name", elem_id="user-name", max_lines=1)
        role = gr.Radio(
            ["annotator", "researcher"], value="annotator", label="Role", elem_id="user-role"
        )
        address = gr.Textbox(visible=False)
        add = gr.Button("Add", variant="primary", elem_id="add-user")
        said = gr.HTML(elem_id="user-added")
    return {"name": name, "role": role, "address": address, "add": add, "said": said}


def _account_panel() -> Parts:
    with gr.Column(elem_classes="fa-panel", min_width=280):
        gr.HTML(text.heading("Somebody's account"))
        who = gr.Dropdown([], label="Name", elem_id="disable-name")
        reset = gr.Button("New password", elem_id="reset-password")
        with gr.Row():
            disable = gr.Button("Disable", variant="stop", elem_id="disable-user")
            enable = gr.Button("Allow again", elem_id="enable-user")
        said = gr.HTML(elem_id="people-message")
    return {"who": who, "reset": reset, "disable": disable, "enable": enable, "said": said}


def _weight_panel() -> Parts:
    with gr.Column(elem_classes="fa-panel"):
        gr.HTML(
            text.heading(
                "How much somebody counts",
                "0 % leaves the votes out of figures, training and exports; they stay stored.",
            )
        )
        with gr.Row(elem_classes="fa-row"):
            who = gr.Dropdown([], label="Name", elem_id="weight-name")
            weight = gr.Slider(0, 100, value=0, step=5, label="Counts (%)", elem_id="weight-value")
            reason = gr.Textbox(label="Reason (kept)", elem_id="weight-reason", max_lines=1)
        with gr.Row(elem_classes="fa-row"):
            ask = gr.Button("See the effect", elem_id="weight-effect")
            apply = gr.Button("Apply", variant="primary", elem_id="weight-apply")
            undo = gr.Button("Take the last change back", elem_id="weight-undo")
        said = gr.HTML(elem_id="weight-message")
        changes = gr.HTML(elem_id="weight-changes")
    return {"who": who, "weight": weight, "reason": reason, "ask": ask, "apply": apply,
            "undo": undo, "said": said, "changes": changes}  # fmt: skip


def _comments_panel() -> Parts:
    with gr.Column(elem_classes="fa-panel"):
        about = f"Of people's votes, the newest {FOUND_SHOWN} that fit; all of them by command."
        gr.HTML(text.heading("Tags and comments", about))
        with gr.Row(elem_classes="fa-row"):
            wanted = gr.Textbox(
                label="Find (Enter)", placeholder="part of a comment or a tag",
                elem_id="comment-find", max_lines=1,
            )  # fmt: skip
            tag = gr.Dropdown([ANY_TAG], value=ANY_TAG, label="Tag", elem_id="comment-tag")
        drawn = gr.HTML(elem_id="tag-chart")
        found = gr.HTML(elem_id="comment-table")
    return {"text": wanted, "tag": tag, "drawn": drawn, "found": found}


def _on_adding(operations: Any, guard: Guard, parts: Parts, people: Fill, shown: list[Any]) -> None:
    def create(wanted: str | None, role: str, address: str | None) -> dict[Any, Any]:
        if not (wanted or "").strip():
            return {parts["said"]: text.notice("Give a name.", "warn")}
        made = operations.add_user(str(wanted).strip(), role)
        return people() | {parts["said"]: invitation(made, address), parts["name"]: ""}

    inputs = [parts["name"], parts["role"], parts["address"]]
    outputs = [*shown, parts["said"], parts["name"]]
    for event in (parts["add"].click, parts["name"].submit):
        event(guard(create), inputs, outputs, js=WITH_ADDRESS)


def _on_account(
    operations: Any, guard: Guard, parts: Parts, people: Fill, shown: list[Any]
) -> None:
    who, said = parts["who"], parts["said"]

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

    parts["reset"].click(guard(new_password), [who], [said])
    parts["disable"].click(guard(switch(True)), [who], [*shown, said])
    parts["enable"].click(guard(switch(False)), [who], [*shown, said])


def _on_weighing(
    operations: Any, guard: Guard, parts: Parts, people: Fill, shown: list[Any]
) -> None:
    who, weight, said = parts["who"], parts["weight"], parts["said"]

    def ask(chosen: str | None, percent: float) -> dict[Any, Any]:
        if not chosen:
            return {said: text.notice("Choose a name first.", "warn")}
        return {said: effect_html(operations.weight_effect(chosen, percent / 100))}

    def apply(by: str, chosen: str | None, percent: float, reason: str | None) -> dict[Any, Any]:
        if not chosen:
            return {said: text.notice("Choose a name first.", "warn")}
        told = operations.weight_effect(chosen, percent / 100)
        operations.set_weight(chosen, percent / 100, (reason or "").strip() or None, by=by)
        return people() | {said: effect_html(told), parts["reason"]: ""}

    def undo(by: str) -> dict[Any, Any]:
        done = operations.undo_weight(by=by)
        words = f"{done['name']} counts {text.percent(done['weight'])} again."
        return people() | {said: text.notice(words, "good")}

    parts["ask"].click(guard(ask), [who, weight], [said])
    parts["apply"].click(
        guard.named(apply), [who, weight, parts["reason"]], [*shown, said, parts["reason"]]
    )
    parts["undo"].click(guard.named(undo), None, [*shown, said])


def _on_search(operations: Any, guard: Guard, parts: Parts) -> None:
    def search(wanted: str | None, tag: str | None) -> dict[Any, Any]:
        rows = operations.search_votes(
            text=wanted or "", tag=None if tag == ANY_TAG else tag, limit=FOUND_SHOWN
        )
        return {parts["found"]: comments_table(rows)}

    for event in (parts["text"].submit, parts["tag"].input):
        event(guard(search), [parts["text"], parts["tag"]], [parts["found"]])


def password_note(made: Mapping[str, Any]) -> Html:
    """The new password, shown this once."""
    return Html(
        '<div class="fa-notice fa-good" role="status">'
        f"<b>{esc(made['name'])}</b> can sign in with the password "
        f'<code class="fa-secret">{esc(made["password"])}</code>. '
        "It is shown only now: pass it on.</div>"
    )


def invitation(made: Mapping[str, Any], address: str | None) -> Html:
    """The password, and a few lines to send to the person."""
    where = f"{address}/login" if address else "the app's address"
    lines = (
        f"Please help to teach an audio editor: open {where}, sign in as {made['name']} with the "
        f"password {made['password']}, put headphones on, and choose the edit that you like better."
    )
    local = ""
    if address and any(host in address for host in ("//127.0.0.1", "//localhost")):
        local = text.notice(
            "This address works on this machine only: serve with --host 0.0.0.0, or through a "
            "reverse proxy, and send that address.",
            "warn",
        )
    return text.join(
        password_note(made),
        Html(f'<pre class="fa-log fa-invitation" tabindex="0">{esc(lines)}</pre>'),
        local,
    )
