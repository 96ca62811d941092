"""The Versions tab: every policy and reward model as a card, with what it came from, how it was
judged, how it sounds, and the buttons that decide on it.

Cards are HTML with buttons (`actions`); what is irreversible, or unlike what a version was made
for, asks first. The server has the last word: a handler only repeats what the operation says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from feedback_app.figures.ceiling import ceiling_of
from feedback_app.ui import actions, charts, comparing, runs, text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.text import Html, esc

TONES = {
    "active": "good",
    "proposed": "info",
    "available": "plain",
    "rejected": "bad",
    "retired": "plain",
}
WATCH_S = 3
SETTING_NAMES = {
    "algorithm": "algorithm",
    "total_steps": "steps",
    "learned_weight": "learned weight",
    "dense_weight": "dense weight",
    "device": "device",
    "on_votes": "on the votes themselves",
    "include_simulated": "with simulated votes",
}
DONE = {
    "promote": "is active now",
    "promote-simulated": "is active now, although it learned from simulated votes",
    "reject": "is rejected",
}


def lineage(row: Mapping[str, Any]) -> Html:
    """What a version came from, line by line."""
    settings = {
        SETTING_NAMES.get(name, name): value
        for name, value in (row.get("settings") or {}).items()
        if value not in (None, False)
    }
    told = ", ".join(
        f"{name} {text.number(value) if charts.is_real(value) else value}"
        if value is not True
        else name
        for name, value in settings.items()
    )
    lines: dict[str, object] = {}
    if "algorithm" in row:
        lines["Parent"] = row.get("parent") or "none: the first policy"
        learned = short_hash(row.get("reward_snapshot"))
        of_votes = text.join(" (votes ", learned, ")") if learned else ""
        lines["Reward model"] = text.join(row.get("reward_model") or text.DASH, of_votes)
    else:
        lines["Votes"] = text.number(row.get("n_votes"))
    rest = {
        "Snapshot": short_hash(row.get("snapshot")),
        "Settings": told,
        "Seed": None if row.get("seed") is None else str(row["seed"]),
        "Code": row.get("code_version"),
        "Run": row.get("run_id"),
    }
    lines |= {name: value for name, value in rest.items() if value}
    return text.facts(lines | {"Created": text.when(row.get("created_at"))})


def short_hash(value: object) -> Html:
    """The first twelve digits of a hash; the whole of it when pointed at."""
    if not value:
        return Html("")
    return Html(f'<code class="fa-hash" title="{esc(value)}">{esc(str(value)[:12])}</code>')


def _buttons(row: Mapping[str, Any]) -> Html:
    """What can be done with a version now."""
    version, status = row["version"], row.get("status")
    active = "it is active" if status == "active" else ""
    dry = f"it belongs to {row['dry_run']}: remove that as a whole" if row.get("dry_run") else ""
    promote = "promote-ask" if row.get("simulated") else "promote"
    label = "Promote …" if row.get("simulated") else "Promote"
    main = "plain" if row.get("simulated") else "main"
    parts = [
        actions.button(promote, version, label, kind=main, why=active),
        actions.button("reject", version, "Reject", why=active or _already(status)),
        actions.button("delete-ask", version, "Delete …", why=active or dry),
    ]
    if row.get("parent"):
        parts.append(actions.button("compare", version, "Compare with parent"))
    return Html(f'<div class="fa-buttons">{"".join(parts)}</div>')


def _already(status: object) -> str:
    return "it is rejected already" if status == "rejected" else ""


def _card(
    row: Mapping[str, Any], chips: Sequence[str], figures: Mapping[str, object], more: Html
) -> Html:
    metrics = row.get("metrics") or {}
    status = str(row.get("status", ""))
    marks = list(chips)
    if row.get("simulated"):
        marks.append(text.chip("simulated votes", "warn"))
    if row.get("dry_run"):
        marks.append(text.chip(row["dry_run"], "warn"))
    return Html(
        f'<article class="fa-card fa-is-{esc(status)}" data-version="{esc(row["version"])}">'
        f"<header><h3>{esc(row['version'])}</h3>{text.chip(status, TONES.get(status, 'plain'))}"
        f"{''.join(marks)}</header>"
        f"{text.figures(figures) if figures else ''}{runs.verdict(metrics)}{more}"
        f"<details><summary>Where it came from</summary>{lineage(row)}</details>"
        f"{_buttons(row)}</article>"
    )


def policy_card(row: Mapping[str, Any], examples: Mapping[str, Any] | None = None) -> Html:
    """One policy version; examples as `operations.examples_of` gives them."""
    chips = [text.chip(row["algorithm"])] if row.get("algorithm") else []
    metrics = row.get("metrics") or {}
    chart = runs.win_chart(metrics)
    more = Html(f"<details><summary>Against baselines</summary>{chart}</details>") if chart else ""
    return _card(
        row,
        chips,
        runs.headline(metrics, reward=False, judged=True),
        text.join(judged_on(metrics), comparing.card_examples(row, examples), more),
    )


def judged_on(metrics: Mapping[str, Any]) -> Html:
    """On how many unseen songs the win rate was measured."""
    if not metrics.get("evaluated_on"):
        return Html("")
    songs, what = metrics.get("songs"), str(metrics["evaluated_on"])
    many = f"{songs} {what[:-1] if songs == 1 else what}" if isinstance(songs, int) else what
    return Html(f'<p class="fa-quiet">Judged on {esc(many)}.</p>')


def reward_card(row: Mapping[str, Any]) -> Html:
    """One reward model version."""
    metrics = row.get("metrics") or {}
    chips = []
    if row.get("synthetic") and not row.get("simulated"):
        chips.append(text.chip("synthetic edits, no votes"))
    lines: dict[str, object] = {}
    if charts.is_real(metrics.get("ceiling")):
        most = ceiling_of(metrics)
        share = text.interval(most["ceiling"], most["ceiling_low"], most["ceiling_high"])
        lines["Ceiling"] = f"{share}, by {most['ceiling_from'] or 'repeats'}"
    if metrics.get("evaluated_on"):
        lines["Judged on"] = metrics["evaluated_on"]
    if best := best_baseline(metrics):
        lines["Best baseline"] = f"{best[0]}, {best[1]}"
        if charts.is_real(metrics.get("accuracy")) and metrics["accuracy"] <= best[2]:
            chips.append(text.chip("not better than a baseline", "warn"))
    chart = accuracy_chart(metrics)
    drawn = Html(f"<details><summary>Against baselines</summary>{chart}</details>") if chart else ""
    more = text.join(text.facts(lines) if lines else "", drawn)
    return _card(row, chips, runs.headline(metrics, reward=True), more)


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
    """Cards: the active one first, then newest first, rejected ones last; dry runs' apart."""
    if not rows:
        return text.empty("No version yet.")
    newest = sorted(rows, key=lambda row: str(row.get("created_at") or ""), reverse=True)
    places = {"active": 0, "rejected": 2}
    ordered = sorted(newest, key=lambda row: places.get(str(row.get("status")), 1))
    own = [card(row) for row in ordered if not row.get("dry_run")]
    dry = [card(row) for row in ordered if row.get("dry_run")]
    parts = [_grid(own)]
    if dry:
        title = f"From dry runs: simulated ({len(dry)})"
        parts.append(Html(f"<details><summary>{esc(title)}</summary>{_grid(dry)}</details>"))
    return text.join(*parts)


