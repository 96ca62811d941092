"""What a dry run is asked for: whose taste, how long, and how it answers; also as a command.

The manner of answering is `rlhf_core.manner`'s, one input for each of its parts, so that page and
command offer the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.settings import DRY_RUN_STEPS
from feedback_app.ui.commanding import APP, option
from feedback_app.ui.guard import Guard
from rlhf_core.manner import HELP, Manner

USUAL = asdict(Manner())
# In the order of their inputs; noise stands in view, the others are folded.
FINER = {
    "tie_margin": "Ties", "lapse": "Lapses", "skip": "Can't judge", "side_bias": "Side bias",
    "both_bad": "Both bad",
}  # fmt: skip
WHOLE = ("rounds", "votes", "total_steps", "seed")
DEFAULTS: Mapping[str, Any] = {
    "rounds": 3,
    "votes": 50,
    "total_steps": DRY_RUN_STEPS,
    "seed": 0,
    **USUAL,
}


class Form(NamedTuple):
    """Inputs by the argument of `operations.simulate`, and the button."""

    inputs: dict[str, Any]
    start: gr.Button


def build(judges: Sequence[tuple[str, str]], guard: Guard) -> Form:
    """Build the form where it is called. judges: label and name of each."""
    inputs: dict[str, Any] = {}
    with gr.Column(elem_classes="fa-panel"):
        with gr.Row(elem_classes="fa-row"):
            inputs["judge"] = gr.Dropdown(
                list(judges), value="mixture", label="Judge", elem_id="dry-judge", scale=4,
                min_width=260,
            )  # fmt: skip
            for name, label in (("rounds", "Rounds"), ("votes", "Votes a round")):
                inputs[name] = gr.Number(
                    DEFAULTS[name], label=label, precision=0, elem_id=f"dry-{name}", min_width=120
                )
            inputs["noise"] = gr.Number(
                USUAL["noise"], label="Noise", step=0.1, elem_id="dry-noise", min_width=120
            )
        gr.HTML(
            '<p class="fa-quiet">Noise 0 never errs; 1 gives votes of which about 70 % agree with '
            "the judge's own order, as people's do.</p>"
        )
        with gr.Accordion("More settings", open=False, elem_id="dry-more"):
            _finer(inputs)
        start = gr.Button("Simulate", variant="primary", elem_id="simulate")
        with gr.Accordion("The same by command", open=False, elem_id="dry-by-command"):
            code = gr.Code(
                command(arguments([part.value for part in inputs.values()], list(inputs))),
                language="shell", label="Run in the workspace's folder; a running app is used",
                interactive=False, wrap_lines=True, elem_id="dry-command", buttons=["copy"],
                lines=1,
            )  # fmt: skip

    def tell(*values: Any) -> dict[Any, Any]:
        return {code: command(arguments(values, list(inputs)))}

    parts = list(inputs.values())
    gr.on(
        [part.change for part in parts], guard(tell), parts, [code],
        queue=False, show_progress="hidden",
    )  # fmt: skip
    return Form(inputs, start)


def _finer(inputs: dict[str, Any]) -> None:
    with gr.Row():
        inputs["total_steps"] = gr.Number(
            DEFAULTS["total_steps"], label="PPO steps a round", precision=0, elem_id="dry-steps"
        )
        inputs["seed"] = gr.Number(0, label="Seed", precision=0, elem_id="dry-seed")
    gr.HTML('<p class="fa-quiet">How the judge answers, besides its noise:</p>')
    with gr.Row(elem_classes="fa-row"):
        for name, label in FINER.items():
            inputs[name] = gr.Number(
                USUAL[name], label=label, info=HELP[name].replace("%%", "%"), step=0.01,
                elem_id=f"dry-{name.replace('_', '-')}", min_width=180,
            )  # fmt: skip


def arguments(values: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """The arguments of `operations.simulate`; a number that was emptied is as usual."""
    given = dict(zip(names, values, strict=True))
    return {
        name: value
        if name == "judge"
        else (int if name in WHOLE else float)(DEFAULTS[name] if value is None else value)
        for name, value in given.items()
    }


def unusual(plan: Mapping[str, Any]) -> str:
    """What of a dry run's manner is not as usual, in words; its noise is told anyway."""
    told = [
        f"{label.lower()} {plan[name]:g}"
        for name, label in FINER.items()
        if plan.get(name, USUAL[name]) != USUAL[name]
    ]
    return f" · {', '.join(told)}" if told else ""


def command(wanted: Mapping[str, Any]) -> str:
    """What a person would type for the same dry run; what is as usual is left out."""
    words = [*APP, "simulate"]
    for name, value in wanted.items():
        words += option(name.replace("_", "-"), value, DEFAULTS.get(name))
    return shlex.join(words)
