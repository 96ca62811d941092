"""Versions of the policy and of the reward model as cards, and the buttons that decide on them.

`panel` is the lower half of the Train tab.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.ui import charts, runs, text
from feedback_app.ui.guard import Guard
from feedback_app.ui.text import Html, esc

TONES = {
    "active": "good",
    "proposed": "info",
    "available": "plain",
    "rejected": "bad",
    "retired": "plain",
}


class Versions(NamedTuple):
    """The components of the panel and what fills them."""

    load: Callable[[], dict[Any, Any]]
    outputs: list[Any]


def _details(row: Mapping[str, Any]) -> Html:
    """Everything else that the version knows about itself, folded."""
    metrics = row.get("metrics") or {}
    rest: dict[str, object] = {
        text.label(key): text.number(value, 3) if charts.is_real(value) else value
        for key, value in metrics.items()
        if isinstance(value, (int, float, str)) and not key.endswith(("_low", "_high"))
    }
    lineage = {
        "Made by run": row.get("run_id"),
        "Snapshot": row.get("snapshot"),
        "Checkpoint": row.get("path"),
    }
    rest |= {name: value for name, value in lineage.items() if value}
    inside = text.join(
        runs.win_chart(metrics), accuracy_chart(metrics), text.facts(rest) if rest else ""
    )
    if not inside:
        return Html("")
    return Html(f"<details><summary>Lineage and figures</summary>{inside}</details>")


def _card(
    row: Mapping[str, Any],
    chips: Sequence[str],
    lines: Mapping[str, object],
    figures: Mapping[str, object],
) -> Html:
    metrics = row.get("metrics") or {}
    status = str(row.get("status", ""))
    return Html(
        f'<article class="fa-card fa-is-{esc(status)}" data-version="{esc(row["version"])}">'
        f"<header><h3>{esc(row['version'])}</h3>{text.chip(status, TONES.get(status, 'plain'))}"
        f"{''.join(chips)}</header>{text.facts(lines)}"
        f"{text.figures(figures) if figures else ''}"
        f"{runs.verdict(metrics)}{_details(row)}</article>"
    )


def policy_card(row: Mapping[str, Any]) -> Html:
    """One policy version."""
    chips = [text.chip(row["algorithm"])] if row.get("algorithm") else []
    metrics = row.get("metrics") or {}
    if metrics.get("simulated"):
        chips.append(text.chip("dry run", "warn"))
    lines = {
        "Parent": row.get("parent") or "none: the first policy",
        "Reward model": row.get("reward_model") or text.DASH,
        "Created": text.when(row.get("created_at")),
    }
    return _card(row, chips, lines, runs.headline(metrics, reward=False))


def reward_card(row: Mapping[str, Any]) -> Html:
    """One reward model version."""
    chips = [text.chip("synthetic votes", "warn")] if row.get("synthetic") else []
    metrics = row.get("metrics") or {}
    lines: dict[str, object] = {
        "Votes": text.number(row.get("n_votes")),
        "Created": text.when(row.get("created_at")),
    }
    if charts.is_real(metrics.get("ceiling")):
        asked = metrics.get("ceiling_from") == "agreement"
        whose = "how often two people agree" if asked else "people's own repeats"
        lines["Ceiling"] = f"{text.percent(metrics['ceiling'])}, by {whose}"
    if metrics.get("evaluated_on"):
        lines["Judged on"] = metrics["evaluated_on"]
    if best := best_baseline(metrics):
        lines["Best baseline"] = f"{best[0]}, {best[1]}"
        if charts.is_real(metrics.get("accuracy")) and metrics["accuracy"] <= best[2]:
            chips.append(text.chip("not better than a baseline", "warn"))
    return _card(row, chips, lines, runs.headline(metrics, reward=True))


def best_baseline(metrics: Mapping[str, Any]) -> tuple[str, str, float] | None:
    """The best of what a reward model has to beat: name, accuracy in words, accuracy."""
    found = [
        (float(row["accuracy"]), name, row)
        for name, row in (metrics.get("baselines") or {}).items()
        if isinstance(row, Mapping) and charts.is_real(row.get("accuracy"))
    ]
    if not found:
        return None
    value, name, row = max(found, key=lambda item: item[0])
    words = text.interval(value, row.get("accuracy_low"), row.get("accuracy_high"))
    return text.label(name).lower(), words, value


def accuracy_chart(metrics: Mapping[str, Any]) -> Html:
    """A reward model's accuracy among its baselines."""
    rows = {"this model": metrics} | dict(metrics.get("baselines") or {})
    bars = [
        charts.Bar(
            text.label(name),
            row.get("accuracy"),
            row.get("accuracy_low"),
            row.get("accuracy_high"),
            colour=0 if row is metrics else 7,
        )
        for name, row in rows.items()
        if isinstance(row, Mapping)
    ]
    if len(bars) < 2:
        return Html("")
    return charts.bar_chart(
        "Accuracy against baselines",
        bars,
        x_label="share of held-out votes right",
        bounds=(0.0, 1.0),
        reference=(0.5, "chance"),
        as_percent=True,
    )


