"""The healthchecks: a container that trains is healthy while its runs write, a server while it answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from containers import ROOT

SLEEPER = "import time; time.sleep(60)"


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Path]:
    """The run directory of a process that looks like a trainer."""
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, "--run-dir", str(tmp_path)])
    yield tmp_path
    process.kill()
    process.wait()


def progress(seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "docker/progress.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BEVNEXT_SAM2_SILENT_SECONDS": str(seconds)},
    )


def test_young_run_is_healthy(training: Path) -> None:
    assert str(training) not in progress(30).stdout


def test_run_that_writes_is_healthy_and_one_that_is_silent_is_not(training: Path) -> None:
    log = training / "metrics.jsonl"
    log.write_text("{}\n")
    time.sleep(1.5)
    silent = progress(1)
    assert (silent.returncode, str(training) in silent.stdout) == (1, True)
    later = time.time() + 600  # however long the check takes to start
    os.utime(log, (later, later))
    assert str(training) not in progress(1).stdout


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 500)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to the terminal."""


def test_server_is_asked_past_the_proxy() -> None:
    server = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9"}
    codes = [
        subprocess.run(
            [sys.executable, ROOT / "docker/answers.py", f"{address}/{page}"],
            capture_output=True,
            check=False,
            env=environment,
        ).returncode
        for page in ("well", "ill")
    ]
    server.shutdown()
    assert codes == [0, 1]
