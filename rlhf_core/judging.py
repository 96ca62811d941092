"""One way to ask any simulated annotator, whether it reads edits (`judges`) or hears them
(`audio_judges`): scores of edits of a song's passage. For dry runs, tests and benchmarks only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rlhf_core.audio.io import Audio, read_audio, to_analysis
from rlhf_core.audio.library import Song
from rlhf_core.audio_judges import AUDIO_JUDGES, RATE
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import ConfigError
from rlhf_core.judges import JUDGES, judge_named
from rlhf_core.types import DoubleArray, IntArray, Passage

CHOOSY = 1.25  # sd of score differences in units of noise at which ~70 % of votes are consistent


class Annotator:
    """A judge of either kind by name. Keeps the audio of one song at a time.

    Raises ConfigError for a name that no judge has.
    """

    def __init__(self, name: str) -> None:
        if name not in JUDGES and name not in AUDIO_JUDGES:
            known = ", ".join([*JUDGES, *AUDIO_JUDGES])
            raise ConfigError(f"no judge {name!r}; there are: {known}")
        self.name = name
        self.listens = name in AUDIO_JUDGES
        self._heard: tuple[str, Audio] | None = None

    def scores(self, song: Song, passage: Passage, edits: Sequence[IntArray]) -> DoubleArray:
        """(N,) how much it likes each edit, of shape (T,) each, of one passage."""
        if self.listens:
            audio = self._audio(song)
            return AUDIO_JUDGES[self.name].score(audio, song.state, passage, edits)
        batch = PassageBatch.from_passages([(song.state, passage)] * len(edits))
        scores = judge_named(self.name).score(batch, torch.from_numpy(np.stack(edits)))
        return np.asarray(scores.double().numpy())

    def unit(self, differences: DoubleArray) -> float:
        """The noise that counts as 1 for it.

        The scores of judges who read are in such units by design; those of judges who listen are
        in decibels and such, so there it is taken from how far the edits at hand lie apart.
        """
        spread = float(np.std(differences)) if self.listens and len(differences) > 1 else 0.0
        return spread / CHOOSY or 1.0

    def _audio(self, song: Song) -> Audio:
        if self._heard is None or self._heard[0] != song.song_id:
            mono = to_analysis(read_audio(song.path))
            self._heard = (song.song_id, Audio(mono[:, None], RATE, song.path))
        return self._heard[1]