def _grid(shown: Sequence[str]) -> Html:
    return Html(f'<div class="fa-cards fa-versions">{"".join(shown)}</div>') if shown else Html("")


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    with gr.Row(elem_classes="fa-row"):
        gr.HTML(
            text.heading(
                "Versions",
                "A trained policy is proposed, not installed: promote it when its figures, and "
                "your ears, say that it is better.",
            )
        )
        back = gr.Button("Roll back to the parent", elem_id="roll-back", scale=0, min_width=260)
    said = gr.HTML(elem_id="version-message")
    asking = actions.panel("version-question")
    policies = actions.panel("policy-versions")
    gr.HTML(text.heading("Reward models", "Accuracy is on votes about songs that were left out."))
    rewards = actions.panel("reward-versions")
    compared = comparing.panel(operations, guard)
    seen = actions.carrier("versions-state")

    def shown() -> dict[Any, Any]:
        found, models = operations.list_policies(), operations.list_reward_models()
        mark = digest(found, models)
        heard = {row["version"]: operations.examples_of(row) for row in found}
        learned = {row["version"]: row.get("snapshot") for row in models}
        told = [row | {"reward_snapshot": learned.get(row.get("reward_model"))} for row in found]
        return {
            policies: actions.marked(
                cards(told, lambda row: policy_card(row, heard[row["version"]])), mark
            ),
            rewards: actions.marked(cards(models, reward_card), mark),
            **compared.choices(found, models),
        }

    def load() -> dict[Any, Any]:
        return shown() | {said: "", asking: ""}

    def act(data: Any) -> dict[Any, Any]:
        what, version = actions.asked(data)
        if what == "compare":
            return compared.with_parent(version) | {said: "", asking: ""}
        return decide(operations, what, version, said, asking, shown)

    def roll_back() -> dict[Any, Any]:
        active = operations.roll_back()["version"]
        words = f"Rolled back: {active} is active again."
        return shown() | {said: text.notice(words, "good"), asking: ""}

    def watch(before: str) -> dict[Any, Any]:
        now = digest(operations.list_policies(), operations.list_reward_models())
        return {} if now == before else shown()

    outputs = [policies, rewards, said, asking, *compared.outputs]
    for part in (policies, rewards, asking):
        part.submit(guard.event(act), None, outputs, show_progress="hidden")
    back.click(guard(roll_back), None, outputs, show_progress="hidden")
    timer = gr.Timer(WATCH_S)
    timer.tick(
        guard(watch), [seen], outputs, queue=False, show_progress="hidden",
        js=actions.seen_js(("policy-versions", "reward-versions"), place=0),
    )  # fmt: skip
    return Loader(guard(load), outputs)


