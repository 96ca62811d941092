"""Teaching an audio editor by human preference: audio, editing, reward and policy learning.

Importing this package imports nothing heavy: torch comes in with `reward`, `policy` and
`editing.dynamics`, scipy with `audio`. The web process relies on that.
"""

__version__ = "0.1.0"
