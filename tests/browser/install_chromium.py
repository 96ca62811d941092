"""Make sure that there is a Chromium for the browser tests; say what was done.

Looks for one that is installed. If there is none: the Debian package when run as root on Debian,
else the one that playwright brings itself. Quick when there is nothing to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def installed() -> str | None:
    """Path of a Chromium on the PATH or in playwright's own folder."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    return playwrights_own()


def playwrights_own() -> str | None:
    """Path of the Chromium that playwright downloaded, if it is there."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return str(path) if path.exists() else None


def install() -> None:
    """Install a Chromium. Raises CalledProcessError when that fails."""
    debian = Path("/etc/debian_version").exists() and shutil.which("apt-get")
    if debian and os.geteuid() == 0:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        print("No Chromium found: installing the Debian package …", flush=True)
        subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"]
        subprocess.run(command, check=True, env=environment)
        return
    print("No Chromium found: downloading playwright's own …", flush=True)
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


def main() -> int:
    if found := installed():
        print(f"Chromium: {found}")
        return 0
    try:
        install()
    except subprocess.CalledProcessError as error:
        print(
            f"error: installing a Chromium failed ({error}). Install one by hand, so that "
            f"one of {', '.join(NAMES)} is on the PATH, and run this again.",
            file=sys.stderr,
        )
        return 2
    found = installed()
    print(f"Chromium: {found}" if found else "error: still no Chromium after installing")
    return 0 if found else 2


if __name__ == "__main__":
    sys.exit(main())
