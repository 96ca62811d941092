"""The Library tab: songs in, their beats looked at and corrected, the train/test split by song.

Files are sent in pieces by `songs.js` (see `feedback_app.receiving`), which also does the tapping.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import gradio as gr

from feedback_app.static import static_url
from feedback_app.ui import actions, drawings, text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.text import Html, esc

TONES = {"ready": "good", "analysing": "info", "failed": "bad"}
CORRECTIONS = (
    ("× 2", "double", "beats-double"),
    ("÷ 2", "halve", "beats-halve"),
    ("× 3/2", "three_halves", "beats-three-halves"),
    ("← Bar one beat earlier", "offset:-1", "beats-earlier"),
    ("Bar one beat later →", "offset:1", "beats-offset"),
    ("As found at first", "reset", "beats-reset"),
)
UPLOADS = """
<label class="fa-drop"><input class="fa-file" type="file" multiple accept=".wav,.flac,.ogg,.mp3">
<b>Upload songs</b><span>Choose files or drop them here, several at a time. A broken upload goes on
where it was: choose the same file again.</span></label><ul class="fa-uploads"></ul>
"""
ON_LOAD = 'import("%s").then((songs) => songs.%s(element, trigger));'
TAPPING = """
<div class="fa-tapping"><audio data-id="song" data-song="{song}" controls preload="metadata"
src="/research/song/{song}"></audio><div class="fa-buttons">
<button type="button" class="fa-button" data-id="tap">Play, then tap each beat (T)</button>
<button type="button" class="fa-button fa-button-main" data-id="save" disabled>Save tapped
beats</button><button type="button" class="fa-button" data-id="clear" disabled>Clear</button></div>
<p class="fa-quiet" data-id="taps">Tap along, from the first beat of a bar on; four taps at
least.</p></div>
"""


class View(NamedTuple):
    """The components that show songs."""

    table: gr.HTML
    song: gr.Dropdown
    split: gr.Radio
    drawing: gr.HTML
    about: gr.HTML
    asking: gr.HTML
    said: gr.HTML


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(
        text.heading(
            "Songs",
            "WAV, FLAC, OGG or MP3. Each is analysed once: beats, features, stem proxies.",
        )
    )
    script = static_url("songs.js")
    with gr.Row(elem_classes="fa-steps"):
        with gr.Column(elem_classes="fa-panel", min_width=280):
            upload = gr.HTML(
                UPLOADS, elem_id="upload-songs", js_on_load=ON_LOAD % (script, "uploads")
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
            "Put right beats that are an octave off, or tap them. Corrections add up.",
        )
    )
    with gr.Column(elem_classes="fa-panel"):
        with gr.Row(elem_classes="fa-row"):
            song = gr.Dropdown([], label="Song", elem_id="song-picker", scale=3)
            split = gr.Radio(["train", "test"], label="Used for", elem_id="song-split", scale=2)
        drawing = gr.HTML(elem_id="song-waveform", js_on_load=ON_LOAD % (script, "tapping"))
        with gr.Row(elem_classes="fa-row fa-buttons"):
            corrections = [
                (gr.Button(name, elem_id=elem_id, size="sm", min_width=70), how)
                for name, how, elem_id in CORRECTIONS
            ]
        about = gr.HTML(elem_id="song-about")
        remove = gr.Button(
            "Remove this song …", variant="stop", size="sm", elem_id="remove-song", min_width=150
        )
        asking = actions.panel("song-asking")
    view = View(table, song, split, drawing, about, asking, said)
    _wire(operations, guard, view, upload, (folder, add), corrections)
    _wire_removal(operations, guard, view, remove)

    def load() -> dict[Any, Any]:
        return _songs(operations, view, None) | {said: "", asking: ""}

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
        nothing = text.empty("No song is ready yet.")
        return {view.drawing: nothing, view.about: "", view.split: gr.skip()}
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
    pairs = int(song.get("pairs") or 0)
    split = gr.Radio(
        value=song.get("split"), interactive=not pairs, info=split_words(str(song["split"]), pairs)
    )
    return {
        view.drawing: text.join(picture, quiet, Html(TAPPING.format(song=esc(song_id)))),
        view.about: hanging(song),
        view.split: split,
    }


def split_words(split: str, pairs: int) -> str:
    """What the split means, and whether it can be changed still."""
    meaning = "Policies learn from train songs; test songs only judge them."
    if pairs:
        return f"{meaning} It stays {split}: there are {text.plural(pairs, 'pair')} of this song."
    return f"{meaning} Fixed with the first pair."


def hanging(song: Mapping[str, Any]) -> Html:
    """What correcting the beats would take out."""
    shown, votes = int(song.get("shown") or 0), int(song.get("votes") or 0)
    if not shown:
        return Html("")
    return text.notice(
        f"A correction takes out the {text.plural(shown, 'pair')} made on these beats, and leaves "
        f"{text.plural(votes, 'vote')} of people on this song out of later trainings.",
        "info",
    )


def removal_words(told: Mapping[str, Any]) -> str:
    """What becomes of a song's pairs and votes."""
    count = text.plural
    return (
        f"Remove {told['title']}? Its audio and {count(int(told['files']), 'file')} in all "
        f"({int(told['bytes']) / 1e6:.1f} MB) are deleted; this cannot be undone. Its "
        f"{count(int(told['pairs']), 'pair')} will be given to nobody any more. "
        f"{count(int(told['votes']), 'vote')} by {count(int(told['people']), 'person', 'people')} "
        "stay in the record and in exports, but no later training learns from them. Versions that "
        "did learn from them stay as they are."
    )


