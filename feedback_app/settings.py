"""The app's settings: one frozen dataclass, from defaults, settings.json and the environment.

Later wins: default, `settings.json` in the workspace, `FEEDBACK_APP_<NAME>` in the environment.
A name or a value that is not known is refused with the list of what is.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from feedback_app.errors import InvalidError
from feedback_app.logs import FORMATS, LEVELS
from rlhf_core.files import read_json, write_json

PREFIX = "FEEDBACK_APP_"
POLICY_STEPS = 100_000  # of a training, as of `train_rlhf`, unless another number is asked for
DRY_RUN_STEPS = 20_000  # of each round's training, likewise
# A bootstrap of one's own library, likewise.
REBUILT_DEMO_SONGS, REBUILT_STEPS, REBUILT_PAIRS = 40, 2000, 12_000


@dataclass(frozen=True)
class Settings:
    """What a researcher may choose. Seconds end in _s; shares are 0..1.

    imitation_steps: 0 leaves the number to the command. test_share: share of added songs that are
    held out for testing. headphone_skip: an annotator may go on without passing the headphone
    check; headphone_again: who skipped or failed it is asked again at each sitting.
    assign_score, assign_random, assign_cross: shares in which waiting pairs are given: by what a
    vote would tell the newest reward model (0: nothing is ranked), by chance, across versions.
    repeat_rate, gold_rate: shares of hidden repeats (sides swapped, after repeat_gap other
    votes at least) and of pairs with an obviously broken edit. fast_vote_ms: a vote that comes
    sooner after both sides were heard is noted as too fast. launcher: put before a run's command
    (torchrun, srun, ssh) of the kinds in launcher_kinds; a word with {command} takes the whole
    command as shell text. version_examples: rendered beside each new policy; 0: none.
    max_upload_mb is of one file, max_upload_total_mb of one upload.
    min_free_mb: with less room on the disk nothing is written to the database.
    database_memory_mb: what the database keeps in memory at most.
    log_format: text or json. log_requests: a line for each request, not only for faults and slow
    ones. metrics_token: who sends it may read /metrics from another machine; empty: nobody.
    database: empty for the file in the workspace, or quack:HOST:PORT of `database serve`;
    database_token: its token; empty: what stands in database.token of the workspace.
    …_per_minute: how often one person may ask (sign-ins: one address); a minute's worth at once.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    session_days: int = 14
    max_upload_mb: int = 300
    max_upload_total_mb: int = 2000
    min_free_mb: int = 50
    database_memory_mb: int = 1024
    log_format: str = "text"
    log_level: str = "info"
    log_requests: bool = False
    metrics_token: str = ""
    database: str = ""
    database_token: str = ""
    sign_ins_per_minute: int = 60
    votes_per_minute: int = 240
    reads_per_minute: int = 1200
    uploads_per_minute: int = 120
    actions_per_minute: int = 1200
    # Annotation
    votes_per_pair: int = 1
    lease_minutes: int = 30
    goal: int = 30
    required_region_share: float = 1.0
    required_cap_s: float = 8.0
    tags: tuple[str, ...] = ("rough join", "lost groove", "good flow", "too short", "too long")
    headphone_check: bool = True
    headphone_skip: bool = True
    headphone_again: bool = True
    repeat_rate: float = 0.06
    repeat_gap: int = 8
    gold_rate: float = 0.04
    fast_vote_ms: int = 250
    assign_score: float = 0.5
    assign_random: float = 0.35
    assign_cross: float = 0.15
    # Making pairs
    auto_generate: bool = True
    low_water: int = 6
    generate_count: int = 12
    auto_prepare: bool = True
    first_pairs: int = 24
    bootstrap_time_limit_s: float = 45.0
    bootstrap_pairs: int = 5000
    imitation_steps: int = 0
    test_share: float = 0.25
    share_random: float = 0.25
    share_chosen: float = 0.35
    share_cross: float = 0.15
    share_broad: float = 0.25
    # Runs
    version_examples: int = 3
    launcher: tuple[str, ...] = ()
    launcher_kinds: tuple[str, ...] = ("train-policy", "bootstrap")
    nice: int = 10
    threads: int = 1
    cancel_grace_s: float = 20.0

    def __post_init__(self) -> None:
        for low, high, names in RANGES:
            for name in names:
                value = getattr(self, name)
                if not (low <= value <= high and math.isfinite(value)):
                    wanted = f">= {low}" if high == math.inf else f"{low}..{high}"
                    raise InvalidError(f"setting {name} is {value}; it must be {wanted}")
        for names in (SHARES, ASSIGN):
            if abs(sum(getattr(self, name) for name in names) - 1) > 1e-6:
                raise InvalidError(f"settings {', '.join(names)} must add up to 1")
        if self.assign_random == 0:
            raise InvalidError(
                "setting assign_random is 0; it must be above 0: accuracy is measured on pairs "
                "that were given by chance"
            )
        self._check_operation()
        if any(not word.strip() for word in self.launcher):
            raise InvalidError("setting launcher has an empty word; give one word per item")

    def _check_operation(self) -> None:
        for name, choices in (("log_format", FORMATS), ("log_level", LEVELS)):
            if getattr(self, name) not in choices:
                raise InvalidError(
                    f"setting {name} is {getattr(self, name)!r}; it must be {' or '.join(choices)}"
                )
        if self.metrics_token and len(self.metrics_token) < 16:
            raise InvalidError("setting metrics_token is too short: 16 characters at least")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


