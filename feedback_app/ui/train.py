"""The Train tab: start reward and policy training, make pairs, and watch the runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.settings import POLICY_STEPS
from feedback_app.ui import commanding, run_watch, text
from feedback_app.ui.commanding import policy_arguments
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.run_watch import Watch

AUTO = "the active version"


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
    watch = run_watch.panel()

    def choices() -> dict[Any, Any]:
        return _choices(operations, settings, versus)

    def load(picked: str) -> dict[Any, Any]:
        return run_watch.show(operations, watch, picked) | choices() | {said: ""}

    choosers = [settings.reward_model, versus]
    _wire_starts(
        operations,
        guard,
        settings,
        watch,
        said,
        (reward_button, policy_button, pairs_button, round_button),
        (count, versus),
    )
    run_watch.wire(operations, guard, watch, said, choices, choosers)
    return Loader(guard(load), [*watch.shown(), *choosers, said], [watch.picked])


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
    outputs = [*watch.shown(), watch.picked, said]
    policy_inputs = list(settings[2:])

    def started(answer: dict[str, Any], words: str) -> dict[Any, Any]:
        run_id = answer["run_id"]
        shown = run_watch.pick(operations, watch, run_id + run_watch.FOLLOW)
        view = operations.run_view(run_id)
        queued = view["state"] == "queued"
        told = f"Queued, {view.get('message') or 'it will start in its turn'}." if queued else words
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
