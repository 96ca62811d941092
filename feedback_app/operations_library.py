"""Operations on songs and pairs."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from feedback_app.database import Row, utc_now
from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.operations_base import Base, plain
from feedback_app.receiving import AUDIO_SUFFIXES, MEGABYTE, Receiving
from rlhf_core.audio.corrections import add_correction
from rlhf_core.files import atomic_path


class LibraryOperations(Base):
    """Songs come in, are analysed, split and corrected; pairs are listed."""

    def add_songs(self, paths: list[str], synthetic: bool = False) -> Row:
        """Copy files (or the audio files of folders) into the library and analyse them.

        Returns {run_id (None where nothing is new), added, skipped: [{path, reason}]}.
        """
        added: list[str] = []
        skipped: list[Row] = []
        for path in _audio_files(paths):
            try:
                song_id = self._take_in(path, synthetic)
            except (InvalidError, OSError) as error:
                skipped.append({"path": _readable(str(path)), "reason": _readable(str(error))})
                continue
            if song_id is None:
                told = {"path": _readable(str(path)), "reason": "it is in the library already"}
                skipped.append(told)
            else:
                added.append(song_id)
        run_id = self.jobs.submit("analyse", {"songs": added}) if added else None
        return {"run_id": run_id, "added": len(added), "skipped": skipped}

    def add_uploads(self, keys: list[str]) -> Row:
        """Take in what the page has sent whole; see `receiving`. Answers as `add_songs`."""
        receiving = Receiving(self.workspace.root, self.settings)
        answer = self.add_songs([str(receiving.take(key)) for key in keys])
        for key in keys:
            receiving.drop(key)
        return answer

    def _take_in(self, path: Path, synthetic: bool) -> str | None:
        """Copy one file under its content's name; None where it is there already."""
        size, limit = path.stat().st_size, self.settings.max_upload_mb * MEGABYTE
        if size > limit:
            raise InvalidError(
                f"{path.name} has {size / MEGABYTE:.0f} MB, the limit is "
                f"{self.settings.max_upload_mb} MB (setting max_upload_mb)"
            )
        with path.open("rb") as file:
            song_id = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        name = _readable(path.name)
        target = self.workspace.songs / song_id / name
        known = self.store.find_song(song_id)
        if known is not None and known["status"] not in ("failed", "removed"):
            return None
        with atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)
        row = {
            "song_id": song_id,
            "path": self.workspace.relative(target),
            "title": name,
            "split": self._split_of_next(),
            "status": "analysing",
            "synthetic": synthetic,
            "added_at": utc_now(),
        }
        if not self.store.add_song(row):
            self.store.reanalyse_song(song_id, self.workspace.relative(target), name)
        return song_id

    def _split_of_next(self) -> str:
        """Hold out every so many-th song for testing, as the setting `test_share` says."""
        splits = [song["split"] for song in self.store.songs() if song["status"] != "failed"]
        wanted = int((len(splits) + 1) * self.settings.test_share)
        return "test" if wanted > splits.count("test") else "train"

    def list_songs(self) -> list[Row]:
        """Every song, without the long arrays."""
        return [plain(row) for row in self.store.songs()]

    def song_view(self, song_id: str) -> Row:
        """One song with waveform, beat times and bar phases, and how much hangs on it."""
        song = self._song(song_id)
        return plain(song | self.store.song_counts(song_id))

    def _song(self, song_id: str) -> Row:
        song = self.store.song(song_id)
        if song["status"] == "removed":
            raise NotFoundError(f"the song {song['title']} was removed; add its file again")
        return song

    def song_audio(self, song_id: str) -> Path:
        """The song's own file, to listen to while its beats are put right."""
        return self.workspace.resolve(self._song(song_id)["path"])

    def set_split(self, song_id: str, split: str) -> dict[str, str]:
        """Train or test; fixed as soon as there are pairs of the song."""
        if split not in ("train", "test"):
            raise InvalidError(f"split {split!r} is not train or test")
        song = self._song(song_id)
        pairs = self.store.song_counts(song_id)["pairs"]
        if pairs and song["split"] != split:
            raise ConflictError(
                f"{song['title']} stays a {song['split']} song: there are {pairs} pairs of it, and "
                "versions were trained or judged by the split as it is. Choose before the first "
                "pair is made (setting test_share), or use another song."
            )
        self.store.set_split(song_id, split)
        return {"song_id": song_id, "split": split}

    def remove_song(self, song_id: str, confirmed: bool = False) -> Row:
        """Delete a song's audio and all that was rendered of it; unconfirmed, only say what goes.

        Its pairs are given to nobody any more. Votes on them are kept and exported, but leave the
        snapshots that models learn from; versions that learned from them stay as they are.
        """
        song = self._song(song_id)
        busy = [run["run_id"] for run in self.store.open_runs()]
        if confirmed and busy:
            raise ConflictError(
                f"{song['title']} cannot be removed while runs may read it ({', '.join(busy)}); "
                "wait for them or cancel them"
            )
        files = self._files_of_song(song_id)
        told = {
            "song_id": song_id, "title": song["title"], "split": song["split"],
            "files": len(files), "bytes": sum(path.stat().st_size for path in files),
            "removed": confirmed, **self.store.song_counts(song_id),
        }  # fmt: skip
        if confirmed:
            self.store.remove_song(song_id)
            for path in files:
                path.unlink(missing_ok=True)
            shutil.rmtree(self.workspace.songs / song_id, ignore_errors=True)
        return told

    def _files_of_song(self, song_id: str) -> list[Path]:
        """Its audio, its analysis and what was rendered of it, inside the workspace alone."""
        rendered = (self.workspace.resolve(path) for path in self.store.song_audio(song_id))
        found = [
            *(self.workspace.songs / song_id).glob("*"), *self.workspace.cache.glob(f"{song_id}.*"),
            *(path for path in rendered if path.is_relative_to(self.workspace.root)),
        ]  # fmt: skip
        return sorted({path for path in found if path.is_file()})

    def correct_beats(self, song_id: str, how: str) -> Row:
        """Correct a song's beats (double, halve, three_halves, offset:N, bars:N, tap:T1,T2,…).

        Its pairs are taken out: their edits count beats that are not there any more.
        """
        self._song(song_id)
        add_correction(self.workspace.cache, song_id, how)
        self.store.beats_changed(song_id)
        return {"run_id": self.jobs.submit("analyse", {"songs": [song_id]})}

    def pairs_overview(self) -> dict[str, int]:
        """{open, done, total} pairs."""
        return dict(self.store.pool_counts(self.settings.votes_per_pair))

    def list_pairs(self, limit: int = 100) -> list[Row]:
        return [plain(row) for row in self.store.list_pairs(limit)]

    def pair_view(self, pair_id: str) -> Row:
        """A pair with both edits and how it was voted on: for researchers."""
        pair = self.store.pair(pair_id)
        shown = (
            "edit_id",
            "policy",
            "preset",
            "temperature",
            "seed",
            "duration_s",
            "edl",
            "actions",
        )
        edits = {side: self.store.edit(pair[side]) for side in ("edit_a", "edit_b")}
        return {
            "pair_id": pair_id,
            "title": self.store.song(pair["song_id"])["title"],
            "start_beat": edits["edit_a"]["start_beat"],
            "end_beat": edits["edit_a"]["end_beat"],
            "pool": pair["pool"],
            "run_id": pair["run_id"],
            "regions_a": pair["regions_a"],
            "regions_b": pair["regions_b"],
            **{side: {name: edit[name] for name in shown} for side, edit in edits.items()},
            **self.store.votes_on(pair_id),
        }

    def empty_message(self) -> str:
        """What an annotator is told when there is no pair to give."""
        if self.jobs.active("generate", "imitation", "bootstrap", "analyse"):
            return "New pairs are being made. This page goes on by itself when they are ready."
        if self.makes_pairs_itself():
            return "You have heard every pair. More will be made now; this page goes on by itself."
        if self.pairs_overview()["total"] == 0:
            return "There are no pairs yet. Ask the researcher to add songs."
        last = self.store.latest_run("generate")
        if last is not None and last["state"] == "failed":
            return "The last try to make new pairs failed. The researcher can see why under Train."
        return "You have heard every pair that is waiting. Thank you; come back later for more."

    def media_path(self, media: str, name: str, researcher: bool) -> Path:
        """The audio behind an opaque name, for its annotator or a researcher."""
        row = self.store.assignment_of_media(media)
        if row is None or (row["annotator"] != name and not researcher):
            raise NotFoundError("there is no such audio, or it is not yours to hear")
        pair = self.store.pair(row["pair_id"])
        if media == row["media_original"]:
            return self.workspace.resolve(pair["original_path"])
        left = media == row["media_left"]
        return self.edit_audio(pair["edit_b"] if left == row["b_first"] else pair["edit_a"])

    def assignment_of(self, media: str) -> str:
        """The assignment that an opaque name of a sound belongs to."""
        row = self.store.assignment_of_media(media)
        if row is None:
            raise NotFoundError("there is no such audio, or it is not yours to hear")
        return str(row["assignment_id"])

    def edit_audio(self, edit_id: str) -> Path:
        return self.workspace.resolve(self.store.edit(edit_id)["audio_path"])

    def original_audio(self, pair_id: str) -> Path:
        return self.workspace.resolve(self.store.pair(pair_id)["original_path"])


def _readable(name: str) -> str:
    """A file's name as text that can be stored, with a ? for bytes that are not UTF-8."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _audio_files(paths: list[str]) -> list[Path]:
    """The files named, and the audio files inside the folders named; NotFoundError for neither."""
    found: list[Path] = []
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            if not inside:
                kinds = ", ".join(AUDIO_SUFFIXES)
                raise NotFoundError(f"{path}: no audio files in this folder ({kinds})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise NotFoundError(f"{path}: there is no such file or folder")
    return found
