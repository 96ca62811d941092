"""The Library tab: songs in, their beats looked at and corrected, the train/test split by song."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.ui import drawings, text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.text import Html, esc

AUDIO_TYPES = [".wav", ".flac", ".ogg", ".mp3"]
TONES = {"ready": "good", "analysing": "info", "failed": "bad"}
CORRECTIONS = (
    ("× 2", "double", "beats-double"),
    ("÷ 2", "halve", "beats-halve"),
    ("× 3/2", "three_halves", "beats-three-halves"),
    ("Bar starts one beat later", "offset:1", "beats-offset"),
)


class View(NamedTuple):
    """The components that show songs."""

    table: gr.HTML
    song: gr.Dropdown
    split: gr.Radio
    drawing: gr.HTML
    said: gr.HTML


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(
        text.heading(
            "Songs",
            "WAV, FLAC, OGG or MP3. Each is analysed once: beats, features, stem proxies.",
        )
    )
    with gr.Row(elem_classes="fa-steps"):
        with gr.Column(elem_classes="fa-panel", min_width=280):
            upload = gr.File(
                label="Upload songs",
                file_count="multiple",
                file_types=AUDIO_TYPES,
                elem_id="upload-songs",
                height=150,
            )
        with gr.Column(elem_classes="fa-panel", min_width=280):
            folder = gr.Textbox(
                label="Or a file or folder on the server",
                placeholder="/data/songs",
                elem_id="folder-path",
            )
            add = gr.Button("Add from the server", elem_id="add-folder")
    said = gr.HTML(elem_id="library-message")
    table = gr.HTML(elem_id="song-table")
    gr.HTML(
        text.heading(
            "One song",
            "Put right beats that are an octave off. Pairs made on the old beats are taken out.",
        )
    )
    with gr.Column(elem_classes="fa-panel"):
        with gr.Row(elem_classes="fa-row"):
            song = gr.Dropdown([], label="Song", elem_id="song-picker", scale=3)
            split = gr.Radio(
                ["train", "test"],
                label="Used for",
                elem_id="song-split",
                scale=1,
                info="Test songs are never trained on.",
            )
        drawing = gr.HTML(elem_id="song-waveform")
        with gr.Row(elem_classes="fa-row fa-buttons"):
            corrections = [
                (gr.Button(name, elem_id=elem_id, size="sm", min_width=70), how)
                for name, how, elem_id in CORRECTIONS
            ]
    view = View(table, song, split, drawing, said)
    _wire(operations, guard, view, upload, (folder, add), corrections)

    def load() -> dict[Any, Any]:
        return _songs(operations, view, None) | {said: ""}

    return Loader(guard(load), list(view))


def song_label(song: Mapping[str, Any]) -> str:
    """A song in the picker: its title, marked where it is synthetic."""
    mark = " (synthetic demo)" if song.get("synthetic") else ""
    return f"{song['title']}{mark}"


def song_table(songs: Sequence[Mapping[str, Any]]) -> Html:
    """All songs with what is known of them."""
    if not songs:
        return text.empty("No songs yet. Upload some above: analysis starts by itself.")
    headers = ("Song", "Length", "Tempo", "Beats", "Stems", "Used for", "State")
    return text.table(headers, [_row(song) for song in songs])


def _row(song: Mapping[str, Any]) -> list[object]:
    title = text.join(
        Html(f"<b>{esc(song['title'])}</b> "),
        text.chip("synthetic demo", "warn") if song.get("synthetic") else "",
    )
    state = str(song.get("status"))
    told = text.chip(state, TONES.get(state, "plain"))
    if song.get("error"):
        told = text.join(told, Html(f'<div class="fa-why">{esc(song["error"])}</div>'))
    tempo = song.get("tempo_bpm")
    source = song.get("beat_source")
    beats: object = text.DASH
    if song.get("n_beats"):
        sure = text.percent(song.get("beat_confidence"))
        beats = f"{song['n_beats']} · {source or '?'}, {sure} sure"
    if source == "fixed":
        beats = text.join(str(beats), Html(" "), text.chip("no beat found: fixed grid", "warn"))
    return [
        title,
        text.duration(song.get("duration_s")),
        f"{text.number(tempo, 1)} BPM" if tempo else text.DASH,
        beats,
        song.get("stem_source") or text.DASH,
        song.get("split"),
        told,
    ]


def taken_in(answer: Mapping[str, Any]) -> Html:
    """How many files came in, and each one that did not with its reason."""
    added, skipped = int(answer.get("added") or 0), list(answer.get("skipped") or [])
    going_on = "; analysis is running" if added else ""
    head = text.notice(
        f"{text.plural(added, 'song')} taken in{going_on}.", "good" if added else "warn"
    )
    if not skipped:
        return head
    rows = [(PurePath(str(row["path"])).name, row["reason"]) for row in skipped]
    return text.join(head, text.table(("Not taken in", "Why"), rows))


def _songs(operations: Any, view: View, song_id: str | None) -> dict[Any, Any]:
    """The table, the picker and the picked song (None: the first that is ready)."""
    songs = operations.list_songs()
    ready = [song for song in songs if song.get("status") == "ready"]
    known = [song["song_id"] for song in ready]
    picked = song_id if song_id in known else (known[0] if known else None)
    return {
        view.table: song_table(songs),
        view.song: gr.Dropdown(
            choices=[(song_label(song), song["song_id"]) for song in ready], value=picked
        ),
    } | _one(operations, view, picked)


def _one(operations: Any, view: View, song_id: str | None) -> dict[Any, Any]:
    if song_id is None:
        return {view.drawing: text.empty("No song is ready yet."), view.split: gr.skip()}
    song = operations.song_view(song_id)
    picture = drawings.waveform(
        song.get("waveform") or [],
        float(song.get("duration_s") or 0.0),
        song.get("beat_times") or [],
        song.get("bar_phase") or [],
        title=str(song["title"]),
    )
    about = (
        f"{text.number(song.get('tempo_bpm'), 1)} BPM, {song.get('n_beats')} beats "
        f"({song.get('beat_source')}, {text.percent(song.get('beat_confidence'))} sure). "
        "Tall strokes are downbeats."
    )
    quiet = Html(f'<p class="fa-quiet">{esc(about)}</p>')
    return {view.drawing: text.join(picture, quiet), view.split: song.get("split")}


def _wire(
    operations: Any,
    guard: Guard,
    view: View,
    upload: gr.File,
    server: tuple[gr.Textbox, gr.Button],
    corrections: Sequence[tuple[gr.Button, str]],
) -> None:
    folder, add = server
    outputs = list(view)

    def uploaded(files: list[str] | None) -> dict[Any, Any]:
        if not files:
            return {view.said: ""}
        answer = operations.add_songs([str(path) for path in files])
        return _songs(operations, view, None) | {view.said: taken_in(answer), upload: None}

    def from_server(path: str | None) -> dict[Any, Any]:
        if not (path or "").strip():
            return {view.said: text.notice("Say which file or folder to add.", "warn")}
        answer = operations.add_songs([str(path).strip()])
        return _songs(operations, view, None) | {view.said: taken_in(answer), folder: ""}

    def pick(song_id: str | None) -> dict[Any, Any]:
        return _one(operations, view, song_id)

    def change_split(song_id: str | None, value: str) -> dict[Any, Any]:
        if not song_id:
            return {view.said: text.notice("Choose a song first.", "warn")}
        operations.set_split(song_id, value)
        return _songs(operations, view, song_id) | {
            view.said: text.notice(f"The song is used to {value} from now on.", "good")
        }

    def corrected(how: str) -> Callable[[str | None], dict[Any, Any]]:
        def handler(song_id: str | None) -> dict[Any, Any]:
            if not song_id:
                return {view.said: text.notice("Choose a song first.", "warn")}
            operations.correct_beats(song_id, how)
            return _songs(operations, view, song_id) | {
                view.said: text.notice("Corrected; the song is analysed again.", "good")
            }

        return handler

    upload.upload(guard(uploaded), [upload], [*outputs, upload])
    add.click(guard(from_server), [folder], [*outputs, folder])
    folder.submit(guard(from_server), [folder], [*outputs, folder])
    view.song.input(guard(pick), [view.song], [view.drawing, view.split], show_progress="hidden")
    view.split.input(guard(change_split), [view.song, view.split], outputs)
    for button, how in corrections:
        button.click(guard(corrected(how)), [view.song], outputs)
    _follow(operations, guard, view)


def _follow(operations: Any, guard: Guard, view: View) -> None:
    """While songs are analysed the table follows, once every two seconds, when it has changed."""
    seen = gr.State("")

    def poll(song_id: str | None, before: str) -> dict[Any, Any]:
        states = [(song["song_id"], song.get("status")) for song in operations.list_songs()]
        now = f"{hash(tuple(states)):x}"
        return {} if now == before else _songs(operations, view, song_id) | {seen: now}

    gr.Timer(2).tick(
        guard(poll),
        [view.song, seen],
        [view.table, view.song, view.split, view.drawing, seen],
        queue=False,
        show_progress="hidden",
    )
