"""The notebooks run from top to bottom on a small set and a run of the smoke recipe, and no cell complains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from configs.mask_weights import NANO_FILE, NANO_FOLDER
from launcher.own_process import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL_SET = "--scenes 5 --samples 2 --image-size 352x198 --reach 20 --no-lidar-sweeps --workers 1"
SECONDS = 1200


def command(folder: Path, line: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "launcher", *line.split()], cwd=folder, env=environment, check=True, timeout=SECONDS
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated run of the smallest recipe; its data, and weights of SAM 2, are beside it."""
    folder = tmp_path_factory.mktemp("notebooks")
    size = "--set data.source_size=[198,352]"
    command(folder, f"data synth --out {folder}/data {SMALL_SET}")
    command(folder, f"data index --data-root {folder}/data")
    command(
        folder,
        f"train --data-root {folder}/data --config synthetic/bevnext-smoke {size} --run r --output-dir {folder} "
        "--num-processes 1 --workers 0 --epochs 2",
    )
    command(folder, f"eval --run {folder}/r --data-root {folder}/data --device cpu --workers 0 --pictures 1")
    if find_spec("sam2") is not None:
        tiny = "--network-size 192x96 --images 1 --steps 2 --workers 0 --device cpu"
        command(folder, f"sam2 train --data-root {folder}/data {tiny} --out {folder}/{NANO_FOLDER}")
    return folder / "r"


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="extra `dev` is not installed")
    nbclient = pytest.importorskip("nbclient", reason="extra `dev` is not installed")
    monkeypatch.setenv("BEVNEXT_SAM2_CHECKOUT", str(ROOT))
    monkeypatch.setenv("BEVNEXT_SAM2_DATA_ROOT", str(run.parent / "data"))
    monkeypatch.setenv("BEVNEXT_SAM2_RUN", str(run))
    if path.name == "4_masks.ipynb":
        pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
        monkeypatch.setenv("BEVNEXT_SAM2_MASK_WEIGHTS", str(run.parent / NANO_FOLDER / NANO_FILE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(run.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds & {"image/png", "image/svg+xml"}
    if folder := os.environ.get("BEVNEXT_SAM2_NOTEBOOKS_OUT"):  # to look at
        nbformat.write(notebook, Path(folder) / path.name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_outputs_are_kept(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
