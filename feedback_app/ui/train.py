"""The Train tab: start reward and policy training, make pairs, and watch the runs.

A run is a process of its own; this page only looks at its folder through `operations.run_view`,
once a second. So a reload, a second viewer or a restart of the app changes nothing for it. The
picked run is the one state of the page: nothing else is remembered here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.settings import POLICY_STEPS
from feedback_app.ui import actions, commanding, runs, text
from feedback_app.ui.commanding import policy_arguments
from feedback_app.ui.guard import Guard, Loader

AUTO = "the active version"
RUNS = 20  # in the picker
WAIT = "wait"
UNSEEN = "?"  # nothing has been polled yet
MARKED = ("run-queue", "run-status", "run-curves")


class Settings(NamedTuple):
    """The inputs of the Train tab. Names are those of the operations' arguments."""

    include_simulated: gr.Checkbox
    reward_seed: gr.Number
    algorithm: gr.Radio
    total_steps: gr.Number
    learned_weight: gr.Slider
    dense_weight: gr.Slider
    reward_model: gr.Dropdown
    on_votes: gr.Checkbox
    device: gr.Textbox
    seed: gr.Number


class Watch(NamedTuple):
    """The components that show the picked run; `seen` carries to a poll what the page shows."""

    queue: gr.HTML
    picker: gr.Dropdown
    status: gr.HTML
    cancel: gr.Button
    resume: gr.Button
    command: gr.Code
    curves: gr.HTML
    log: gr.HTML
    seen: gr.Textbox


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(
        text.heading(
            "Close the loop",
            "Votes train the reward model, the reward model trains the policy, the policy makes "
            "the next pairs.",
        )
    )
    with gr.Row(equal_height=True, elem_classes="fa-steps"):
        reward_button, include, reward_seed = _reward_card()
        policy_button, rest = _policy_card()
        pairs_button, count, versus = _pairs_card()
    round_button = _round_strip()
    settings = Settings(include, reward_seed, *rest)
    commanding.panel(guard, settings, (count, versus))
    said = gr.HTML(elem_id="train-message")
    watch = _watch_panel()

    def load(run_id: str | None) -> dict[Any, Any]:
        shown = _show(operations, watch, run_id, "", polled=True)
        return shown | _choices(operations, settings, versus) | {said: ""}

    outputs = [*_shown_by(watch), settings.reward_model, versus, said]
    _wire_starts(
        operations,
        guard,
        settings,
        watch,
        said,
        (reward_button, policy_button, pairs_button, round_button),
        (count, versus),
    )
    _wire_watch(operations, guard, settings, watch, said, versus)
    return Loader(guard(load), outputs, [watch.picker])


def _reward_card() -> tuple[gr.Button, gr.Checkbox, gr.Number]:
    with gr.Column(elem_classes="fa-panel", min_width=280):
        gr.HTML(text.heading("1 · Reward", "Learn from the votes so far what people prefer."))
        button = gr.Button("Retrain reward", variant="primary", elem_id="retrain-reward")
        with gr.Accordion("More settings", open=False):
            include = gr.Checkbox(
                False, label="Use simulated votes too", info="Off: only what people said counts."
            )
            seed = gr.Number(0, label="Seed", precision=0)
    return button, include, seed


def _policy_card() -> tuple[gr.Button, tuple[Any, ...]]:
    with gr.Column(elem_classes="fa-panel", min_width=280):
        gr.HTML(text.heading("2 · Policy", "Practise editing until the reward model likes it."))
        with gr.Row():
            algorithm = gr.Radio(
                [("PPO", "ppo"), ("DPO", "dpo")],
                value="ppo",
                label="Algorithm",
                elem_id="algorithm",
                min_width=130,
            )
            steps = gr.Number(
                POLICY_STEPS, label="Steps", precision=0, elem_id="steps", min_width=110
            )
        button = gr.Button("Train policy", variant="primary", elem_id="train-policy")
        with gr.Accordion("More settings", open=False):
            learned = gr.Slider(0, 1, 0.8, step=0.05, label="Learned reward weight")
            dense = gr.Slider(0, 1, 0.2, step=0.05, label="Dense reward weight")
            reward = gr.Dropdown(
                [(AUTO, "")], value="", label="Reward model", elem_id="reward-model"
            )
            votes = gr.Checkbox(
                False,
                label="DPO on the votes themselves",
                info="Without it: pairs that the reward model ranks.",
            )
            device = gr.Textbox("cpu", label="Device", info="cpu, cuda:0 …")
            seed = gr.Number(0, label="Seed", precision=0)
    return button, (algorithm, steps, learned, dense, reward, votes, device, seed)


