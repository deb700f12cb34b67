"""The pretended NVML for the tests: compiled once where there is a compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

SOURCES = Path(__file__).parent / "fake_nvml"
PREBUILT = "BEVNEXT_SAM2_FAKE_NVML"


@cache
def library_folder() -> Path:
    """The folder of the pretended `libnvidia-ml.so.1`."""
    if PREBUILT in os.environ:
        return Path(os.environ[PREBUILT])
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(f"no C compiler here, and {PREBUILT} names no folder with a pretended libnvidia-ml.so.1")
    folder = Path(mkdtemp(prefix="fake-nvml-"))
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O1", f"-Wl,-soname,{library.name}"]
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCES / "fake_nvml.c")], check=True)
    return folder


def environment_with_gpus(gpus: int = 8, instances: int = 0) -> dict[str, str]:
    """The environment for a process that is to see pretended GPUs."""
    own = {"LD_LIBRARY_PATH": str(library_folder()), "FAKE_NVML_GPUS": str(gpus), "FAKE_NVML_MIG": str(instances)}
    return {**os.environ, **own}


def scenario(name: str) -> dict[str, Any]:
    """What a function of `scenarios.py` returns."""
    command = [sys.executable, str(SOURCES / "scenarios.py"), name]
    done = subprocess.run(command, env=environment_with_gpus(), capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