def digest(*rows: Any) -> str:
    """Changes with anything about the versions."""
    return f"{hash(json.dumps(rows, sort_keys=True, default=str)):x}"


def decide(
    operations: Any,
    what: str,
    version: str,
    said: gr.HTML,
    asking: gr.HTML,
    shown: Callable[[], dict[Any, Any]],
) -> dict[Any, Any]:
    """Do what a card's button says, or ask first."""
    if what == "promote-ask":
        question = (
            f"{version} learned from simulated votes: a program's taste, nobody's. New pairs for "
            "people would come from it, or trainings learn from it. Make it active all the same?"
        )
        sure = actions.confirm(question, "promote-simulated", version, "Yes, although simulated")
        return {asking: sure, said: ""}
    if what == "delete-ask":
        told = operations.delete_version(version)
        size = f"{told['files']} files, {told['bytes'] / 1e6:.1f} MB"
        question = (
            f"Delete {version} for good, with its checkpoints and rendered examples ({size})? "
            "The record of its run stays; its name is not given again."
        )
        return {asking: actions.confirm(question, "delete", version, f"Delete {version}"), said: ""}
    if what == "dismiss":
        return {asking: "", said: ""}
    if what == "delete":
        operations.delete_version(version, confirmed=True)
        return shown() | {asking: "", said: text.notice(f"{version} is deleted.", "good")}
    if what not in DONE:
        return {}
    if what == "reject":
        operations.reject(version)
    else:
        operations.promote(version, simulated=what == "promote-simulated")
    return shown() | {asking: "", said: text.notice(f"{version} {DONE[what]}.", "good")}