def _wire(
    operations: Any,
    guard: Guard,
    view: View,
    upload: gr.HTML,
    server: tuple[gr.Textbox, gr.Button],
    corrections: Sequence[tuple[gr.Button, str]],
) -> None:
    folder, add = server
    outputs = list(view)

    def uploaded(data: Any) -> dict[Any, Any]:
        keys = data.get("keys") if isinstance(data, dict) else None
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            return {view.said: text.notice("Nothing was sent.", "warn")}
        answer = operations.add_uploads(keys)
        return _songs(operations, view, None) | {view.said: taken_in(answer)}

    def from_server(path: str | None) -> dict[Any, Any]:
        if not (path or "").strip():
            return {view.said: text.notice("Say which file or folder to add.", "warn")}
        answer = operations.add_songs([str(path).strip()])
        return _songs(operations, view, None) | {view.said: taken_in(answer), folder: ""}

    def pick(song_id: str | None) -> dict[Any, Any]:
        return _one(operations, view, song_id) | {view.asking: ""}

    def change_split(song_id: str | None, value: str) -> dict[Any, Any]:
        if not song_id:
            return {view.said: text.notice("Choose a song first.", "warn")}
        operations.set_split(song_id, value)
        return _songs(operations, view, song_id) | {
            view.said: text.notice(f"The song is used to {value} from now on.", "good")
        }

    upload.submit(guard.event(uploaded), None, outputs)
    add.click(guard(from_server), [folder], [*outputs, folder])
    folder.submit(guard(from_server), [folder], [*outputs, folder])
    shown = [view.drawing, view.about, view.split, view.asking]
    view.song.input(guard(pick), [view.song], shown, show_progress="hidden")
    view.split.input(guard(change_split), [view.song, view.split], outputs)
    _wire_beats(operations, guard, view, corrections)
    _follow(operations, guard, view)


def _wire_beats(
    operations: Any, guard: Guard, view: View, corrections: Sequence[tuple[gr.Button, str]]
) -> None:
    def correct(song_id: str | None, how: str) -> dict[Any, Any]:
        if not song_id:
            return {view.said: text.notice("Choose a song first.", "warn")}
        operations.correct_beats(song_id, how)
        return _songs(operations, view, song_id) | {
            view.said: text.notice("Corrected; the song is analysed again.", "good")
        }

    def corrected(how: str) -> Callable[[str | None], dict[Any, Any]]:
        def handler(song_id: str | None) -> dict[Any, Any]:
            return correct(song_id, how)

        return handler

    def tapped(data: Any) -> dict[Any, Any]:
        act, song_id = actions.asked(data)
        how = str(data.get("how") or "") if isinstance(data, dict) else ""
        return correct(song_id, how) if act == "tapped" and how.startswith("tap:") else {}

    for button, how in corrections:
        button.click(guard(corrected(how)), [view.song], list(view))
    view.drawing.submit(guard.event(tapped), None, list(view))


def _wire_removal(operations: Any, guard: Guard, view: View, remove: gr.Button) -> None:
    def ask(song_id: str | None) -> dict[Any, Any]:
        if not song_id:
            return {view.said: text.notice("Choose a song first.", "warn")}
        words = removal_words(operations.remove_song(song_id))
        return {view.asking: actions.confirm(words, "remove-song", song_id, "Remove it for good")}

    def answered(data: Any) -> dict[Any, Any]:
        act, song_id = actions.asked(data)
        if act != "remove-song":
            return {view.asking: ""}
        told = operations.remove_song(song_id, confirmed=True)
        return _songs(operations, view, None) | {
            view.asking: "",
            view.said: text.notice(f"{told['title']} was removed.", "good"),
        }

    remove.click(guard(ask), [view.song], [view.asking, view.said])
    view.asking.submit(guard.event(answered), None, list(view))


def _follow(operations: Any, guard: Guard, view: View) -> None:
    """While songs are analysed the table follows, once every two seconds, when it has changed."""
    seen = gr.State(["", ""])

    def poll(song_id: str | None, before: list[str]) -> dict[Any, Any]:
        songs = operations.list_songs()
        states = {song["song_id"]: str(song.get("status")) for song in songs}
        now = [f"{hash(tuple(states.items())):x}", states.get(song_id or "", "")]
        if now == before:
            return {}
        changed = _songs(operations, view, song_id) | {seen: now}
        if now[1] == before[1] == "ready":  # somebody may be listening to it, or tapping
            for part in (view.song, view.split, view.drawing, view.about):
                changed.pop(part, None)
        return changed

    gr.Timer(2).tick(
        guard(poll),
        [view.song, seen],
        [view.table, view.song, view.split, view.drawing, view.about, seen],
        queue=False,
        show_progress="hidden",
    )
