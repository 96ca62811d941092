"""The commands of the guides, as somebody would type them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
GUIDES = ("README.md", "docs/training-guide.md", "docs/researchers.md", "docs/operations.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"\w+=\S")
LOOKS_TYPED = re.compile(r"^(\S*python -m|make |torchrun |\$\w+ )", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a guide."""

    guide: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Typed:
    """One command of a `bash` block. before: the variables that the block set above it."""

    guide: str
    line: int
    text: str
    before: str = ""

    @property
    def where(self) -> str:
        return f"{self.guide}:{self.line}: {self.text}"

    def words(self) -> list[str]:
        """The command's words, the block's variables filled in."""
        text = self.text
        for name, value in re.findall(r"(\w+)=\"?([^\"\n]+)\"?", self.before):
            text = text.replace(f"${name}", value)
        return shlex.split(text, comments=True)


def blocks(guide: str) -> list[Block]:
    text = (REPOSITORY / guide).read_text(encoding="utf-8")
    return [
        Block(guide, text.count("\n", 0, found.start()) + 2, found[1], found[2])
        for found in FENCE.finditer(text)
    ]


def commands(guide: str) -> list[Typed]:
    """Every command of a guide's bash blocks, in order; continued lines are one."""
    found: list[Typed] = []
    for block in blocks(guide):
        if block.language != "bash":
            continue
        before, pending, line = "", "", block.line
        for number, row in enumerate(block.text.splitlines(), start=block.line):
            line = line if pending else number
            pending += row.removesuffix("\\")
            if row.endswith("\\"):
                continue
            text, pending = re.sub(r"\s+# .*$", "", pending).strip(), ""
            if ASSIGNMENT.match(text):
                before += text + "\n"
            elif text and not text.startswith("#"):
                found.append(Typed(guide, line, text, before))
    return found


def inline(guide: str) -> list[str]:
    """What stands between backticks in a guide's sentences."""
    text = FENCE.sub("", (REPOSITORY / guide).read_text(encoding="utf-8"))
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]
