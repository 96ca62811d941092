"""The Data tab: the preference dataset out, in the forms that other tools read, votes in, and a box
for questions in SQL.

What an export would hold is shown before it is written, and the command that does the same. A large
one is a run: its progress is looked at once a second until its link stands there.
"""

from __future__ import annotations

import shlex
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.ui import actions, data_sql, text
from feedback_app.ui.data_views import (
    export_link,
    import_report,
    preview_table,
    rounds_choices,
    running,
)
from feedback_app.ui.guard import Guard, Loader

FORMATS = (
    ("Parquet: the full record", "parquet"),
    ("CSV: the full record", "csv"),
    ("JSON lines: the full record", "jsonl"),
    ("TRL: chosen and rejected", "trl"),
    ("Chatbot Arena: winner column", "arena"),
    ("imitation: fragments and preferences", "imitation"),
)
VOTERS = (("People", "human"), ("Simulated", "simulated"), ("Both, marked", "both"))
POOLS = ("random", "chosen", "cross", "broad", "repeat", "gold")
AUDIO = (("No audio", ""), ("FLAC", "flac"), ("WAV", "wav"))
FILES = [".csv", ".jsonl", ".ndjson", ".json", ".parquet", ".npz", ".zip"]


class Wanted(NamedTuple):
    """The inputs that say what is exported, in the order of `arguments`."""

    form: gr.Dropdown
    voters: gr.Radio
    pseudonyms: gr.Checkbox
    rounds: gr.Dropdown
    versions: gr.Dropdown
    annotators: gr.Dropdown
    pools: gr.Dropdown
    splits: gr.Dropdown
    agreement: gr.Slider
    audio: gr.Radio
    features: gr.Checkbox


class Out(NamedTuple):
    """What shows what an export is and becomes."""

    preview: gr.HTML
    command: gr.Code
    link: gr.HTML
    run: gr.State
    timer: gr.Timer


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(text.heading("Take the data along", "One row per vote, with both edits and the song."))
    with gr.Row(equal_height=False, elem_classes="fa-steps"):
        with gr.Column(scale=3, elem_classes="fa-panel", min_width=300):
            gr.HTML(text.heading("Export"))
            wanted = _inputs()
            export = gr.Button("Export", variant="primary", elem_id="export")
            link = actions.panel("export-link")
            command = gr.Code(
                language="shell", label="The same by command", interactive=False, lines=1,
                wrap_lines=True, buttons=["copy"], elem_id="export-command",
            )  # fmt: skip
        with gr.Column(scale=2, elem_classes="fa-panel", min_width=300):
            _import_panel(operations, guard)
    with gr.Column(elem_classes="fa-panel"):
        preview = gr.HTML(elem_id="export-preview")
    out = Out(preview, command, link, gr.State(None), gr.Timer(1, active=False))
    box = data_sql.build(operations, guard)
    _wire(operations, guard, wanted, out, export)

    def load() -> dict[Any, Any]:
        choices = operations.export_choices()
        fresh = {
            wanted.rounds: gr.Dropdown(choices=rounds_choices(choices["rounds"]), value=[]),
            wanted.versions: gr.Dropdown(choices=choices["versions"], value=[]),
            wanted.annotators: gr.Dropdown(choices=choices["annotators"], value=[]),
            wanted.form: "parquet",
            wanted.voters: "human",
        }
        going = [run for run in operations.list_runs(20) if run["kind"] == "export"][:1]
        open_ = [run["run_id"] for run in going if run["state"] in ("queued", "running")]
        followed = {out.run: open_[0] if open_ else None, out.timer: gr.Timer(active=bool(open_))}
        return fresh | followed | {link: ""} | _shown(operations, out, {"format": "parquet"})

    filled = [wanted.rounds, wanted.versions, wanted.annotators, wanted.form, wanted.voters]
    return Loader(guard(load), [*filled, preview, command, link, out.run, out.timer, *box])


def _inputs() -> Wanted:
    form = gr.Dropdown(list(FORMATS), value="parquet", label="Format", elem_id="export-format")
    voters = gr.Radio(
        list(VOTERS), value="human", label="Votes of", elem_id="export-voters",
        info="Simulated votes are marked in every row and on the card.",
    )  # fmt: skip
    pseudonyms = gr.Checkbox(
        False, label="Pseudonyms in place of annotators' names", elem_id="export-pseudonyms",
        info="Before you publish. The same person's in all exports of this workspace.",
    )  # fmt: skip
    several: dict[str, Any] = {"multiselect": True, "value": []}
    with gr.Accordion("Only some of them", open=False, elem_id="export-filters"):
        with gr.Row():
            rounds = gr.Dropdown([], label="Rounds", elem_id="export-rounds", **several)
            versions = gr.Dropdown([], label="Versions", elem_id="export-versions", **several)
        with gr.Row():
            annotators = gr.Dropdown([], label="Annotators", elem_id="export-annotators", **several)
            pools = gr.Dropdown(list(POOLS), label="Why the pair was made", **several)
        with gr.Row():
            splits = gr.Dropdown(["train", "test"], label="Split", **several)
            agreement = gr.Slider(
                0, 1, 0, step=0.05, label="Agreement at least", elem_id="export-agreement",
                info="Above 0: pairs with two answers or more, this share of them the same.",
            )  # fmt: skip
    with gr.Accordion("Audio and features", open=False):
        audio = gr.Radio(list(AUDIO), value="", label="Audio of the pairs", elem_id="export-audio")
        features = gr.Checkbox(
            False, label="Beat features of the songs (npz)",
            info="For imitation: as part of the observations.",
        )  # fmt: skip
    return Wanted(
        form, voters, pseudonyms, rounds, versions, annotators, pools, splits, agreement, audio,
        features,
    )  # fmt: skip


