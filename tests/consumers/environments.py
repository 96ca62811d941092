"""Environments of libraries whose pins conflict with ours, each made once from an exact list.

    python tests/consumers/environments.py          make all that are missing or out of date

`.consumers/<name>` is made from `tests/consumers/<name>.txt`; `make test-long` calls this first. A
list may name torch: pip must then find the same build as for the project itself.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
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
    subprocess.run([*pip, "--quiet", "-r", str(wanted)], check=True)
    stamp.write_text(digest)
    return python


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        python_of(each)
