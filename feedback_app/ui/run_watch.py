"""The watched run of the Train tab: which one is shown, its panels, picking, cancel and resume.

A run is a process of its own; this page only looks at its folder through `operations.run_view`,
once a second. So a reload, a second viewer or a restart of the app changes nothing for it.

Answers may reach the browser in another order than they were given in. Therefore what somebody
asked to see stands in a component of its own (`Watch.picked`) that only starting, picking and
resuming set, never a poll; and every panel carries a mark of what it shows, which the next poll
reads from the page. A late answer shows another run for a second at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.ui import actions, runs, text
from feedback_app.ui.guard import Guard

LISTED = 20  # runs in the picker
FOLLOW = ">"  # behind a run's id: and then the runs of its chain, one after the other
PANELS = ("run-queue", "run-status", "run-curves")
GOING = ("queued", "running")
Row = Mapping[str, Any]


class Watch(NamedTuple):
    """The components that show a run. picked: the run's id, with FOLLOW where its chain is meant;
    empty as long as nobody chose. seen and listed carry to a poll what panels and picker show.
    """

    queue: gr.HTML
    picker: gr.HTML
    status: gr.HTML
    cancel: gr.Button
    resume: gr.Button
    command: gr.Code
    curves: gr.HTML
    log: gr.HTML
    picked: gr.Textbox
    seen: gr.Textbox
    listed: gr.Textbox

    def shown(self) -> list[Any]:
        """What answers may set, but for `picked`."""
        return list(self[:-3])


def panel() -> Watch:
    """Build the components where it is called."""
    queue = actions.panel("run-queue")
    with gr.Column(elem_classes="fa-panel fa-watch"):
        with gr.Row(elem_classes="fa-row"):
            with gr.Column(scale=4, min_width=240):
                picker = actions.panel("run-picker")
            cancel = gr.Button(
                "Cancel", variant="stop", elem_id="cancel-run", scale=1, interactive=False
            )
            resume = gr.Button("Resume", elem_id="resume-run", scale=1, interactive=False)
        status = gr.HTML(runs.status(None), elem_id="run-status")
        curves = gr.HTML(elem_id="run-curves")
        command = gr.Code(
            language="shell",
            label="The command of this run",
            interactive=False,
            wrap_lines=True,
            lines=1,
            max_lines=4,
            elem_id="run-command",
            buttons=["copy"],
        )
        with gr.Accordion("Log", open=False, elem_id="run-details"):
            log = gr.HTML(elem_id="run-log")
        carried = [actions.carrier(name) for name in ("run-picked", "run-seen", "run-listed")]
    return Watch(queue, picker, status, cancel, resume, command, curves, log, *carried)


def chosen(listed: Sequence[Row], picked: str, shown: str = "") -> str | None:
    """The run to show: the picked one, else the shown one, else what goes on or the newest.

    listed: runs, newest first. A run that is followed gives way to the newest of its chain.
    """
    wanted = picked or (shown + FOLLOW if shown else "")
    run_id = wanted.removesuffix(FOLLOW)
    if run_id not in {run["run_id"] for run in listed}:
        going = [run for run in listed if run["state"] == "running"]
        return next((str(run["run_id"]) for run in [*going, *listed]), None)
    after = {run["settings"].get("previous"): str(run["run_id"]) for run in reversed(listed)}
    while wanted.endswith(FOLLOW) and run_id in after:
        run_id = after[run_id]
    return run_id


def show(
    operations: Any,
    watch: Watch,
    picked: str,
    seen: str = "",
    listed: str = "",
    found: Sequence[Row] | None = None,
) -> dict[Any, Any]:
    """What is to change on a page that shows what the marks `seen` and `listed` say.

    found: the runs, where they are known already.
    """
    found = operations.list_runs(LISTED) if found is None else found
    run_id = chosen(found, picked, run_of(listed))
    view = operations.run_view(run_id) if run_id else None
    waiting = operations.queue()
    shown: dict[Any, Any] = {}
    mark = _mark(run_id, [view, waiting])
    if seen != mark:
        shown |= _panels(watch, view, runs.queue(waiting, run_id), mark)
    mark = _mark(run_id, [run["run_id"] for run in found])
    if listed != mark:
        shown[watch.picker] = actions.marked(runs.picker(found, run_id), mark)
    return shown


def _mark(run_id: str | None, state: Any) -> str:
    return f"{run_id or ''}.{hash(json.dumps(state, sort_keys=True, default=str)):x}"


def run_of(mark: str) -> str:
    """The run that a panel with this mark shows; empty where it shows none."""
    return mark.rpartition(".")[0]


def _panels(watch: Watch, view: Row | None, queue: text.Html, mark: str) -> dict[Any, Any]:
    """All about one run but the picker."""
    state = view["state"] if view else ""
    metrics = (view.get("metrics") or []) if view else []
    return {
        watch.queue: actions.marked(queue, mark),
        watch.status: actions.marked(runs.status(view), mark),
        watch.cancel: gr.Button(
            "Take out of the queue" if state == "queued" else "Cancel", interactive=state in GOING
        ),
        watch.resume: gr.Button(interactive=state in ("failed", "cancelled")),
        watch.command: (view["command"] or "# decided when its turn comes") if view else "",
        watch.curves: actions.marked(runs.curves(metrics), mark),
        watch.log: runs.log(view.get("log_tail")) if view else "",
    }


def pick(operations: Any, watch: Watch, picked: str) -> dict[Any, Any]:
    """Look at a run from now on."""
    return show(operations, watch, picked) | {watch.picked: picked}


def wire(
    operations: Any,
    guard: Guard,
    watch: Watch,
    said: gr.HTML,
    choices: Callable[[], dict[Any, Any]],
    choosers: list[Any],
) -> None:
    """Looking on once a second, picking a run, cancel and resume.

    choices: what the components `choosers` offer, asked for anew when a run has ended.
    """
    ended = gr.State("")
    outputs = [*watch.shown(), watch.picked, said]

    def poll(picked: str, seen: str, listed: str, before: str) -> dict[Any, Any]:
        found = operations.list_runs(LISTED)
        done = ",".join(run["run_id"] for run in found if run["state"] in runs.ENDED)
        changed = show(operations, watch, picked, seen, listed, found)
        return changed | ({} if done == before else {ended: done} | choices())

    def act(data: Any, picked: str) -> dict[Any, Any]:
        what, run_id = actions.asked(data)
        if what == "show":
            going = operations.run_view(run_id)["state"] in GOING
            return pick(operations, watch, run_id + (FOLLOW if going else ""))
        return end(run_id, picked) if what == "cancel" else {}

    def cancel(seen: str, picked: str) -> dict[Any, Any]:
        run_id = run_of(seen)
        return end(run_id, picked or run_id) if run_id else {}

    def end(run_id: str, picked: str) -> dict[Any, Any]:
        queued = operations.run_view(run_id)["state"] == "queued"
        operations.cancel_run(run_id)
        words = (
            f"{run_id} is taken out of the queue."
            if queued
            else f"Cancelling {run_id}: it saves what it has learned so far and can be resumed."
        )
        return show(operations, watch, picked) | {said: text.notice(words, "info")}

    def resume(seen: str) -> dict[Any, Any]:
        if not (run_id := run_of(seen)):
            return {}
        again = operations.resume_run(run_id)["run_id"]
        words = (
            "Started again: trainings of a policy go on from their last checkpoint, others anew."
        )
        return pick(operations, watch, again + FOLLOW) | {said: text.notice(words, "good")}

    marks = (actions.seen_js(PANELS, place=1), actions.seen_js(("run-picker",), place=2))
    gr.Timer(1).tick(
        guard(poll),
        [watch.picked, watch.seen, watch.listed, ended],
        [*watch.shown(), ended, *choosers],
        queue=False,
        show_progress="hidden",
        js=f"(...values) => ({marks[1]})(...({marks[0]})(...values))",
    )
    for buttons in (watch.queue, watch.picker):
        buttons.submit(guard.event(act), [watch.picked], outputs, show_progress="hidden")
    status = actions.seen_js(("run-status",), place=0)  # what its buttons stand beside
    watch.cancel.click(
        guard(cancel), [watch.seen, watch.picked], outputs, show_progress="hidden", js=status
    )
    watch.resume.click(guard(resume), [watch.seen], outputs, show_progress="hidden", js=status)
