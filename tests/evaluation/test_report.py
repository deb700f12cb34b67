"""The report page: complete, and self-contained."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from configs.errors import DataError, UsageError
from configs.nuscenes import CLASSES
from configs.plan import DeviceFacts, make_plan
from configs.recipes import load_recipe, save_recipe
from evaluation.commands import report_command
from evaluation.nuscenes_metrics import DETAILS_FILE, METRICS_FILE, MetricsSummary
from evaluation.report import write_report


def phases() -> list[dict[str, object]]:
    """What two processes measured, one of which waits for its data."""
    seconds = [{"data_wait": 0.0, "forward": 1.0, "all_reduce": 2.0}, {"data_wait": 2.0, "forward": 1.0}]
    return [{"rank": rank, "pid": 1, "host": "h", "seconds": one} for rank, one in enumerate(seconds)]


@pytest.fixture
def begun_run(tmp_path: Path) -> Path:
    """A run directory before its first step."""
    run = tmp_path / "my <first> run"
    run.mkdir()
    recipe = load_recipe("synthetic/bevnext-smoke")
    save_recipe(recipe, run / "recipe.yaml")
    devices = DeviceFacts(
        kind="cpu", names=("CPU",), memory_bytes=None, cpu_cores=2, shared_memory_bytes=None, bf16=False
    )
    (run / "plan.json").write_text(make_plan(recipe, samples=40, devices=devices).model_dump_json())
    return run


@pytest.fixture
def finished_run(begun_run: Path) -> Path:
    """A run with curves, two evaluations, pictures and an outcome."""
    lines = [
        {
            "event": "train", "time": 1e9 + 60 * step, "step": step, "epoch": step / 10, "loss": 10 / step, "terms": {},
            "learning_rate": 1e-3, "grad_norm": 2.0 + step % 3, "samples_per_second": 7.0, "data_wait": 0.01,
            "ranks": phases(),
        }
        for step in range(1, 21)
    ]  # fmt: skip
    lines += [
        {"event": "evaluate", "step": step, "metrics": {"NDS": step / 100, "mAP": step / 50}} for step in (10, 20)
    ]
    (begun_run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "tr')
    for step in (10, 20):
        folder = begun_run / "results" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / METRICS_FILE).write_text(summary_of(step / 50).model_dump_json())
        (folder / DETAILS_FILE).write_text(json.dumps(curves()))
    (begun_run / "figures").mkdir()
    for name in ("val_01_bev.png", "val_01_cameras.jpg"):
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(begun_run / "figures" / name)
    (begun_run / "outcome.json").write_text('{"exit_code": 0, "rank": 0, "error": "", "fix": ""}')
    return begun_run


def summary_of(ap: float) -> MetricsSummary:
    return MetricsSummary(
        nds=ap / 2,
        mean_ap=ap,
        tp_errors=dict.fromkeys(("mATE", "mASE", "mAOE", "mAVE", "mAAE"), 0.25),
        class_ap=dict.fromkeys(CLASSES, ap),
        distance_ap={name: dict.fromkeys(("0.5", "1.0", "2.0", "4.0"), ap) for name in CLASSES},
        class_tp_errors={name: {"ATE": 0.2, "ASE": 0.2, "AOE": None, "AVE": None, "AAE": None} for name in CLASSES},
        version="v1.0-synthetic",
        split="synthetic_val",
        samples=8,
        annotations=dict.fromkeys(CLASSES, 11),
        results="results_nusc.json",
    )


def curves() -> dict[str, dict[str, list[float]]]:
    curve = {"recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.5, 0.0]}
    return {f"{name}:{distance}": curve for name in CLASSES for distance in ("0.5", "1.0", "2.0", "4.0")}


def test_a_finished_run_has_everything_on_one_page(finished_run: Path) -> None:
    page = write_report(finished_run).read_text(encoding="utf-8")
    for text in ("bevnext-smoke", "finished", "0.4000", "construction vehicle", "(synthetic)", "option --config"):
        assert text in page
    assert page.count("<svg") == 2 + 5 + 2
    assert page.index("step_00000020") < page.index("step_00000010")
    assert page.index("val_01: the six cameras") < page.index("val_01: the same sample from above")
    assert "my &lt;first&gt; run" in page
    assert "rank 1 is slow: it waits for data" in page


def test_nothing_is_loaded_from_elsewhere(finished_run: Path) -> None:
    page = write_report(finished_run).read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href|xlink:href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"<script|<link|@import|url\((?!#)", page)


def test_a_run_that_only_began_says_what_is_missing(begun_run: Path) -> None:
    page = write_report(begun_run).read_text(encoding="utf-8")
    assert "Not evaluated yet" in page
    assert "Nothing was logged yet" in page
    assert "running, or ended without a word" in page


def test_the_command_says_where(finished_run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(report_command, ["--run", str(finished_run), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0
    assert done.output == f"report: {tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").is_file()


def test_wrong_directories_and_damaged_files_are_named(tmp_path: Path, finished_run: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        write_report(tmp_path)
    outcome = (finished_run / "outcome.json").read_text()
    (finished_run / "outcome.json").write_text('{"exit_code": 42}')  # of a newer version, or written by hand
    with pytest.raises(DataError, match=r"outcome\.json cannot be read: exit_code: .*77") as caught:
        write_report(finished_run)
    assert "remove it" in caught.value.fix
    (finished_run / "outcome.json").write_text(outcome)
    (finished_run / "plan.json").write_text("{}")
    with pytest.raises(DataError, match=r"plan\.json cannot be read: recipe: Field required"):
        write_report(finished_run)