def cards(rows: Sequence[Mapping[str, Any]], card: Callable[[Mapping[str, Any]], Html]) -> Html:
    """Cards, newest first."""
    if not rows:
        return text.empty("No version yet.")
    ordered = sorted(rows, key=lambda row: str(row.get("created_at") or ""), reverse=True)
    return Html(f'<div class="fa-cards">{"".join(card(row) for row in ordered)}</div>')


def panel(operations: Any, guard: Guard) -> Versions:
    """Build the cards and their buttons at the place where it is called."""
    gr.HTML(
        text.heading(
            "Versions",
            "A trained policy is proposed, not installed: promote it when its figures, and your "
            "ears, say that it is better.",
        )
    )
    with gr.Row(elem_classes="fa-row"):
        choice = gr.Dropdown([], label="Policy version", elem_id="promote-version", scale=2)
        promote = gr.Button("Promote", variant="primary", elem_id="promote", scale=1)
        reject = gr.Button("Reject", elem_id="reject", scale=1)
        back = gr.Button("Roll back", elem_id="roll-back", scale=1)
    said = gr.HTML(elem_id="version-message")
    policies = gr.HTML(elem_id="policy-versions")
    gr.HTML(text.heading("Reward models", "Accuracy is on votes about songs that were held out."))
    rewards = gr.HTML(elem_id="reward-versions")
    outputs = [choice, policies, rewards, said]

    def load() -> dict[Any, Any]:
        found = operations.list_policies()
        names = [row["version"] for row in found]
        proposed = [row["version"] for row in found if row.get("status") == "proposed"]
        active = [row["version"] for row in found if row.get("status") == "active"]
        value = (proposed or active or names or [None])[-1]
        return {
            choice: gr.Dropdown(choices=names, value=value),
            policies: cards(found, policy_card),
            rewards: cards(operations.list_reward_models(), reward_card),
        }

    def decide(action: Callable[[str], Any], words: str) -> Callable[[str | None], dict[Any, Any]]:
        def handler(version: str | None) -> dict[Any, Any]:
            if not version:
                return {said: text.notice("Choose a policy version first.", "warn")}
            action(version)
            return load() | {said: text.notice(f"{version} {words}.", "good")}

        return handler

    def roll_back() -> dict[Any, Any]:
        operations.roll_back()
        active = [r["version"] for r in operations.list_policies() if r.get("status") == "active"]
        now = active[-1] if active else "nothing"
        return load() | {said: text.notice(f"Rolled back: {now} is active again.", "good")}

    taken = decide(operations.promote, "is active: new pairs come from it")
    promote.click(guard(taken), [choice], outputs)
    reject.click(guard(decide(operations.reject, "is rejected")), [choice], outputs)
    back.click(guard(roll_back), None, outputs)
    return Versions(load, outputs[:3])
