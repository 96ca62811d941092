"""The same by command: what a person would type for each button of the Train tab, kept up to date
with the settings, so that it can be copied into a script.
"""

from __future__ import annotations

import shlex
from typing import Any

import gradio as gr

from feedback_app.settings import POLICY_STEPS
from feedback_app.ui.guard import Guard

APP = ("python", "-m", "feedback_app")
DEFAULTS = {
    "algorithm": "ppo", "total_steps": POLICY_STEPS, "learned_weight": 0.8, "dense_weight": 0.2,
    "device": "cpu", "seed": 0,
}  # fmt: skip


def policy_arguments(
    algorithm: str,
    total_steps: float,
    learned_weight: float,
    dense_weight: float,
    reward_model: str | None,
    on_votes: bool,
    device: str,
    seed: float,
) -> dict[str, Any]:
    """The arguments of `operations.train_policy` from the values of the inputs."""
    return {
        "algorithm": algorithm,
        "total_steps": int(total_steps or 0),
        "learned_weight": float(learned_weight),
        "dense_weight": float(dense_weight),
        "device": (device or "cpu").strip(),
        "seed": int(seed or 0),
        "reward_model": reward_model or None,
        "on_votes": bool(on_votes),
    }


def lines(
    include_simulated: bool, reward_seed: int, policy: dict[str, Any], count: int, versus: str
) -> str:
    """The four commands as shell text; what is left at its default is left out.

    policy: the arguments of `operations.train_policy`.
    """
    reward = _flag("include-simulated", include_simulated) + option("seed", reward_seed, 0)
    chosen = [
        word
        for name, default in DEFAULTS.items()
        for word in option(name.replace("_", "-"), policy[name], default)
    ] + _flag("on-votes", policy["on_votes"])
    made = [*option("count", count, None), *option("versus", versus, "")]
    told = (
        ["retrain-reward", *reward],
        ["train-policy", *chosen, *option("reward-model", policy["reward_model"], None)],
        ["pairs", "generate", *made],
        ["round", *_flag("include-simulated", include_simulated), *chosen],
    )
    return "\n".join(shlex.join([*APP, *words]) for words in told)


def option(name: str, value: Any, default: Any) -> list[str]:
    """The words of one option; none where it has its default."""
    if value == default or value is None:
        return []
    return [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]


def _flag(name: str, on: bool) -> list[str]:
    return [f"--{name}"] if on else []


def panel(guard: Guard, settings: Any, pairs: tuple[Any, Any]) -> None:
    """Build it where it is called. settings: `train.Settings`; pairs: how many, against what."""
    with gr.Accordion("The same by command", open=False, elem_id="by-command"):
        code = gr.Code(
            lines(
                False,
                0,
                policy_arguments("ppo", POLICY_STEPS, 0.8, 0.2, None, False, "cpu", 0),
                20,
                "",
            ),
            language="shell",
            label="Run in the workspace's folder; a running app is used",
            interactive=False,
            wrap_lines=True,
            elem_id="commands",
            buttons=["copy"],
        )

    def tell(include: bool, reward_seed: float, *rest: Any) -> dict[Any, Any]:
        *policy, count, versus = rest
        said = lines(
            bool(include), int(reward_seed or 0), policy_arguments(*policy), int(count or 0),
            versus or "",
        )  # fmt: skip
        return {code: said}

    inputs = [*settings, *pairs]
    gr.on(
        [part.change for part in inputs], guard(tell), inputs, [code],
        queue=False, show_progress="hidden",
    )  # fmt: skip
