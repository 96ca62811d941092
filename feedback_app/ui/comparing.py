"""Any two versions side by side: settings, figures, curves, what they do, and how they sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.ui import charts, drawings, runs, text
from feedback_app.ui.guard import Guard
from feedback_app.ui.text import Html, esc
from rlhf_core.editing.actions import Action

INTERVALS = {"accuracy": "Held-out accuracy", "win_rate": "Wins against its parent, by the reward"}
FIGURES = {
    "log_loss": "Log-loss",
    "ece": "Calibration error",
    "ceiling": "Ceiling",
    "kl_to_parent": "KL to its parent (nats per decision)",
    "songs": "Songs",
}
SHOWN_ACTIONS = [action for action in Action if action != Action.KEEP]


class Comparison(NamedTuple):
    """The panel's components, and what fills them."""

    outputs: list[Any]
    choices: Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], dict[Any, Any]]
    with_parent: Callable[[str], dict[Any, Any]]


def panel(operations: Any, guard: Guard) -> Comparison:
    """Build the comparison where it is called."""
    gr.HTML(text.heading("Compare", "Any two policies, or any two reward models."))
    with gr.Column(elem_classes="fa-panel"):
        with gr.Row(elem_classes="fa-row"):
            left = gr.Dropdown([], label="This version", elem_id="compare-left", scale=2)
            right = gr.Dropdown([], label="with this one", elem_id="compare-right", scale=2)
            go = gr.Button("Compare", elem_id="compare", scale=1)
            render = gr.Button("Render both", elem_id="compare-render", scale=1)
        result = gr.HTML(elem_id="compared")

    def choices(
        policies: Sequence[Mapping[str, Any]], rewards: Sequence[Mapping[str, Any]]
    ) -> dict[Any, Any]:
        names = [row["version"] for row in (*reversed(policies), *reversed(rewards))]
        return {left: gr.Dropdown(choices=names), right: gr.Dropdown(choices=names)}

    def compare(one: str | None, other: str | None) -> dict[Any, Any]:
        if not one or not other:
            return {result: text.notice("Choose two versions first.", "warn")}
        return {result: compared_html(operations.compare(one, other))}

    def with_parent(version: str) -> dict[Any, Any]:
        rows = {row["version"]: row for row in operations.list_policies()}
        parent = rows[version]["parent"] if version in rows else None
        names = [*reversed(rows), *(row["version"] for row in operations.list_reward_models())]
        picked = {
            part: gr.Dropdown(choices=names, value=value)
            for part, value in ((left, version), (right, parent))
        }
        return picked | compare(version, parent)

    def make(one: str | None, other: str | None) -> dict[Any, Any]:
        if not one or not other:
            return compare(one, other)
        run_id = operations.make_examples(one, other)["run_id"]
        words = f"Both are being rendered on the same unseen passages ({run_id}). Compare again "
        return {result: text.notice(f"{words}in a few seconds.", "info")}

    outputs = [left, right, result]
    go.click(guard(compare), [left, right], outputs, show_progress="hidden")
    render.click(guard(make), [left, right], outputs, show_progress="hidden")
    return Comparison(outputs, choices, with_parent)


def compared_html(found: Mapping[str, Any]) -> Html:
    """Everything about two versions, from `operations.compare`."""
    sides = (found["left"], found["right"])
    return text.join(
        _table(sides),
        _charts(sides),
        _sound(found.get("examples"), sides),
    )


def _table(sides: Sequence[Mapping[str, Any]]) -> Html:
    """Where they came from, how they were judged, how training ended; unlike lines are marked."""
    parts = [
        _section("Where they came from", sides, [_origin(side) for side in sides], opened=True),
        _section("Judged", sides, [_judged(side) for side in sides], opened=True),
        _section("At the end of training", sides, [_trained(side) for side in sides]),
    ]
    return Html("".join(parts))


