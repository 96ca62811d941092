"""The Dry run tab: let a program vote, and see what the loop would make of it.

Everything here is simulated and says so. What a dry run made can be looked at on the other tabs
under its name, and goes with one button.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from feedback_app.ui import actions, charts, dry_run_form, runs, text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.text import Html, esc

WATCH_S = 2
VERDICTS = {"pass": ("good", "accepted"), "warn": ("warn", "doubtful"), "fail": ("bad", "worse")}
COLUMNS = (
    "Round", "Version", "Votes so far", "Reward accuracy", "Judge: against its parent",
    "Judge: against the first", "Reward: against its parent", "Gate", "Time",
)  # fmt: skip


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(
        text.heading(
            "Dry run",
            "What would the loop do with so many votes of such a taste? A program votes instead of "
            "people, before anybody is paid.",
        )
    )
    gr.HTML(
        text.notice(
            "Everything below is simulated. Its pairs are never given to people, its votes enter "
            "no figure of people's, its versions (dry1_policy_v1 …) are only proposed.",
            "warn",
        )
    )
    form = dry_run_form.build(judge_choices(operations.judges()), guard)
    said = gr.HTML(elem_id="dry-message")
    asking = actions.panel("dry-question")
    listed = actions.panel("dry-runs")
    seen = actions.carrier("dry-state")

    def shown() -> dict[Any, Any]:
        found = operations.dry_runs()
        return {listed: actions.marked(runs_html(found), digest(found))}

    def load() -> dict[Any, Any]:
        return shown() | {said: "", asking: ""}

    def simulate(*values: Any) -> dict[Any, Any]:
        answer = operations.simulate(**dry_run_form.arguments(values, list(form.inputs)))
        words = f"{answer['dry_run']} has started; its steps are runs on the Train tab as well."
        return shown() | {said: text.notice(words, "good"), asking: ""}

    def act(data: Any) -> dict[Any, Any]:
        what, name = actions.asked(data)
        return decide(operations, what, name, said, asking, shown)

    def watch(before: str) -> dict[Any, Any]:
        found = operations.dry_runs()
        return {} if digest(found) == before else shown()

    outputs = [listed, said, asking]
    form.start.click(guard(simulate), list(form.inputs.values()), outputs, show_progress="hidden")
    for part in (listed, asking):
        part.submit(guard.event(act), None, outputs, show_progress="hidden")
    timer = gr.Timer(WATCH_S)
    timer.tick(
        guard(watch), [seen], outputs, queue=False, show_progress="hidden",
        js=actions.seen_js(("dry-runs",), place=0),
    )  # fmt: skip
    return Loader(guard(load), outputs)


def judge_choices(judges: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(label, name) of every judge, those who hear rendered sound marked."""
    return [
        (f"{row['name']} · {row['taste']}{' (listens)' if row['listens'] else ''}", row["name"])
        for row in judges
    ]


def digest(found: Any) -> str:
    """Changes with what is shown; time that passes alone changes nothing."""
    told = [{k: v for k, v in row.items() if k != "seconds"} for row in found]
    plain = json.dumps(told, sort_keys=True, default=str)
    return f"{hash(plain):x}"


def decide(
    operations: Any,
    what: str,
    name: str,
    said: gr.HTML,
    asking: gr.HTML,
    shown: Callable[[], dict[Any, Any]],
) -> dict[Any, Any]:
    """Do what a dry run's button says, or ask first."""
    if what == "dismiss":
        return {asking: "", said: ""}
    if what == "remove-ask":
        question = (
            f"Remove {name} with all that it made: its runs, pairs, simulated votes, versions and "
            "files?"
        )
        return {asking: actions.confirm(question, "remove", name, f"Remove {name}"), said: ""}
    if what == "cancel":
        operations.cancel_dry_run(name)
        words = f"Cancelling {name}; what it made so far stays until it is removed."
        return shown() | {said: text.notice(words, "info"), asking: ""}
    if what != "remove":
        return {}
    gone = operations.remove_dry_run(name)
    counts = [
        text.plural(gone[f"{what}s"], one)
        for what, one in (
            ("run", "run"), ("pair", "pair"), ("vote", "simulated vote"), ("version", "version"),
        )
    ]  # fmt: skip
    words = f"{name} is gone: {', '.join(counts)}."
    return shown() | {said: text.notice(words, "good"), asking: ""}


