"""What `--profile` has recorded opens in TensorBoard: a real one, asked over HTTP."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest
import torch
from torch.profiler import profile
from torch_tb_profiler.consts import WORKER_PATTERN

from configs import run_directory
from training.profiler import profiled

DIRECT = build_opener(ProxyHandler({}))
PATIENCE_SECONDS = 240.0
RUN = f"trial/{run_directory.PROFILE}"


def record(folder: Path, rank: int) -> None:
    """Steps 2 and 3 of four, as the trainer records them."""
    for step in profiled(range(1, 5), (2, 3), done=0, folder=folder, rank=rank):
        with torch.profiler.record_function(f"work at step {step}"):
            torch.ones(64, 64).matmul(torch.ones(64, 64)).sum()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """TensorBoard on the outputs folder of a run that two processes recorded."""
    outputs = tmp_path_factory.mktemp("outputs")
    for rank in (0, 1):
        record(outputs / RUN, rank)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        outputs,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    board = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}/data"
    board.terminate()
    board.wait(60)


def get(address: str, **query: str) -> Any:
    with DIRECT.open(f"{address}?{urlencode(query)}", timeout=60) as answer:
        body = answer.read()
    return json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)


def loaded_runs(address: str) -> list[str]:
    """The plugin's runs, once TensorBoard answers and all of them are read."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            told = get(f"{address}/plugin/pytorch_profiler/runs")
        except URLError:  # it has not begun to listen
            told = {"runs": []}
        if told["runs"] and not told["loading"]:
            return list(told["runs"])
        time.sleep(0.5)
    raise AssertionError(f"no profile within {PATIENCE_SECONDS:g} s")


def test_tensorboard_shows_the_profile_of_every_process(address: str) -> None:
    assert loaded_runs(address) == [RUN]
    assert get(f"{address}/plugins_listing")["pytorch_profiler"]["enabled"]
    plugin = f"{address}/plugin/pytorch_profiler"
    assert {"Overview", "Operator", "Trace"} <= set(get(f"{plugin}/views", run=RUN))
    assert sorted(get(f"{plugin}/workers", run=RUN, view="Trace")) == ["rank0", "rank1"]
    (span,) = get(f"{plugin}/spans", run=RUN, worker="rank1")
    operators = json.dumps(get(f"{plugin}/operation", run=RUN, worker="rank1", span=span, group_by="Operation"))
    assert "aten::matmul" in operators
    trace = json.dumps(get(f"{plugin}/trace", run=RUN, worker="rank1", span=span))
    assert set(re.findall(r"work at step (\d+)", trace)) == {"2", "3"}


def test_the_costliest_operators_are_a_text_that_needs_no_internet(address: str) -> None:
    loaded_runs(address)
    assert get(f"{address}/plugin/text/tags")[RUN] == ["operators/text_summary"]
    (table,) = get(f"{address}/plugin/text/text", run=RUN, tag="operators/text_summary")
    assert "<td>aten::mm</td>" in table["text"]
    assert "<td>work at step 2</td>" in table["text"]
    assert "ProfilerStep" not in table["text"]
    assert "device" not in table["text"]  # none was used, and a zero would be no time of one


def test_a_trace_gets_the_name_that_is_looked_for_once_it_is_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    export, written_to = profile.export_chrome_trace, []

    def watched(recorded: profile, path: str) -> None:
        export(recorded, path)
        written_to.append(Path(path))
        assert not [name for name in tmp_path.iterdir() if WORKER_PATTERN.match(name.name)]

    monkeypatch.setattr(profile, "export_chrome_trace", watched)
    record(tmp_path, rank=1)
    assert len(written_to) == 1
    (kept,) = tmp_path.iterdir()
    assert WORKER_PATTERN.match(kept.name)
