"""The systemd unit, the container file and the settings of the guides: what they name is there."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from feedback_app.arguments import build_parser
from feedback_app.settings import PREFIX, Settings

REPOSITORY = Path(__file__).parents[2]
GUIDE = REPOSITORY / "docs" / "operations.md"
SETTINGS = {field.name for field in fields(Settings)}


def block(language: str, containing: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S)
    (text,) = [one for one in found if containing in one]
    return str(text)


def units() -> list[str]:
    """The units of the guide: the app, and the database of several apps."""
    return [
        block("ini", "serve --workspace /srv/audio-editor\nEnv"),
        block("ini", "database serve"),
    ]


def started(words: list[str]) -> str:
    """The command of the app that these words start, once it has understood them."""
    at = words.index("feedback_app")
    assert words[at - 1] == "-m"
    return str(build_parser().parse_args(words[at + 1 :]).command)


def test_the_units_start_commands_that_there_are() -> None:
    commands = []
    for text in units():
        unit = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(text)
        service = unit["Service"]
        commands.append(started(shlex.split(service["ExecStart"])))
        names = re.findall(rf"{PREFIX}(\w+)=", text)
        assert {name.lower() for name in names} <= SETTINGS
        workspace = shlex.split(service["ExecStart"])[-1]
        assert service["ReadWritePaths"] == workspace, "the rest of the disk is read-only"
    assert commands == ["serve", "database"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for number, text in enumerate(units()):
        path = tmp_path / f"audio-editor{number}.service"
        # the program is not installed here: any other that is
        path.write_text(text.replace("/opt/audio-editor/.venv/bin/python", sys.executable), "utf-8")
        told = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        complaints = [line for line in told.stderr.splitlines() if path.name in line]
        assert told.returncode == 0 and not complaints, told.stderr


def test_the_container_file_names_what_there_is() -> None:
    lines = re.sub(r"\\\n", " ", block("dockerfile", "FROM python")).splitlines()
    steps = [line.partition(" ")[::2] for line in lines if line.strip()]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    of = {name: [text for kind, text in steps if kind == name] for name, _ in steps}
    (image,) = of["FROM"]
    assert project["project"]["requires-python"] == f">={image.split(':')[1].split('-')[0]}"
    for copied in of["COPY"]:
        sources = copied.split()[:-1]
        assert all((REPOSITORY / source).exists() for source in sources), copied
    (install,) = [text for text in of["RUN"] if "pip install" in text]
    words = shlex.split(install)
    assert (REPOSITORY / words[words.index("-c") + 1]).is_file() and words[-1] == "."
    names = re.findall(rf"{PREFIX}(\w+)=", " ".join(of["ENV"]))
    assert names and {name.lower() for name in names} <= SETTINGS
    (entry,), (command,) = of["ENTRYPOINT"], of["CMD"]
    words = json.loads(entry) + json.loads(command)
    assert started(words) == "serve" and words[-1] in of["VOLUME"]
    assert of["EXPOSE"] == [str(Settings().port)]
    (health,) = of["HEALTHCHECK"]
    assert f":{Settings().port}/healthz" in health
    compile(re.search(r'python -c "(.*)"', health)[1], "healthcheck", "exec")  # type: ignore[index]


def test_every_setting_that_a_guide_names_is_one() -> None:
    for guide in (*REPOSITORY.glob("docs/*.md"), REPOSITORY / "README.md"):
        named = re.findall(rf"{PREFIX}([A-Z_]+)\b", guide.read_text("utf-8"))
        assert {name.lower() for name in named} <= SETTINGS, guide.name
    table = GUIDE.read_text("utf-8").partition("## Settings")[2].partition("## Log")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert set(named) <= SETTINGS and len(named) >= 10
