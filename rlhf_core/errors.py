"""One family of errors. Every message names the thing, says why, and says what to do.

Low-level exceptions are translated once, at the edge where they are understood,
with ``raise SomeError(...) from error``.
"""

from __future__ import annotations


class CoreError(Exception):
    """Base of everything that `rlhf_core` raises on purpose."""


class AudioError(CoreError):
    """An audio file cannot be read, analysed or rendered."""


class EditError(CoreError):
    """Actions, a passage or an edit decision list make no sense."""


class CheckpointError(CoreError):
    """A checkpoint is missing, damaged, or was made for another version."""


class DataError(CoreError):
    """A preference dataset, a snapshot or one of its rows is not usable."""


class ConfigError(CoreError):
    """An argument or a setting is outside what it may be."""
