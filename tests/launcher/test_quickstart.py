"""Quickstart as a list of commands: what is run, what is not run again, and what stops it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from configs.recipes import load_recipe
from launcher import quickstart
from launcher.main import command_line, run
from launcher.own_process import ROOT, own_command, own_environment
from launcher.quickstart import Place, steps_of
from launcher.supervision import Ended
from monitoring.devices import Gpu, GpuSurvey

HELD_OUT = "scene-0008"


class PretendedSteps:
    """Stands for our commands: makes what they would make."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lines: list[str] = []
        self.failing: dict[str, int] = {}

    def __call__(self, arguments: list[str]) -> int:
        words = " ".join(arguments[: 2 if arguments[0] == "data" else 1])
        words += " (start)" if quickstart.START_RUN in arguments else ""
        self.lines.append(words)
        if words in self.failing:
            return self.failing[words]
        makers: dict[str, Callable[[], None]] = {
            "data synth": self.synth,
            "data index": lambda: self.write(self.place.index),
            "train (start)": lambda: self.write(self.place.start_weights),
            "train": lambda: self.write(self.place.run_dir / "checkpoints/latest"),
            "eval": lambda: self.write(self.place.scores, '{"mean_ap": 0.25, "nds": 0.3}'),
            "infer": lambda: self.write(self.place.pictures / "film.mp4"),
            "sam2": lambda: self.write(self.place.nano),
            "demo": lambda: self.write(self.place.masks, "{}"),
            "report": lambda: self.write(self.place.run_dir / "report.html"),
        }
        makers.get(words, lambda: None)()
        return 0

    def synth(self) -> None:
        splits = {"synthetic_train": ["scene-0000"], "synthetic_val": [HELD_OUT]}
        self.write(self.place.data_root / "v1.0-synthetic/splits.json", json.dumps(splits))

    def write(self, path: Path, text: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def pretended(in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedSteps:
    pretended = PretendedSteps(Place(in_empty_folder / "outputs", in_empty_folder / "data/synthetic"))
    monkeypatch.setattr(quickstart, "_run", pretended)
    monkeypatch.setattr(quickstart, "survey_gpus", lambda: GpuSurvey(problem="none", driver_missing=True))
    return pretended


ALL = ["data synth", "data index", "train (start)", "plan", "train", "eval", "infer", "report"]


def test_all_steps_in_order_and_the_scores_at_the_end(
    pretended: PretendedSteps, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["quickstart"]) == 0
    assert pretended.lines == ALL
    output = capsys.readouterr().out
    assert "[8/8]" in output
    assert "$ bevnext-sam2 train --config synthetic/bevnext-tiny" in output
    assert f"--scene {HELD_OUT}" in output
    assert "held-out mAP  0.250" in output
    assert "held-out NDS  0.300" in output
    assert str(pretended.place.run_dir / "report.html") in output


def test_masks_on_request_and_where_weights_are(
    pretended: PretendedSteps, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(["quickstart"])
    assert "not made; bevnext-sam2 quickstart --masks" in capsys.readouterr().out
    pretended.lines.clear()
    assert run(["quickstart", "--masks"]) == 0
    assert pretended.lines == ["plan", "sam2", "demo", "report"]
    assert str(pretended.place.masks.parent) in capsys.readouterr().out
    for again in (["quickstart", "--masks"], ["quickstart"]):
        pretended.lines.clear()
        assert run(again) == 0
        assert pretended.lines == ["plan"]
    published = pretended.place.output_dir / "sam2.1-hiera-tiny.safetensors"
    pretended.write(published)
    monkeypatch.setenv("BEVNEXT_SAM2_CHECKPOINTS", str(published.parent))
    pretended.lines.clear()
    assert run(["quickstart", "--masks"]) == 0
    assert pretended.lines == ["plan", "demo", "report"]
    assert f"--sam2-weights {published}" in capsys.readouterr().out


def test_run_again_it_does_nothing_but_show_the_plan(pretended: PretendedSteps) -> None:
    run(["quickstart"])
    pretended.lines.clear()
    assert run(["quickstart"]) == 0
    assert pretended.lines == ["plan"]


def test_it_goes_on_after_a_failed_step(pretended: PretendedSteps, capsys: pytest.CaptureFixture[str]) -> None:
    pretended.failing["train"] = 75
    assert run(["quickstart"]) == 75
    assert "step 5 was stopped; the same command goes on" in capsys.readouterr().err
    pretended.failing.clear()
    pretended.lines.clear()
    assert run(["quickstart"]) == 0
    assert pretended.lines == ALL[3:]


@pytest.mark.parametrize(
    ("returncode", "asked_to_stop", "killed", "code"),
    [
        (0, True, False, 75),  # the step did not notice
        (75, True, False, 75),  # a training
        (-signal.SIGTERM, True, False, 75),
        (130, True, False, 75),  # Ctrl-C, as our commands tell it
        (-signal.SIGUSR1, True, False, 75),
        (3, True, False, 3),  # what is wrong is wrong with a stop, too
        (-signal.SIGKILL, True, True, 137),
        (-signal.SIGTERM, False, False, 143),  # somebody ended the step alone
        (1, False, False, 1),
    ],
)
def test_a_step_that_was_asked_to_stop(
    returncode: int, asked_to_stop: bool, killed: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Ended(returncode=returncode, asked_to_stop=asked_to_stop, started=0.0, killed=killed)
    monkeypatch.setattr(quickstart, "supervise", lambda *arguments, **others: ended)
    assert quickstart._run(["plan"]) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_set_is_made(number: signal.Signals, tmp_path: Path) -> None:
    """The real command: no traceback, no process left, nothing of the set under its name."""
    data = tmp_path / "data"
    arguments = ["quickstart", "--output-dir", str(tmp_path / "outputs"), "--data-root", str(data)]
    process = psutil.Popen(
        own_command(arguments), cwd=ROOT, env=own_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".data.partial-*/samples/CAM_FRONT/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    below = process.children(recursive=True)
    assert below
    process.send_signal(number)
    said = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 75, said
    assert "step 1 was stopped; the same command goes on from here" in said
    assert "Traceback" not in said
    assert psutil.wait_procs(below, timeout=60)[1] == []
    assert not data.exists()


def test_a_lost_product_is_made_again_with_all_that_stands_on_it(pretended: PretendedSteps) -> None:
    run(["quickstart"])
    pretended.place.scores.unlink()
    pretended.lines.clear()
    assert run(["quickstart"]) == 0
    assert pretended.lines == ["plan", "eval", "infer", "report"]


def test_other_options_need_fresh(pretended: PretendedSteps, capsys: pytest.CaptureFixture[str]) -> None:
    run(["quickstart"])
    pretended.lines.clear()
    assert run(["quickstart", "--seed", "1"]) == 2
    assert "--fresh" in capsys.readouterr().err
    assert run(["quickstart", "--seed", "1", "--fresh"]) == 0
    assert pretended.lines == ALL
    pretended.lines.clear()
    assert run(["quickstart", "--seed", "1"]) == 0  # what fresh made counts as made
    assert pretended.lines == ["plan"]


def test_fresh_removes_nothing_but_its_own_run(pretended: PretendedSteps, capsys: pytest.CaptureFixture[str]) -> None:
    precious = pretended.place.run_dir / "precious"
    pretended.write(precious)
    assert run(["quickstart", "--fresh"]) == 2
    assert "not made by quickstart" in capsys.readouterr().err
    assert precious.exists()
    assert pretended.lines == []


def test_every_step_is_a_command_line_of_ours(pretended: PretendedSteps) -> None:
    """Each command's real parser takes its arguments; nothing is run."""
    pretended.synth()
    for step in steps_of(pretended.place, seed=3, fresh=True, masks=True):
        command, arguments = command_line, step.arguments()
        while arguments and hasattr(command, "get_command"):
            command = command.get_command(None, arguments.pop(0))
        context = command.make_context(step.title, arguments)
        assert not context.args


@pytest.mark.parametrize("gpus", [1, 2, 3, 8, 9])
def test_all_gpus_that_can_share_the_batch(
    gpus: int, pretended: PretendedSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuple(Gpu(i, "H200", f"GPU-{i}", 2**37, (9, 0)) for i in range(gpus))
    monkeypatch.setattr(quickstart, "survey_gpus", lambda: GpuSurvey(gpus=found))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    trainings = [step.arguments() for step in steps_of(pretended.place, seed=0, fresh=False) if "Train" in step.title]
    for training, recipe in zip(trainings, (quickstart.START_RECIPE, quickstart.RECIPE), strict=True):
        used = int(training[training.index("--num-gpus") + 1])
        batch = load_recipe(recipe).optimizer.reference_batch
        assert used == max(count for count in range(1, gpus + 1) if batch % count == 0)


def test_a_set_without_held_out_scenes(pretended: PretendedSteps, capsys: pytest.CaptureFixture[str]) -> None:
    pretended.synth = lambda: None
    assert run(["quickstart"]) == 3
    assert "splits.json" in capsys.readouterr().err