def arguments(
    form: str,
    voters: str,
    pseudonyms: bool,
    rounds: list[int],
    versions: list[str],
    annotators: list[str],
    pools: list[str],
    splits: list[str],
    agreement: float,
    audio: str,
    features: bool,
) -> dict[str, Any]:
    """The arguments of `operations.export`; what lets everything through is left out."""
    given = {
        "include_simulated": voters == "both",
        "only_simulated": voters == "simulated",
        "pseudonyms": bool(pseudonyms),
        "rounds": rounds,
        "versions": versions,
        "annotators": annotators,
        "pools": pools,
        "splits": splits,
        "agreement": agreement,
        "audio": audio,
        "features": bool(features),
    }
    return {"format": form} | {name: value for name, value in given.items() if value}


def command_of(wanted: dict[str, Any]) -> str:
    """What a person would type for the same export."""
    words = ["python", "-m", "feedback_app", "export", "DIR"]
    for name, value in wanted.items():
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, list):
            words += [str(item) for item in value]
        elif value is not True:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return shlex.join(words)


def _shown(operations: Any, out: Out, wanted: dict[str, Any]) -> dict[Any, Any]:
    """Preview and command of an export."""
    only = {name: value for name, value in wanted.items() if name not in ("audio", "features")}
    found = operations.preview_export(**only)
    return {out.preview: preview_table(found), out.command: command_of(wanted)}


def _wire(operations: Any, guard: Guard, wanted: Wanted, out: Out, export: gr.Button) -> None:
    def change(*values: Any) -> dict[Any, Any]:
        return _shown(operations, out, arguments(*values)) | {out.link: ""}

    def write(*values: Any) -> dict[Any, Any]:
        made = operations.export(**arguments(*values))
        if "run_id" not in made:
            return {out.link: export_link(made)}
        return {
            out.link: running(operations.run_view(made["run_id"])),
            out.run: made["run_id"],
            out.timer: gr.Timer(active=True),
        }

    def cancel(data: Any) -> dict[Any, Any]:
        what, run_id = actions.asked(data)
        if what == "cancel":
            operations.cancel_run(run_id)
        return {}

    def poll(run_id: str | None) -> dict[Any, Any]:
        if run_id is None:
            return {out.timer: gr.Timer(active=False)}
        view = operations.run_view(run_id)
        if view["state"] in ("queued", "running"):
            return {out.link: running(view)}
        made = view["results"] if view["state"] == "finished" else None
        shown = export_link(made) if made else running(view)
        return {out.link: shown, out.run: None, out.timer: gr.Timer(active=False)}

    gr.on(
        [component.input for component in wanted], guard(change), [*wanted],
        [out.preview, out.command, out.link], show_progress="hidden", trigger_mode="always_last",
    )  # fmt: skip
    export.click(guard(write), [*wanted], [out.link, out.run, out.timer])
    out.link.submit(guard.event(cancel), None, [out.link], show_progress="hidden")
    out.timer.tick(
        guard(poll), [out.run], [out.link, out.run, out.timer], queue=False,
        show_progress="hidden",
    )  # fmt: skip


def _import_panel(operations: Any, guard: Guard) -> None:
    gr.HTML(
        text.heading(
            "Import votes",
            "A list with pair_id, annotator, choice (a, b, tie, both_bad, skip) and strength "
            "(1–3 or empty), as CSV or JSON lines; or any export, also its zip.",
        )
    )
    file = gr.File(label="Votes file", file_types=FILES, elem_id="import-file", height=140)
    prefix = gr.Textbox(
        "", label="Put before the names of other workspaces' versions", placeholder="lab2/",
        info="Needed where they have the same names as versions here.", elem_id="import-prefix",
    )  # fmt: skip
    report = gr.HTML(elem_id="import-report")

    def read(path: str | None, versions_as: str) -> dict[Any, Any]:
        if not path:
            return {report: gr.skip(), file: gr.skip()}
        answer = operations.import_votes(str(path), versions_as=(versions_as or "").strip())
        return {report: import_report(answer), file: None}

    file.upload(guard(read), [file, prefix], [report, file])
