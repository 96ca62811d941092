"""What each simulated annotator likes, in words, by name.

Apart from their code, so that a page can offer them without loading what they compute with:
`READING` are those of `judges` (they read the edit and the beat features), `LISTENING` those of
`audio_judges` (they hear the rendered sound).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

READING: Final = MappingProxyType(
    {
        "tight": "short edits, a little over half of the passage",
        "long": "nearly everything kept",
        "clean_joins": "joins that sound as if there were none",
        "bar_true": "the count of the bar never breaks",
        "energy_build": "the end louder than the beginning",
        "hates_repetition": "nothing twice, bars unlike each other",
        "dynamic": "loud and soft, far apart",
        "vocals_first": "the stretches with the most voice",
        "steady_drums": "strong drums, bars unbroken",
        "keeps_chorus": "the loud stretches that come back, kept",
        "no_flaws": "no bar that is unlike all others, no hole",
        "mixture": "a bit of everything, about 70 % of the passage",
    }
)
LISTENING: Final = MappingProxyType(
    {
        "heard_seamless": "no step in the sound where pieces meet",
        "heard_big_finish": "the last third louder than the first",
        "heard_bright": "bright rather than dark sound",
        "heard_varied": "no two seconds alike",
        "heard_even": "no quiet holes",
    }
)


def listed(tastes: Mapping[str, str]) -> str:
    """Names and tastes, one a line, for a help text."""
    return "\n".join(f"  {name:<18} {taste}" for name, taste in tastes.items())
