"""Every command that a guide names is one that the programs know, option by option."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from guides import GUIDES, LOOKS_TYPED, REPOSITORY, Typed, blocks, commands, inline

from feedback_app.arguments import build_parser, command_names

ALL = [typed for guide in GUIDES for typed in commands(guide)]
SHELL = {"mkdir", "tail"}  # what the guides use beside the programs


class ParsedError(Exception):
    """Raised by a program's own parser, once it has taken every word."""


def parse(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `python -m module` parse these words, and go no further. SystemExit: it refuses them."""
    if module == "feedback_app":
        build_parser().parse_args(words if set(words) & command_names() else ["serve", *words])
        return
    real = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: object = None, namespace: object = None) -> None:
        real(self, args, namespace)  # type: ignore[call-overload]
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(ParsedError):
        importlib.import_module(module).main(words)
    monkeypatch.undo()


def is_known(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> bool:
    words = typed.words()
    if words[0] == "make":
        return f"\n{words[1]}:" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    if "-m" not in words:
        return words[0] in SHELL
    at = words.index("-m")
    assert words[0] == "torchrun" or words[0].endswith("python"), typed.where
    try:
        parse(words[at + 1], words[at + 2 :], monkeypatch)
    except SystemExit:
        return False
    return True


def test_every_command_is_known_to_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = [typed.where for typed in ALL if not is_known(typed, monkeypatch)]
    assert not unknown
    assert len(ALL) > 40  # so many there were when this was written


def test_what_looks_typed_is_marked_as_such() -> None:
    unmarked = [
        f"{block.guide}:{block.line}"
        for guide in GUIDES
        for block in blocks(guide)
        if block.language == "" and LOOKS_TYPED.search(block.text)
    ]
    assert not unmarked, "mark these blocks as bash, so that they are tried"


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_in_sentences_are_known(guide: str) -> None:
    """`songs split ID test` and the like: all words of it, or (bare) a command of that name."""
    parser, wrong = build_parser(), []
    for text in inline(guide):
        text = re.sub(r"^(\.venv/bin/)?python -m feedback_app ", "", text)
        words = shlex.split(text) if text.count("'") % 2 == text.count('"') % 2 == 0 else []
        if not words or words[0] not in command_names():
            continue
        bare = len(words) <= 2 and not any(word.startswith("-") or word.isupper() for word in words)
        try:
            parser.parse_args([*words, "--help"] if bare else words)
        except SystemExit as error:
            if error.code != 0:
                wrong.append(text)
    assert not wrong


PICTURE_LIMIT = 150_000  # bytes: a page of the guide is read over slow lines, too


def test_links_lead_somewhere_and_pictures_are_small() -> None:
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    wrong = []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path = page.parent / target.partition("#")[0]
            if target.startswith(("http://", "https://", "#")):
                continue
            large = path.suffix == ".png" and path.exists() and path.stat().st_size > PICTURE_LIMIT
            if not path.exists() or large:
                wrong.append(f"{page.name}: {target}")
    assert len(pages) > 7 and not wrong
