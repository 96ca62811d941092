"""How a run looks on the page: its state, its figures and its curves, from `run_view`'s dictionary.

Pure functions; nothing here asks for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from feedback_app.ui import actions, charts, text
from feedback_app.ui.text import Html, esc

TONES = {
    "queued": "plain",
    "running": "info",
    "finished": "good",
    "failed": "bad",
    "cancelled": "warn",
}
KINDS = {
    "analyse": "Analysing songs",
    "bootstrap": "First reward model",
    "imitation": "First policy",
    "generate": "Making pairs",
    "rank": "Ranking pairs",
    "train-reward": "Reward training",
    "train-policy": "Policy training",
    "evaluate": "Evaluation",
    "examples": "Rendering examples",
    "simulate": "Simulated votes",
    "judge": "The judge's own verdict",
    "export": "Exporting",
}
VERDICTS = {
    "pass": ("good", "better than its parent"),
    "accept": ("good", "better than its parent"),
    "warn": ("warn", "doubtful"),
    "doubtful": ("warn", "doubtful"),
    "fail": ("bad", "worse than its parent"),
    "reject": ("bad", "worse than its parent"),
}
REWARD_KINDS = ("train-reward", "bootstrap")
REWARD_FIGURES = (
    ("log_loss", "log-loss (knowing nothing: 0.693)", 3),
    ("ece", "calibration error", 3),
    ("n_votes", "votes", 0),
    ("n_songs", "songs", 0),
)
POLICY_FIGURES = (
    ("total_reward", "total reward", 2),
    ("learned_reward", "learned reward", 2),
    ("dense_reward", "dense reward", 2),
    ("keep_ratio", "beats kept", 2),
)
JUDGED_FIGURES = (
    ("keep_ratio", "beats kept", 2),
    ("kl_to_parent", "KL to its parent, nats per decision", 3),
)
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
        {
            "total_reward": "total",
            "learned_reward": "learned",
            "dense_reward": "dense",
            "held_out_reward": "total on held-out passages",
        },
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
    Curve("Accuracy", "share right", {"accuracy": "accuracy"}),
    Curve("Log-loss", "nats per vote", {"log_loss": "log-loss"}),
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


def picker(listed: Sequence[Mapping[str, Any]], shown: str | None) -> Html:
    """The list of runs with the shown one chosen.

    Without their states, so that it changes with runs alone and stays open while somebody reads it.
    """
    if not listed:
        return Html("")
    options = [
        (
            str(run["run_id"]),
            f"{kind_name(run.get('kind'))} · {text.when(run.get('created_at'))} · {run['run_id']}",
        )
        for run in listed
    ]
    return actions.choice("show", "Run", options, shown)


def status(view: Mapping[str, Any] | None) -> Html:
    """State, bar, time left, message and, where it failed, why."""
    if view is None:
        return text.empty("No run yet. Start one above: it appears here and goes on by itself.")
    state = str(view.get("state"))
    share = min(max(float(view.get("progress") or 0.0), 0.0), 1.0)
    left = view.get("eta_s")
    rest = f"{text.duration(left)} left" if state == "running" and left is not None else ""
    line = " · ".join(part for part in (str(view.get("message") or ""), rest) if part)
    error = failure(view.get("error"), view.get("folder"))
    chip = text.chip(state, TONES.get(state, "plain"))
    dry_run = ((view.get("settings") or {}).get("chain") or {}).get("dry_run")
    if dry_run:
        chip = text.join(chip, text.chip(f"{dry_run}: simulated", "warn"))
    style = f"width:{100 * share:.1f}%"
    return Html(
        f'<div class="fa-run" data-state="{esc(state)}"><div class="fa-run-head">'
        f"<strong>{esc(kind_name(view.get('kind')))}</strong>{chip}"
        f'<span class="fa-run-id">{esc(view.get("run_id"))}</span></div>'
        f'<div class="fa-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}"><i class="fa-{esc(state)}" style="{style}"></i>'
        f"</div><p><b>{100 * share:.0f} %</b> {esc(line)}</p>{error}{results(view)}</div>"
    )


def failure(error: object, folder: object) -> Html:
    """Why a run failed, and where what it left is kept."""
    if not error:
        return Html("")
    first, _, rest = str(error).partition("\n")
    more = f'<pre class="fa-log">{esc(rest)}</pre>' if rest else ""
    kept = f"<p>Its folder is kept: <code>{esc(folder)}</code></p>" if folder else ""
    return Html(f'<div class="fa-notice fa-bad" role="status">{esc(first)}{more}{kept}</div>')


def queue(rows: Sequence[Mapping[str, Any]], shown: str | None) -> Html:
    """Runs that go on or wait, with what follows them; nothing where there is at most one alone."""
    if len(rows) < 2 and not any(row.get("then") for row in rows):
        return Html("")
    lines = []
    for row in rows:
        running = row["state"] == "running"
        then = [kind_name(kind).lower() for kind in row.get("then") or ()]
        after = f"then {', '.join(then[:4])}{' …' if len(then) > 4 else ''}" if then else ""
        about = " · ".join(part for part in (str(row.get("why") or ""), after) if part)
        dry = text.chip(f"{row['dry_run']}: simulated", "warn") if row.get("dry_run") else ""
        here = "" if row["run_id"] == shown else actions.button("show", row["run_id"], "Show")
        end = actions.button("cancel", row["run_id"], "Cancel" if running else "Take out")
        lines.append(
            f'<li data-run="{esc(row["run_id"])}">'
            f"{text.chip(row['state'], TONES.get(str(row['state']), 'plain'))}"
            f"<b>{esc(kind_name(row.get('kind')))}</b>{dry}<span>{esc(about)}</span>"
            f'<span class="fa-buttons">{here}{end}</span></li>'
        )
    return Html(f'<ol class="fa-queue">{"".join(lines)}</ol>')


def results(view: Mapping[str, Any]) -> Html:
    """The figures that a finished run ended with."""
    found = view.get("results") or {}
    metrics = {**found, **(found.get("metrics") or {})}
    figures = headline(metrics, reward=view.get("kind") in REWARD_KINDS)
    made = {"generate": "pairs made", "examples": "passages rendered by both"}
    if view.get("kind") in made and charts.is_real(found.get("pairs")):
        figures = {made[str(view["kind"])]: text.number(found["pairs"])}
    shown = text.figures(figures) if figures else ""
    return text.join(shown, verdict(metrics), win_chart(metrics), where_next(view))


def where_next(view: Mapping[str, Any]) -> Html:
    """Where what a finished training made is to be looked at; nothing of other runs."""
    settings = view.get("settings") or {}
    policy, versus = settings.get("policy"), settings.get("versus")
    if view.get("kind") != "examples" or view.get("state") != "finished" or not (policy and versus):
        return Html("")
    return Html(
        f'<p class="fa-quiet">Listen to <b>{esc(policy)}</b> beside <b>{esc(versus)}</b>, and '
        "promote or reject it, on the <b>Versions</b> tab.</p>"
    )


def headline(metrics: Mapping[str, Any], *, reward: bool, judged: bool = False) -> dict[str, str]:
    """The figures worth large type, in words: of a reward model, or else of a policy.

    judged: of a policy only what was measured on unseen songs, not what its training ended with.
    """
    shown: dict[str, str] = {}
    if reward:
        if charts.is_real(metrics.get("accuracy")):
            bounds = metrics.get("accuracy_low"), metrics.get("accuracy_high")
            shown["held-out accuracy"] = text.interval(metrics["accuracy"], *bounds)
    else:
        rate = (metrics.get("win_rates") or {}).get("parent") or {}
        value = metrics.get("win_rate", rate.get("mean"))
        if charts.is_real(value):
            low = metrics.get("win_rate_low", rate.get("low"))
            high = metrics.get("win_rate_high", rate.get("high"))
            shown["wins against its parent, by the reward"] = text.interval(value, low, high)
    figures = REWARD_FIGURES if reward else JUDGED_FIGURES if judged else POLICY_FIGURES
    for key, name, digits in figures:
        if charts.is_real(metrics.get(key)):
            shown[name] = text.number(metrics[key], digits)
    return shown


def verdict(metrics: Mapping[str, Any]) -> Html:
    """What the gate says of a policy, and why; nothing where it was not evaluated.

    A version's metrics hold `gate` {verdict, reasons}, an evaluation's results `verdict`
    {decision, reasons}.
    """
    found = metrics.get("gate") or metrics.get("verdict")
    if not isinstance(found, Mapping):
        return Html("")
    decision = str(found.get("verdict") or found.get("decision"))
    listed = "".join(f"<li>{esc(reason)}</li>" for reason in found.get("reasons") or ())
    tone, words = VERDICTS.get(decision, ("info", decision))
    return Html(
        f'<div class="fa-notice fa-{tone}"><b>Verdict: {esc(words)}</b><ul>{listed}</ul></div>'
    )


def win_chart(metrics: Mapping[str, Any]) -> Html:
    """How often a policy's edits score above others' on songs that were never trained on."""
    rates = {n: r for n, r in (metrics.get("win_rates") or {}).items() if isinstance(r, Mapping)}
    if not rates:
        return Html("")
    bars = [
        charts.Bar(text.label(name), rate.get("mean"), rate.get("low"), rate.get("high"))
        for name, rate in rates.items()
    ]
    return charts.bar_chart(
        "Wins on unseen songs, by the reward",
        bars,
        x_label="share won against",
        bounds=(0.0, 1.0),
        reference=(0.5, "equal"),
        as_percent=True,
    )


def curves(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Every chart of CURVES for which the run has written figures."""
    drawn = [chart for curve in CURVES if (chart := _curve(curve, rows))]
    if not drawn:
        return Html("")
    return Html(f'<div class="fa-charts">{"".join(drawn)}</div>')


def _curve(curve: Curve, rows: Sequence[Mapping[str, Any]]) -> str:
    lines: dict[str, charts.Series] = {}
    for key, name in curve.keys.items():
        found = [(i, row) for i, row in enumerate(rows) if charts.is_real(row.get(key))]
        if found and name not in lines:
            lines[name] = charts.Series(
                name,
                [float(row.get("step", i)) for i, row in found],
                [row[key] for _, row in found],
                [row.get(f"{key}_low") for _, row in found],
                [row.get(f"{key}_high") for _, row in found],
            )
    if not lines:
        return ""
    folds = any("folds" in row for row in rows)
    return charts.line_chart(
        curve.title,
        list(lines.values()),
        x_label="folds done (each on other songs)" if folds else "steps",
        y_label=curve.y_label,
    )


def log(tail: object) -> Html:
    """The last lines of a run's log."""
    lines = tail.splitlines() if isinstance(tail, str) else [str(line) for line in tail or ()]  # type: ignore[attr-defined]
    if not lines:
        return Html('<p class="fa-quiet">The log is empty so far.</p>')
    body = esc("\n".join(lines[-LOG_LINES:]))
    return Html(f'<pre class="fa-log" tabindex="0">{body}</pre>')