def _section(
    title: str, sides: Sequence[Mapping[str, Any]], both: list[dict[str, str]], opened: bool = False
) -> str:
    if not any(both):
        return ""
    lines = []
    for name in dict.fromkeys([*both[0], *both[1]]):
        cells = [side.get(name, text.DASH) for side in both]
        differs = "" if cells[0] == cells[1] else ' class="fa-differs"'
        lines.append(
            f'<tr{differs}><th scope="row">{esc(name)}</th><td>{esc(cells[0])}</td>'
            f"<td>{esc(cells[1])}</td></tr>"
        )
    names = "".join(f'<th scope="col">{esc(side["version"])}</th>' for side in sides)
    return (
        f"<details{' open' if opened else ''}><summary>{esc(title)}</summary>"
        '<div class="fa-scroll" tabindex="0"><table class="fa-table fa-compare"><thead><tr><th>'
        f"</th>{names}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></details>"
    )


def _origin(version: Mapping[str, Any]) -> dict[str, str]:
    """What it is made of, by name; what is not known is left out."""
    settings = version.get("settings") or {}
    found = {
        "Status": version.get("status"),
        "Parent": version.get("parent"),
        "Reward model": version.get("reward_model"),
        "Votes": version.get("n_votes"),
        "Snapshot": str(version.get("snapshot") or "")[:12],
        "Simulated votes": "yes" if version.get("simulated") else "no",
        "Code": version.get("code_version"),
        "Created": text.when(version.get("created_at")),
        **{text.label(name): value for name, value in settings.items()},
        "Seed": version.get("seed"),
    }
    return {name: _shown(value) for name, value in found.items() if value not in (None, "")}


def _judged(version: Mapping[str, Any]) -> dict[str, str]:
    """Figures on what it was not trained on, with their intervals."""
    metrics = version.get("metrics") or {}
    found: dict[str, object] = {"Judged on": metrics.get("evaluated_on")}
    for name, words in INTERVALS.items():
        if charts.is_real(metrics.get(name)):
            ends = (metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))
            found[words] = text.interval(metrics[name], *ends)
    gate = metrics.get("gate") or {}
    found["Gate"] = runs.VERDICTS.get(str(gate.get("verdict")), ("", None))[1]
    found |= {words: metrics.get(name) for name, words in FIGURES.items()}
    ours = (metrics.get("contenders") or {}).get("policy") or {}
    for name, value in ours.items():
        if isinstance(value, Mapping) and "mean" in value:
            ends = (value.get("low"), value.get("high"))
            found[text.label(name)] = text.interval(value["mean"], *ends, share=False)
        elif charts.is_real(value):
            found[text.label(name)] = value
    return {name: _shown(value) for name, value in found.items() if value not in (None, "")}


def _trained(version: Mapping[str, Any]) -> dict[str, str]:
    """The last figures that training wrote, of those that its curves show."""
    metrics = version.get("metrics") or {}
    named = {
        key: f"{curve.title}: {name}" for curve in runs.CURVES for key, name in curve.keys.items()
    }
    judged = {*INTERVALS, *FIGURES}
    return {
        words: _shown(metrics[key])
        for key, words in named.items()
        if charts.is_real(metrics.get(key)) and key not in judged
    }


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text.number(value, 3) if charts.is_real(value) else str(value)


def _charts(sides: Sequence[Mapping[str, Any]]) -> Html:
    """Curves of both trainings over each other, and what both do."""
    drawn = [chart for curve in runs.CURVES if (chart := _curve(curve, sides))]
    ours = [_edits_of(side, sides) for side in sides]
    if all(ours):
        drawn += _behaviour(ours, [str(side["version"]) for side in sides])
    return Html(f'<div class="fa-charts">{"".join(drawn)}</div>') if drawn else Html("")


def _edits_of(side: Mapping[str, Any], sides: Sequence[Mapping[str, Any]]) -> Any:
    """What a policy's edits are like: from its own evaluation, else from its child's."""
    for judged in (side, *sides):
        name = "policy" if judged is side else "parent"
        contenders = (judged.get("metrics") or {}).get("contenders") or {}
        if name in contenders and (name == "policy" or judged.get("parent") == side["version"]):
            return contenders[name]
    return None


