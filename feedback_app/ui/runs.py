"""How a run looks on the page: its state, its figures and its curves, from `run_view`'s dictionary.

Pure functions; nothing here asks for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from feedback_app.ui import charts, text
from feedback_app.ui.text import Html, esc

TONES = {
    "queued": "plain",
    "running": "info",
    "finished": "good",
    "failed": "bad",
    "cancelled": "warn",
}
KINDS = {
    "train-reward": "Reward training",
    "train-rlhf": "Policy training",
    "train-policy": "Policy training",
    "generate": "Making pairs",
    "analyse": "Analysing songs",
    "evaluate": "Evaluation",
    "imitation": "First policy",
}
ENDED = ("finished", "failed", "cancelled")
LOG_LINES = 40


class Curve(NamedTuple):
    """One chart: which keys of metrics.jsonl it draws, and their names."""

    title: str
    y_label: str
    keys: Mapping[str, str]


CURVES = (
    Curve(
        "Reward",
        "reward per edit",
        {"total_reward": "total", "learned_reward": "learned", "dense_reward": "dense"},
    ),
    Curve(
        "Policy loss",
        "loss",
        {"policy_loss": "policy", "loss": "loss", "train_loss": "training"},
    ),
    Curve("Value loss", "loss", {"value_loss": "value"}),
    Curve(
        "Distance from the reference policy",
        "KL in nats",
        {"kl_reference": "to the reference", "approx_kl": "per update"},
    ),
    Curve("Entropy of the policy", "nats per decision", {"entropy": "entropy"}),
    Curve(
        "Accuracy",
        "share of votes right",
        {
            "accuracy": "held-out votes",
            "train_accuracy": "training votes",
            "implicit_accuracy": "implicit reward",
        },
    ),
    Curve(
        "Log-loss",
        "nats per vote",
        {"log_loss": "held-out votes", "val_loss": "held-out votes", "train_log_loss": "training"},
    ),
    Curve(
        "Health of the updates",
        "share",
        {
            "explained_variance": "explained variance",
            "clip_fraction": "clipped decisions",
            "clamped_share": "clamped rewards",
        },
    ),
    Curve("Margins", "log-probability", {"margin": "chosen over rejected"}),
)


def kind_name(kind: object) -> str:
    return KINDS.get(str(kind), text.label(str(kind).replace("-", " ")))


def run_label(run: Mapping[str, Any]) -> str:
    """A run in the picker's list."""
    started = text.when(run.get("created_at"))
    return f"{kind_name(run.get('kind'))} · {run.get('state')} · {started} · {run['run_id']}"


def status(view: Mapping[str, Any] | None) -> Html:
    """State, bar, time left, message and, where it failed, why."""
    if view is None:
        return text.empty("No run yet. Start one above: it appears here and goes on by itself.")
    state = str(view.get("state"))
    share = min(max(float(view.get("progress") or 0.0), 0.0), 1.0)
    left = view.get("eta_s")
    rest = f"{text.duration(left)} left" if state == "running" and left is not None else ""
    line = " · ".join(part for part in (str(view.get("message") or ""), rest) if part)
    error = text.notice(view.get("error"), "bad")
    chip = text.chip(state, TONES.get(state, "plain"))
    style = f"width:{100 * share:.1f}%"
    return Html(
        f'<div class="fa-run" data-state="{esc(state)}"><div class="fa-run-head">'
        f"<strong>{esc(kind_name(view.get('kind')))}</strong>{chip}"
        f'<span class="fa-run-id">{esc(view.get("run_id"))}</span></div>'
        f'<div class="fa-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}"><i class="fa-{esc(state)}" style="{style}"></i>'
        f"</div><p><b>{100 * share:.0f} %</b> {esc(line)}</p>{error}{results(view)}</div>"
    )


def results(view: Mapping[str, Any]) -> Html:
    """The figures that a finished run ended with."""
    found = view.get("results") or {}
    metrics = found.get("metrics") if isinstance(found, Mapping) else None
    if not isinstance(metrics, Mapping) or not metrics:
        return Html("")
    return text.figures(headline(metrics))


def headline(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The figures worth large type, in words, of a reward model's or a policy's metrics."""
    shown: dict[str, str] = {}
    for key, name in (("accuracy", "held-out accuracy"), ("win_rate", "win rate, by the reward")):
        if charts.is_real(metrics.get(key)):
            shown[name] = text.interval(
                metrics[key], metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
            )
    for key, name, digits in (
        ("log_loss", "log-loss", 3),
        ("ece", "calibration error", 3),
        ("n_votes", "votes", 0),
        ("n_songs", "songs", 0),
        ("total_reward", "total reward", 2),
        ("learned_reward", "learned reward", 2),
        ("dense_reward", "dense reward", 2),
        ("keep_ratio", "beats kept", 2),
    ):
        if charts.is_real(metrics.get(key)):
            shown[name] = text.number(metrics[key], digits)
    return shown


def curves(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Every chart of CURVES for which the run has written figures."""
    drawn = [chart for curve in CURVES if (chart := _curve(curve, rows))]
    if not drawn:
        return Html("")
    return Html(f'<div class="fa-charts">{"".join(drawn)}</div>')


def _curve(curve: Curve, rows: Sequence[Mapping[str, Any]]) -> str:
    lines: dict[str, charts.Series] = {}
    stepped = any("step" in row for row in rows)
    for key, name in curve.keys.items():
        points = [
            (float(row["step"]) if "step" in row else float(i), row[key])
            for i, row in enumerate(rows)
            if charts.is_real(row.get(key))
        ]
        if points and name not in lines:
            lines[name] = charts.Series(name, [x for x, _ in points], [y for _, y in points])
    if not lines:
        return ""
    return charts.line_chart(
        curve.title,
        list(lines.values()),
        x_label="steps" if stepped else "updates",
        y_label=curve.y_label,
    )


def log(tail: object) -> Html:
    """The last lines of a run's log."""
    lines = tail.splitlines() if isinstance(tail, str) else [str(line) for line in tail or ()]  # type: ignore[attr-defined]
    if not lines:
        return Html('<p class="fa-quiet">The log is empty so far.</p>')
    body = esc("\n".join(lines[-LOG_LINES:]))
    return Html(f'<pre class="fa-log" tabindex="0">{body}</pre>')
