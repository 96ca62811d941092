"""Environments of libraries whose pins conflict with ours, each made once from an exact list.

    python tests/consumers/environments.py          make all that are missing or out of date

`.consumers/<name>` is made from `tests/consumers/<name>.txt`; `make test-long` calls this first. An
environment's own libraries come first; what it does not have (torch, numpy, …) it finds in the
project's environment, so that nothing large is installed twice.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent / ".consumers"
NAMES = ("imitation", "trl")


def python_of(name: str) -> Path:
    """The interpreter of an environment, which is made where it is missing or out of date."""
    wanted, folder = HERE / f"{name}.txt", ROOT / name
    python, stamp = folder / "bin" / "python", folder / "made-from"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return python
    print(f"making {folder} from {wanted.name}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    subprocess.run([*pip, "--quiet", "--no-compile", "-r", str(wanted)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    stamp.write_text(digest)
    return python


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        python_of(each)
