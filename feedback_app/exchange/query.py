"""What an export is asked for: its form, which votes, and what comes along beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from feedback_app.errors import InvalidError

SUFFIXES = {
    "parquet": ".parquet",
    "csv": ".csv",
    "jsonl": ".jsonl",
    "trl": ".jsonl",
    "arena": ".jsonl",
    "imitation": ".npz",
}
FULL = ("parquet", "csv", "jsonl")
VOTERS = ("human", "simulated", "both")
POOLS = ("random", "chosen", "cross", "broad", "repeat", "gold")
SPLITS = ("train", "test")
AUDIO = ("flac", "wav")


@dataclass(frozen=True)
class Query:
    """One export. An empty tuple lets everything through.

    voters: human, simulated or both. rounds: 1 is up to the first trained policy, 2 up to the
    second, … versions: of either side. agreement: only pairs that at least two voters answered and
    of whose answers the most frequent has at least this share (can't judge, hidden repeats left
    out; other filters do not change it). audio: flac or wav, files beside and columns that name
    them. features: each song's beat features as npz (and as observations of `imitation`).
    pseudonyms: in place of annotators' names (see `pseudonyms`).
    """

    form: str = "parquet"
    voters: str = "human"
    rounds: tuple[int, ...] = ()
    versions: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    agreement: float | None = None
    audio: str | None = None
    features: bool = False
    pseudonyms: bool = False

    def __post_init__(self) -> None:
        _one_of("format", (self.form,), tuple(SUFFIXES))
        _one_of("voters", (self.voters,), VOTERS)
        _one_of("pool", self.pools, POOLS)
        _one_of("split", self.splits, SPLITS)
        if self.audio is not None:
            _one_of("audio", (self.audio,), AUDIO)
            if self.form == "imitation":
                raise InvalidError("imitation's form has no place for audio; leave it out")
        if self.agreement is not None and not 0 < self.agreement <= 1:
            raise InvalidError(f"agreement is {self.agreement}; it must be above 0, at most 1")
        if any(number < 1 for number in self.rounds):
            raise InvalidError(f"rounds count from 1, got {min(self.rounds)}")

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.form]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def filters(self) -> list[str]:
        """The filters in words, for the dataset card."""
        who = {"human": "votes of people", "simulated": "simulated votes", "both": "all votes"}
        words = [who[self.voters]]
        for name in ("rounds", "versions", "annotators", "pools", "splits"):
            if values := getattr(self, name):
                hidden = self.pseudonyms and name == "annotators"
                shown = f"{len(values)} chosen" if hidden else ", ".join(map(str, values))
                words.append(f"{name}: {shown}")
        if self.agreement is not None:
            words.append(f"pairs whose voters agree to at least {self.agreement:.0%}")
        return words


def query_from(values: Mapping[str, Any]) -> Query:
    """A checked query from plain values, as JSON or a command line gives them."""
    known = {field.name: field for field in fields(Query)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InvalidError(f"unknown part of an export: {', '.join(unknown)}")
    given = {name: value for name, value in values.items() if value not in (None, "", [], ())}
    try:
        for name in ("versions", "annotators", "pools", "splits"):
            if name in given:
                given[name] = tuple(str(item) for item in given[name])
        if "rounds" in given:
            given["rounds"] = tuple(int(item) for item in given["rounds"])
        if "agreement" in given:
            given["agreement"] = float(given["agreement"])
    except (TypeError, ValueError) as error:
        raise InvalidError(f"an export's filter makes no sense ({error})") from error
    return Query(**given)


def _one_of(name: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise InvalidError(f"{name} {value!r} is not one of {', '.join(known)}")