def runs_html(found: Sequence[Mapping[str, Any]]) -> Html:
    """Every dry run, newest first."""
    if not found:
        return text.empty("No dry run yet. One of three rounds takes a few minutes.")
    return text.join(*(run_html(row) for row in found))


def run_html(run: Mapping[str, Any]) -> Html:
    """One dry run: its plan, where it is, its rounds as curves and as a table."""
    name, plan, state = run["dry_run"], run["plan"], str(run["state"])
    told = (
        f"judge {plan['judge']} · {text.plural(plan['rounds'], 'round')} of "
        f"{text.plural(plan['votes'], 'vote')} · noise {plan['noise']:g} · "
        f"{plan['total_steps']:,} steps · seed {plan['seed']} · began with {run['began_with']}"
        f"{dry_run_form.unusual(plan)}"
    )
    share = 100 * float(run["progress"])
    ended = state in runs.ENDED
    spent = f"{text.duration(run['seconds'])} by the clock{'' if ended else ' so far'}"
    buttons = (
        actions.button(
            "remove-ask", name, "Remove …", kind="stop", why="; ".join(run.get("in_use") or [])
        )
        if ended
        else actions.button("cancel", name, "Cancel", kind="stop")
    )
    return Html(
        f'<section class="fa-panel fa-dry" data-dry-run="{esc(name)}" data-state="{esc(state)}">'
        f'<div class="fa-run-head"><h3>{esc(name)}</h3>{text.chip("simulated", "warn")}'
        f"{text.chip(state, runs.TONES.get(state, 'plain'))}"
        f'<span class="fa-run-id">{esc(text.when(run.get("created_at")))}</span>'
        f'<span class="fa-buttons">{buttons}</span></div><p class="fa-quiet">{esc(told)}</p>'
        f'<div class="fa-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share:.0f}"><i class="fa-{esc(state)}" style="width:{share:.1f}%"></i>'
        f"</div><p>{esc(spent)}</p>"
        f"{runs.failure(run.get('error'), None)}{_curves(run['rounds'])}{_table(run['rounds'])}"
        "</section>"
    )


def _rate(rate: Mapping[str, Any] | None) -> str:
    if not rate:
        return text.DASH
    return text.interval(rate.get("mean"), rate.get("low"), rate.get("high"))


def _table(rounds: Sequence[Mapping[str, Any]]) -> Html:
    rows = []
    for row in rounds:
        tone, words = VERDICTS.get(str(row.get("verdict")), ("plain", text.DASH))
        accuracy = (row.get(name) for name in ("accuracy", "accuracy_low", "accuracy_high"))
        rows.append(
            [
                row["round"],
                row.get("policy") or text.DASH,
                text.number(row.get("n_votes")),
                text.interval(*accuracy),
                _rate(row.get("judge_parent")),
                _rate(row.get("judge_first")),
                _rate(row.get("reward_parent")),
                text.chip(words, tone) if row.get("verdict") else text.DASH,
                text.duration(row.get("seconds")),
            ]
        )
    return text.table(COLUMNS, rows) if rows else Html("")


def _curves(rounds: Sequence[Mapping[str, Any]]) -> Html:
    """Accuracy and win rates over the rounds, with intervals."""
    index = [float(row["round"]) for row in rounds]
    if not any(row.get("judge_parent") or row.get("accuracy") for row in rounds):
        return Html("")

    def line(name: str, key: str) -> charts.Series:
        rates = [row.get(key) or {} for row in rounds]
        ends = ([r.get(end) for r in rates] for end in ("mean", "low", "high"))
        return charts.Series(name, index, *ends)

    accuracy = ([row.get(f"accuracy{end}") for row in rounds] for end in ("", "_low", "_high"))
    drawn = [
        charts.line_chart(
            "Reward accuracy (simulated votes)",
            [charts.Series("held-out accuracy", index, *accuracy)],
            x_label="round",
            y_label="share of votes right",
            reference=(0.5, "chance"),
            bounds=(0.4, 1.0),
        ),
        charts.line_chart(
            "Wins by the judge itself, on unseen songs (simulated)",
            [line("against its parent", "judge_parent"), line("against the first", "judge_first")],
            x_label="round",
            y_label="share won",
            reference=(0.5, "no better"),
            bounds=(0.0, 1.0),
        ),
    ]
    return Html(f'<div class="fa-charts">{"".join(drawn)}</div>')
