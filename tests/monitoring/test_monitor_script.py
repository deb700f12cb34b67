"""`scripts/monitor_training.sh` hands its options to the monitor unspoilt, and starts TensorBoard when asked to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "monitor_training.sh"
FAKE_RUN = "#!{python}\nimport sys\nprint(sys.argv[1:], flush=True)\n"

FAKE_PAIR = """#!{python}
import pathlib, sys, time
begun = pathlib.Path(__file__).with_name("tensorboard has begun")
print(sys.argv[1:], flush=True)
if sys.argv[1] == "tensorboard":
    begun.touch()
end = time.monotonic() + 240
while sys.argv[1] == "monitor" and not begun.exists() and time.monotonic() < end:
    time.sleep(0.01)
"""
"""The same; its monitor looks until TensorBoard has begun, since the script ends TensorBoard with it."""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script beside a `run.sh` that only tells its arguments, in a folder with a space in its name."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    (folder / "run.sh").write_text(FAKE_RUN.format(python=sys.executable))
    (folder / "run.sh").chmod(0o755)
    return folder / SCRIPT.name


def call(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([script, *arguments], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        ([], ["monitor", "--output-dir", "outputs"]),
        (
            ["a run", "--interval", "5", "--once", "--json", "--output-dir", "my runs"],
            ["monitor", "--output-dir", "my runs", "a run", "--interval", "5", "--once", "--json"],
        ),
        (["--output-dir=x", "http://h:1"], ["monitor", "--output-dir", "x", "http://h:1"]),
    ],
)
def test_options_reach_the_monitor(script: Path, given: list[str], handed_on: list[str]) -> None:
    done = call(script, *given)
    assert (done.returncode, done.stdout.strip()) == (0, str(handed_on)), done.stderr


def test_tensorboard_beside_it(script: Path) -> None:
    (script.parent / "run.sh").write_text(FAKE_PAIR.format(python=sys.executable))
    done = call(script, "--tensorboard", "--port", "7007", "--once")
    assert "TensorBoard: http://127.0.0.1:7007" in done.stdout
    assert str(["tensorboard", "--port", "7007", "--logdir", "outputs"]) in done.stdout
    assert str(["monitor", "--output-dir", "outputs", "--once"]) in done.stdout


def test_help_and_a_value_that_is_missing(script: Path) -> None:
    assert call(script, "--help").stdout.startswith("usage: scripts/monitor_training.sh")
    done = call(script, "--interval")
    assert (done.returncode, "fix:" in done.stderr) == (2, True)
