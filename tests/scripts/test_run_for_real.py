"""`scripts/run.sh train`, `tensorboard` and `dev` without a container, in the environment that it has set up itself."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

import pytest

from launcher.main import run
from launcher.own_process import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not (ROOT / ".venv/bevnext_sam2_set_up").is_file(), reason="scripts/set_up.sh has made no environment here"
    ),
]
DIRECT = build_opener(ProxyHandler({}))
SECONDS = 900


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def started(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`run.sh` with what it says in `log`; asked to end at the end, and then it must."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BEVNEXT_SAM2_")}
    with log.open("wb") as told:
        process = subprocess.Popen(
            [ROOT / "scripts/run.sh", *words],
            cwd=log.parent,
            env=clean,
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(SECONDS)


def wait_for(what: str, log: Path, process: subprocess.Popen[bytes], pattern: str) -> re.Match[str]:
    deadline = time.monotonic() + SECONDS
    while not (found := re.search(pattern, log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"no {what}: {log.read_text()}"
        time.sleep(0.5)
    return found


def answer(address: str) -> int:
    """The status of a page, as soon as somebody answers."""
    deadline = time.monotonic() + SECONDS
    while (status := asked(address)) is None:
        assert time.monotonic() < deadline, f"nobody answers at {address}"
        time.sleep(0.5)
    return status


def asked(address: str) -> int | None:
    try:
        with DIRECT.open(address, timeout=30) as page:
            return int(page.status)
    except HTTPError as refusal:
        return refusal.code
    except (URLError, TimeoutError):
        return None


def test_train(tmp_path: Path) -> None:
    size = ["--scenes", "5", "--samples", "2", "--image-size", "160x90", "--no-lidar-sweeps", "--reach", "20"]
    assert run(["data", "synth", "--out", str(tmp_path / "data"), "--workers", "1", *size]) == 0
    recipe = ["--config", "synthetic/bevnext-smoke", "--set", "data.source_size=[90,160]", "--epochs", "1"]
    place = ["--data-root", str(tmp_path / "data"), "--output-dir", str(tmp_path), "--run", "r"]
    with started(tmp_path / "log", "train", *recipe, *place, "--num-processes", "1", "--workers", "0") as process:
        code = process.wait(SECONDS)
    assert code == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "r/checkpoints/latest/manifest.json").is_file()


def test_tensorboard_tells_its_address_and_answers_on_this_machine_alone(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with started(log, "tensorboard", "--port", str(port), "--logdir", str(tmp_path)) as process:
        wait_for("address", log, process, rf"http://(127\.0\.0\.1|localhost):{port}")
        assert answer(f"http://127.0.0.1:{port}/data/plugins_listing") == 200


def test_jupyter_tells_its_address_with_the_token_and_wants_it(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with started(log, "dev", "--port", str(port)) as process:
        token = wait_for("address", log, process, rf"http://127\.0\.0\.1:{port}/lab\?token=(\w+)")[1]
        assert len(token) >= 32
        assert answer(f"http://127.0.0.1:{port}/api/contents") == 403
        assert answer(f"http://127.0.0.1:{port}/api/contents?token=wrong") == 403
        assert answer(f"http://127.0.0.1:{port}/api/contents?token={token}") == 200