def _pairs_card() -> tuple[gr.Button, gr.Number, gr.Dropdown]:
    with gr.Column(elem_classes="fa-panel", min_width=280):
        gr.HTML(text.heading("3 · Pairs", "New edits for people to compare."))
        with gr.Row():
            count = gr.Number(
                20, label="How many", precision=0, elem_id="pairs-count", min_width=110
            )
            versus = gr.Dropdown(
                [("nothing", "")],
                value="",
                label="Against version",
                elem_id="pairs-versus",
                min_width=130,
            )
        pairs = gr.Button("Make pairs", variant="primary", elem_id="make-pairs")
    return pairs, count, versus


def _round_strip() -> gr.Button:
    with gr.Row(elem_classes="fa-panel fa-strip"):
        gr.HTML(
            '<p class="fa-quiet"><b>A round:</b> retrain the reward, train the policy on it with '
            "the settings above, judge it on unseen songs and render examples. Promoting stays "
            "yours.</p>"
        )
        return gr.Button("Run a round", elem_id="run-round", scale=0, min_width=180)


def _watch_panel() -> Watch:
    queue = actions.panel("run-queue")
    with gr.Column(elem_classes="fa-panel fa-watch"):
        with gr.Row(elem_classes="fa-row"):
            picker = gr.Dropdown([], label="Run", elem_id="run-picker", scale=4)
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
        seen = actions.shown_mark("run-state")
    return Watch(queue, picker, status, cancel, resume, command, curves, log, seen)


def _shown_by(watch: Watch) -> list[Any]:
    """What handlers set: all of it but `seen`, which the browser sets."""
    return list(watch[:-1])


def _show(
    operations: Any, watch: Watch, run_id: str | None, seen: str, *, polled: bool = False
) -> dict[Any, Any]:
    """What the page shows of a run (None: the newest), or {} where nothing has changed.

    seen: the mark of what the page shows. polled: somebody may pick another run while this is on
    its way, so the picker is left alone unless there are other runs to pick from: Gradio's dropdown
    goes by places in its list, and new choices under a click make it another run's.
    """
    listed = operations.list_runs(RUNS)
    known = [run["run_id"] for run in listed]
    going = [run["run_id"] for run in listed if run["state"] == "running"]
    picked = run_id if run_id in known else next(iter([*going, *known]), None)
    view = operations.run_view(picked) if picked else None
    waiting = operations.queue()
    mark = json.dumps([listed, view, waiting], sort_keys=True, default=str)
    ids, digest = f"{hash(tuple(known)):x}", f"{hash(mark):x}"
    if seen == f"{ids}.{digest}":
        return {}
    shown: dict[Any, Any] = {}
    if not polled or picked != run_id or (seen != "" and seen.split(".")[0] != ids):
        choices = [(runs.run_label(run), run["run_id"]) for run in listed]
        moved = not polled or picked != run_id  # else a run just started or picked stays so
        shown[watch.picker] = (
            gr.Dropdown(choices=choices, value=picked) if moved else gr.Dropdown(choices=choices)
        )
    elif not seen:
        ids = ""  # what the picker lists is not known: the next poll sends it
    return shown | _panels(watch, view, runs.queue(waiting, picked), f"{ids}.{digest}")


def _panels(watch: Watch, view: Any, queue: text.Html, digest: str) -> dict[Any, Any]:
    """All about one run but the picker, each panel with the mark of its state."""
    state = view["state"] if view else ""
    metrics = (view.get("metrics") or []) if view else []
    return {
        watch.queue: actions.marked(queue, digest),
        watch.status: actions.marked(runs.status(view), digest),
        watch.cancel: gr.Button(
            "Take out of the queue" if state == "queued" else "Cancel",
            interactive=state in ("queued", "running"),
        ),
        watch.resume: gr.Button(interactive=state in ("failed", "cancelled")),
        watch.command: (view["command"] or "# decided when its turn comes") if view else "",
        watch.curves: actions.marked(runs.curves(metrics), digest),
        watch.log: runs.log(view.get("log_tail")) if view else "",
    }


def _choices(operations: Any, settings: Settings, versus: gr.Dropdown) -> dict[Any, Any]:
    rewards = [row["version"] for row in operations.list_reward_models()]
    policies = [row["version"] for row in operations.list_policies()]
    return {
        settings.reward_model: gr.Dropdown(choices=[(AUTO, ""), *rewards]),
        versus: gr.Dropdown(choices=[("nothing", ""), *policies]),
    }