def _curve(curve: runs.Curve, sides: Sequence[Mapping[str, Any]]) -> str:
    key = next(iter(curve.keys))
    lines = []
    for side in sides:
        rows = [row for row in side.get("curves") or () if charts.is_real(row.get(key))]
        steps = [float(row.get("step", i)) for i, row in enumerate(rows)]
        lines.append(charts.Series(str(side["version"]), steps, [row[key] for row in rows]))
    if not any(line.x for line in lines):
        return ""
    name = f"{curve.title}: {curve.keys[key]}" if len(curve.keys) > 1 else curve.title
    return charts.line_chart(name, lines, x_label="steps", y_label=curve.y_label)


def _behaviour(ours: Sequence[Any], names: Sequence[str]) -> list[str]:
    dense = ours[0].get("dense_components") or {}
    shares = [
        charts.Bar("" if i else label, row.get(key), colour=i)
        for label, key in (("beats kept", "keep_ratio"), ("variety", "diversity"))
        for i, row in enumerate(ours)
    ]
    shares += [
        charts.Bar(
            "" if i else text.label(name).lower(), row["dense_components"].get(name), colour=i
        )
        for name in dense
        for i, row in enumerate(ours)
    ]
    used = [
        charts.Bar(
            "" if i else action.name.replace("_", " ").lower(),
            (row.get("actions") or {}).get(action.name, 0.0),
            colour=i,
        )
        for action in SHOWN_ACTIONS
        for i, row in enumerate(ours)
    ]
    options: dict[str, Any] = {"as_percent": True, "names": names, "row": 13}
    return [
        charts.bar_chart("What they do on unseen songs", shares, x_label="share", **options),
        charts.bar_chart("Actions used", used, x_label="share of all (KEEP left out)", **options),
    ]


def _sound(examples: Mapping[str, Any] | None, sides: Sequence[Mapping[str, Any]]) -> Html:
    """Both versions' edits of the same passages, drawn to one scale."""
    if sides[0].get("kind") != "policy":
        return Html("")
    if not examples or not examples["rows"]:
        return text.empty(
            "Not rendered yet: “Render both” makes edits of the same unseen passages."
        )
    order = [str(side["version"]) for side in sides]
    body = "".join(example_html(examples, row, order, drawn=True) for row in examples["rows"])
    return text.join(
        text.heading("Listen", f"The same passages of {examples.get('songs') or 'songs'}."),
        Html(f'<div class="fa-examples">{body}</div>'),
        drawings.edl_legend(),
    )


def card_examples(row: Mapping[str, Any], examples: Mapping[str, Any] | None) -> Html:
    """Before and after, to be played inside a version's card."""
    if not examples or not examples["rows"]:
        return Html("")
    order = [str(row.get("parent")), str(row["version"])]
    body = "".join(example_html(examples, r, order, drawn=False) for r in examples["rows"])
    count = text.plural(len(examples["rows"]), "passage")
    summary = f"Listen: before and after, {count} of {examples.get('songs') or 'songs'}"
    return Html(f"<details><summary>{esc(summary)}</summary>{body}</details>")


def example_html(
    examples: Mapping[str, Any], row: Mapping[str, Any], order: Sequence[str], *, drawn: bool
) -> str:
    """One passage: the versions in the given order, then the original."""
    sides = {policy: side for side, policy in row["policies"].items()}
    passage = row["passage"]
    span = max(
        float(passage["end_s"]) - float(passage["start_s"]),
        *(float(row["duration_s"][side]) for side in sides.values()),
    )
    players = []
    for name in (*order, "original"):
        side = sides.get(name, "original")
        drawing = ""
        if drawn and side != "original":
            drawing = drawings.edl_drawing(row["edl"][side], span_s=span, name=f"edit by {name}")
        source = f"/research/example/{examples['run_id']}/{row['number']}/{side}"
        seconds = text.duration(row["duration_s"][side])
        told = f"{name}, {row['title']}"
        players.append(
            f'<div class="fa-side"><h4>{esc(name)} <small>{esc(seconds)}</small></h4>'
            f'<audio controls preload="none" src="{esc(source)}" '
            f'aria-label="{esc(told)}"></audio>{drawing}</div>'
        )
    last = int(passage["end_beat"]) - 1
    about = f"{row['title']}, beats {passage['start_beat']}–{last}"
    return f'<div class="fa-example"><p><b>{esc(about)}</b></p>{"".join(players)}</div>'
