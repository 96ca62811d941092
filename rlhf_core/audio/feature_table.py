"""The 121 beat features: names, widths and places. The one home of every width.

A beat's feature vector is the concatenation of the groups below, in this order.
The reward model reads these 121 values and 4 edit-aware ones (`EDIT_FEATURES`), 125 in all.

Changing the table, or how any value is computed, means a new `FEATURE_VERSION`: it travels
in every cache file and checkpoint, and a mismatch is refused.
"""

from __future__ import annotations

from typing import Final

FEATURE_VERSION: Final = "beat-features-1"

_GROUPS: Final[tuple[tuple[str, int], ...]] = (
    ("onset_strength", 1),
    ("rms", 1),
    ("spectral_centroid", 1),
    ("zero_crossing_rate", 1),
    ("rolloff", 1),
    ("bandwidth", 1),
    ("flatness", 1),
    ("spectral_contrast", 7),
    ("mfcc", 13),
    ("mfcc_delta", 13),
    ("chroma", 12),
    ("beat_phase", 3),  # position in bar (0..1), is-downbeat, position in the 8-beat phrase
    ("tempo_deviation", 1),
    ("interval_ratio", 1),
    ("temporal_delta", 52),  # beat-to-beat change of the first 52 columns
    ("stem_energy", 4),  # drums, bass, vocals, other
    ("stem_centroid", 4),
    ("stem_ratio", 4),
)

STEMS: Final = ("drums", "bass", "vocals", "other")
EDIT_FEATURES: Final = ("kept", "cut", "output_position", "local_keep_density")


def _slices() -> dict[str, slice]:
    table, start = {}, 0
    for name, width in _GROUPS:
        table[name] = slice(start, start + width)
        start += width
    return table


FEATURE_SLICES: Final[dict[str, slice]] = _slices()
BEAT_FEATURES: Final = sum(width for _, width in _GROUPS)
INPUT_FEATURES: Final = BEAT_FEATURES + len(EDIT_FEATURES)
DELTA_SOURCE: Final = slice(
    0, FEATURE_SLICES["chroma"].stop
)  # what `temporal_delta` differentiates