def _wire_starts(
    operations: Any,
    guard: Guard,
    settings: Settings,
    watch: Watch,
    said: gr.HTML,
    buttons: tuple[gr.Button, ...],
    pair_inputs: tuple[Any, ...],
) -> None:
    """The four buttons that start something."""
    outputs = [*_shown_by(watch), said]
    policy_inputs = list(settings[2:])

    def started(answer: dict[str, Any], words: str) -> dict[Any, Any]:
        run_id = _first_run(answer)
        view = operations.run_view(run_id)
        queued = view["state"] == "queued"
        told = f"Queued, {view.get('message') or 'it will start in its turn'}." if queued else words
        shown = _show(operations, watch, run_id, "")
        return shown | {said: text.notice(told, "info" if queued else "good")}

    def reward(include: bool, seed: float | None) -> dict[Any, Any]:
        answer = operations.retrain_reward(include_simulated=bool(include), seed=int(seed or 0))
        return started(answer, "Reward training has started.")

    def policy(*values: Any) -> dict[Any, Any]:
        answer = operations.train_policy(**policy_arguments(*values))
        return started(answer, "Policy training has started.")

    def pairs(count: float | None, versus: str | None) -> dict[Any, Any]:
        answer = operations.generate_pairs(count=int(count or 0), versus=versus or None)
        return started(answer, "New pairs are being made.")

    def whole_round(include: bool, *values: Any) -> dict[Any, Any]:
        wanted = policy_arguments(*values)
        answer = operations.run_round(include_simulated=bool(include), **wanted)
        return started(answer, "A round has started: the reward first, then the policy.")

    wired: tuple[tuple[Callable[..., Any], list[Any]], ...] = (
        (reward, [settings.include_simulated, settings.reward_seed]),
        (policy, policy_inputs),
        (pairs, list(pair_inputs)),
        (whole_round, [settings.include_simulated, *policy_inputs]),
    )
    for button, (handler, inputs) in zip(buttons, wired, strict=True):
        button.click(guard(handler), inputs, outputs, show_progress="hidden")


def _first_run(answer: dict[str, Any]) -> str | None:
    """The run to look at, of an answer that names one run or several."""
    if "run_id" in answer:
        return str(answer["run_id"])
    ids = answer.get("run_ids") or [v for k, v in answer.items() if k.endswith("run_id")]
    return str(ids[0]) if ids else None


def _follower(operations: Any, run_id: str | None, over: list[str], before: str) -> str | None:
    """The run that goes on where the watched one has just ended, WAIT while it is being made.

    A round is a chain of runs: who watches one of them is taken along to the next.
    """
    if run_id not in over or before == UNSEEN or run_id in before.split(","):
        return None
    view = operations.run_view(run_id)
    if view.get("next_run"):
        return str(view["next_run"])
    return WAIT if view["state"] == "finished" and view.get("steps_left") else None


def _wire_watch(
    operations: Any,
    guard: Guard,
    settings: Settings,
    watch: Watch,
    said: gr.HTML,
    versus: gr.Dropdown,
) -> None:
    """Looking on once a second, picking a run, cancel and resume."""
    timer = gr.Timer(1)
    before = gr.State(UNSEEN)
    shown = _shown_by(watch)

    def poll(run_id: str | None, seen: str, ended: str) -> dict[Any, Any]:
        over = [run["run_id"] for run in operations.list_runs(RUNS) if run["state"] in runs.ENDED]
        followed = _follower(operations, run_id, over, ended)
        if followed == WAIT:
            over.remove(run_id)
        elif followed:
            run_id, seen = followed, ""
        changed = _show(operations, watch, run_id, seen, polled=not followed)
        done = ",".join(over)
        if done != ended:
            changed |= {before: done} | _choices(operations, settings, versus)
        return changed

    def pick(run_id: str | None) -> dict[Any, Any]:
        return _show(operations, watch, run_id, "")

    def cancel(run_id: str | None) -> dict[Any, Any]:
        return end(run_id, run_id) if run_id else {}

    def end(run_id: str, shown: str | None) -> dict[Any, Any]:
        queued = operations.run_view(run_id)["state"] == "queued"
        operations.cancel_run(run_id)
        words = (
            f"{run_id} is taken out of the queue."
            if queued
            else f"Cancelling {run_id}: it saves what it has learned so far and can be resumed."
        )
        return _show(operations, watch, shown, "") | {said: text.notice(words, "info")}

    def act(data: Any, shown: str | None) -> dict[Any, Any]:
        what, run_id = actions.asked(data)
        if what == "show":
            return _show(operations, watch, run_id, "")
        return end(run_id, shown) if what == "cancel" else {}

    def resume(run_id: str | None) -> dict[Any, Any]:
        answer = operations.resume_run(run_id) if run_id else {}
        again = _first_run(answer) if isinstance(answer, dict) else None
        return _show(operations, watch, again or run_id, "") | {
            said: text.notice(
                "Started again: a policy's training goes on from its last checkpoint, others "
                "begin anew.",
                "good",
            )
        }

    timer.tick(
        guard(poll),
        [watch.picker, watch.seen, before],
        [*shown, before, settings.reward_model, versus],
        queue=False,
        show_progress="hidden",
        js=actions.seen_js(MARKED, place=1),
    )
    watch.picker.input(guard(pick), [watch.picker], shown, show_progress="hidden")
    watch.queue.submit(guard.event(act), [watch.picker], [*shown, said], show_progress="hidden")
    watch.cancel.click(guard(cancel), [watch.picker], [*shown, said], show_progress="hidden")
    watch.resume.click(guard(resume), [watch.picker], [*shown, said], show_progress="hidden")
