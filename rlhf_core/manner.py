"""How a simulated annotator answers, whatever its taste: noise, ties, lapses, a side it leans to.

The teachers of B-Pref (Lee et al. 2021, arXiv:2111.03026). Apart from the judges, so that a page or
a command line can offer it without loading what they compute with. Everything here is simulated.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from rlhf_core.errors import ConfigError
from rlhf_core.types import DoubleArray

TIE_MARGIN: Final = 0.25  # of the noise: closer than this looks the same to a judge
LAPSE: Final = 0.02  # share of votes given without listening
STRENGTH_STEPS: Final = (0.8, 1.8)  # felt differences, in units of noise, for strength 2 and 3
HELP: Final = MappingProxyType(
    {
        "noise": "how much it errs: at 1 about 70 %% of its votes are right, 0 never errs",
        "tie_margin": "what it feels as no difference, in units of noise: larger, more ties",
        "lapse": "share of votes given without listening",
        "skip": "share of pairs that it cannot judge",
        "side_bias": "how it leans to the left, where a is, in logits (negative: to the right)",
        "both_bad": "share of pairs, those with the worst better side, called both bad",
    }
)


@dataclass(frozen=True)
class Manner:
    """noise: temperature: p(a) is the sigmoid of the score difference over it; 0 never errs, and
    ties only what is equal. tie_margin: felt differences below it, in units of noise, are ties.
    lapse: share of votes given without listening. skip: share not given ("can't judge").
    side_bias: logits added for the edit on the left. both_bad: share of the pairs at hand, those
    whose better side it likes least, that are bad on both sides.
    """

    noise: float = 1.0
    tie_margin: float = TIE_MARGIN
    lapse: float = LAPSE
    skip: float = 0.0
    side_bias: float = 0.0
    both_bad: float = 0.0

    def __post_init__(self) -> None:
        values = asdict(self)
        if not all(np.isfinite(value) for value in values.values()):
            raise ConfigError(f"a judge's manner is made of finite numbers, got {values}")
        if self.noise < 0 or self.tie_margin < 0:
            raise ConfigError(f"a judge's noise and tie margin are 0 or more, got {values}")
        if not all(0 <= share <= 1 for share in (self.lapse, self.skip, self.both_bad)):
            raise ConfigError(f"lapse, skip and both_bad are shares between 0 and 1, got {values}")

    def floor(self, better: DoubleArray) -> float | None:
        """The score below which both sides are bad, from the pairs' better scores (n,)."""
        if not self.both_bad or not len(better):
            return None
        return float(np.quantile(better, self.both_bad, method="higher"))

    def answer(
        self,
        score_a: float,
        score_b: float,
        rng: np.random.Generator,
        a_left: bool | None = None,
        floor: float | None = None,
    ) -> tuple[str, int | None]:
        """One simulated vote: (choice, strength), choice one of a, b, tie, both_bad, skip.

        a_left: which side a was on; None where no side is known (then no bias either). floor: the
        score below which an edit is bad (see `floor`).
        """
        if self.skip and rng.random() < self.skip:
            return "skip", None
        bad = floor is not None and max(score_a, score_b) < floor
        if self.noise == 0:
            choice = "tie" if score_a == score_b else "a" if score_a > score_b else "b"
            choice = "both_bad" if bad else choice
            return choice, 2 if choice in ("a", "b") else None
        if rng.random() < self.lapse:
            return ("a" if rng.random() < 0.5 else "b"), 1
        if bad:
            return "both_bad", None
        felt = (score_a - score_b) / self.noise + float(rng.logistic())
        if a_left is not None:
            felt += self.side_bias if a_left else -self.side_bias
        if abs(felt) < self.tie_margin:
            return "tie", None
        strength = 1 + sum(abs(felt) > step for step in STRENGTH_STEPS)
        return ("a" if felt > 0 else "b"), strength


def cast_vote(
    score_a: float, score_b: float, rng: np.random.Generator, noise: float = 1.0
) -> tuple[str, int | None]:
    """A simulated vote of a judge with the usual manner: (choice, strength), choice a, b or tie.

    noise about 1 gives votes that agree with the judge's order about 70 % of the time.
    """
    return Manner(noise).answer(score_a, score_b, rng)


def add_arguments(parser: argparse.ArgumentParser, joint: str = "_") -> None:
    """One option for each part of a manner. joint: what stands between the words of a name."""
    for field in fields(Manner):
        parser.add_argument(
            f"--{field.name.replace('_', joint)}",
            type=float,
            default=field.default,
            metavar="X",
            help=f"{HELP[field.name]} ({field.default:g})",
        )


def manner_of(values: dict[str, Any]) -> Manner:
    """The manner among other settings; what is not given is as usual. Raises ConfigError."""
    known = {field.name for field in fields(Manner)}
    return replace(Manner(), **{name: float(x) for name, x in values.items() if name in known})