RATES = (
    "sign_ins_per_minute", "votes_per_minute", "reads_per_minute", "uploads_per_minute",
    "actions_per_minute",
)  # fmt: skip
SHARES = ("share_random", "share_chosen", "share_cross", "share_broad")
ASSIGN = ("assign_score", "assign_random", "assign_cross")
RANGES: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (1, math.inf, (
        "max_upload_mb", "max_upload_total_mb", "votes_per_pair", "goal", "generate_count",
        "threads", "first_pairs", "bootstrap_pairs", "repeat_gap", "bootstrap_time_limit_s", *RATES,
    )),
    (0, math.inf, (
        "min_free_mb", "required_cap_s", "fast_vote_ms", "low_water", "imitation_steps",
        "version_examples", "cancel_grace_s",
    )),
    (0, 1, (
        "required_region_share", "test_share", "repeat_rate", "gold_rate", *SHARES, *ASSIGN,
    )),
    (64, math.inf, ("database_memory_mb",)),  # with less the log itself does not fit
    (1, 3650, ("session_days",)),  # what a date can hold
    (1, 525_600, ("lease_minutes",)),
    (0, 19, ("nice",)),  # what a user may ask of Linux
    (0, 65535, ("port",)),
)  # fmt: skip


def load_settings(
    workspace: Path, environ: Mapping[str, str] | None = None, **overrides: Any
) -> Settings:
    """Settings of a workspace. `overrides` (from the command line) win over everything."""
    values = _from_file(workspace) | _from_environment(environ)
    values.update({name: value for name, value in overrides.items() if value is not None})
    return settings_from(values)


def change_settings(
    workspace: Path, values: Mapping[str, str], unset: Sequence[str] = ()
) -> Settings:
    """Write settings into settings.json, take others out of it; returns all as they then are.

    Raises InvalidError, and writes nothing, where they would not be valid together.
    """
    _check_known({*values, *unset})
    kept = {name: value for name, value in _from_file(workspace).items() if name not in unset}
    kept |= {name: _typed(name, text) for name, text in values.items()}
    settings_from(kept)
    settings = settings_from(kept | _from_environment(None))
    write_json(workspace / "settings.json", kept)
    return settings


def sources_of(workspace: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where the value of each setting comes from that is not the default."""
    return dict.fromkeys(_from_file(workspace), "settings.json") | {
        name: f"environment, {PREFIX}{name.upper()}" for name in _from_environment(environ)
    }


def _from_file(workspace: Path) -> dict[str, Any]:
    path = workspace / "settings.json"
    if not path.exists():
        return {}
    try:
        read = read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path}: not JSON ({error}). Mend it or remove it.") from error
    if not isinstance(read, dict):
        raise InvalidError(f"{path}: must be a JSON object of settings.")
    return read


def _from_environment(environ: Mapping[str, str] | None) -> dict[str, Any]:
    given = os.environ if environ is None else environ
    return {
        name.removeprefix(PREFIX).lower(): text
        for name, text in given.items()
        if name.startswith(PREFIX)
    }


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Checked settings from plain values; text is read as the field's type."""
    _check_known(values)
    return Settings(**{name: _typed(name, value) for name, value in values.items()})


def _check_known(names: Collection[str]) -> None:
    known = [field.name for field in fields(Settings)]
    if unknown := sorted(set(names) - set(known)):
        raise InvalidError(f"unknown setting {', '.join(unknown)}; known: {', '.join(known)}")


def _typed(name: str, value: Any) -> Any:
    kind = type(getattr(Settings, name))
    try:
        if kind is bool:
            return _boolean(value)
        if kind is tuple:
            items = value.split(",") if isinstance(value, str) else value
            return tuple(str(item) for item in items if str(item))
        fraction = kind is int and isinstance(value, float) and value != int(value)
        if fraction or (kind in (int, float) and isinstance(value, bool)):
            raise ValueError(value)
        return kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidError(f"setting {name} is {value!r}; expected a {kind.__name__}") from error


def _boolean(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]
