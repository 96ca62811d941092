"""How long until the app answers, against importing gradio alone (bar: at most 1.3 times).

    python benchmarks/cold_start.py [--runs 5]

Each round starts the server on a ready, empty workspace and waits until the sign-in page is
served, then times `import gradio` in a fresh interpreter. Prints every round, and the ratio of
the best of each: other work on the machine only ever adds time.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

BAR = 1.3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def seconds_until_served(workspace: Path) -> float:
    port = free_port()
    command = [sys.executable, "-m", "feedback_app", "serve", "--workspace", str(workspace)]
    started = time.perf_counter()
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL) as server:
        while server.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/login", timeout=1) as page:
                    page.read()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.02)
        elapsed = time.perf_counter() - started
        if server.poll() is not None:
            raise SystemExit(f"the server stopped by itself with {server.returncode}")
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    return elapsed


def seconds_to_import_gradio() -> float:
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True, env=environment)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    served, imported = [], []
    with tempfile.TemporaryDirectory() as folder:
        seconds_until_served(Path(folder))  # creates the workspace and warms the disk cache
        seconds_to_import_gradio()
        for count in range(runs):
            served.append(seconds_until_served(Path(folder)))
            imported.append(seconds_to_import_gradio())
            print(f"round {count + 1}: served {served[-1]:.2f} s, gradio {imported[-1]:.2f} s")
    ratio = min(served) / min(imported)
    verdict = "within" if ratio <= BAR else "over"
    print(f"cold start / import gradio = {ratio:.2f} ({verdict} the bar of {BAR})")


if __name__ == "__main__":
    main()
