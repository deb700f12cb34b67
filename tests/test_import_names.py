"""`training` is ours in every documented way of starting, although sam2 installs a package of that name."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRINT_TRAINING = "import training; print(training.__file__)"
OURS = str(ROOT / "training" / "__init__.py")


def output_of(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_sam2_really_installs_a_training_package() -> None:
    """Without the rival the other tests would show nothing."""
    assert any(str(path) == "training/__init__.py" for path in files("sam2") or [])


def test_in_pytest() -> None:
    import training

    assert training.__file__ == OURS


def test_from_any_directory(tmp_path: Path) -> None:
    assert output_of(sys.executable, "-c", PRINT_TRAINING, cwd=tmp_path) == OURS


def test_from_a_script_run_by_path(tmp_path: Path) -> None:
    script = tmp_path / "notebook_cell.py"
    script.write_text(PRINT_TRAINING)
    assert output_of(sys.executable, str(script), cwd=tmp_path) == OURS


def test_from_a_script_inside_the_package(tmp_path: Path) -> None:
    """`python training/x.py` puts `training/` itself first on the path."""
    script = ROOT / "training" / "train_bevnext_sam2_nuscenes.py"
    probe = f"import runpy, sys; sys.path[0] = {str(script.parent)!r}; {PRINT_TRAINING}"
    assert output_of(sys.executable, "-c", probe, cwd=tmp_path) == OURS


@pytest.mark.parametrize("how", ["by path", "as a module"])
def test_under_torchrun(tmp_path: Path, how: str) -> None:
    module = tmp_path / "probe_of_training.py"
    module.write_text(PRINT_TRAINING)
    target = [str(module)] if how == "by path" else ["-m", module.stem]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    assert output_of(*torchrun, *target, cwd=tmp_path) == OURS


def test_console_script_directory(tmp_path: Path) -> None:
    """The console script's own interpreter line resolves it too."""
    console = Path(sys.executable).parent / "bevnext-sam2"
    interpreter = console.read_text().splitlines()[0].removeprefix("#!")
    assert output_of(interpreter, "-c", PRINT_TRAINING, cwd=tmp_path) == OURS
