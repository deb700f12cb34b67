"""A training of masks that is stopped goes on bit for bit, whatever its loader; wrong states are refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.errors import DataError
from integration.masks import train
from integration.masks.example_stream import batches_from
from integration.masks.examples import MaskExamples
from integration.masks.training_state import CURVE, STATE, WEIGHTS, cut_curve
from launcher.main import run
from scenes.index import SceneIndex

SIZE = (96, 160)


def options(index: SceneIndex, out: Path, *more: str) -> list[str]:
    shown = ["--data-root", str(index.dataroot), "--device", "cpu", "--network-size", "160x96", "--out", str(out)]
    return ["sam2", "train", *shown, "--images", "1", "--objects", "2", "--workers", "0", "--steps", "3", *more]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """SIGTERM arrives while step `step` is computed."""
    losses, calls = train.batch_losses, iter(range(1, 100))

    def and_a_signal(*given: object) -> dict[str, torch.Tensor]:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "batch_losses", and_a_signal)


def test_stopped_and_continued_is_as_never_stopped(
    town: SceneIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(options(town, whole)) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run(options(town, parts, "--resume", "auto")) == 75
    assert "--resume auto" in capsys.readouterr().err
    assert not (parts / WEIGHTS).exists()
    with (parts / CURVE).open("a") as curve:
        curve.write('{"step": 3, "lr": 0')  # what a process that died later would leave
    assert run(options(town, parts, "--resume", "auto", "--learning-rate", "0.1")) == 2
    assert "learning_rate 0.001 there, 0.1 now" in capsys.readouterr().err
    assert run(options(town, parts, "--resume", "auto", "--split", "synthetic_val")) == 2
    assert "split None there, 'synthetic_val' now" in capsys.readouterr().err
    assert run(options(town, parts, "--resume", "auto")) == 0
    assert not (parts / STATE).exists()
    expected, found = load_file(whole / WEIGHTS), load_file(parts / WEIGHTS)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    uninterrupted, continued = (
        [json.loads(line) for line in (out / CURVE).read_text().splitlines()] for out in (whole, parts)
    )
    assert [line["step"] for line in continued] == [1, 2, 3]
    assert [line["focal"] for line in continued] == [line["focal"] for line in uninterrupted]
    assert run(options(town, parts, "--resume", "auto")) == 0
    assert "came to its end" in capsys.readouterr().out
    assert run(options(town, parts, "--resume", str(tmp_path / "nowhere"))) == 2


def test_a_damaged_state_is_named(town: SceneIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    (tmp_path / STATE).write_bytes(b"half of it")
    assert run(options(town, tmp_path, "--resume", "auto")) == 3
    assert "is damaged" in capsys.readouterr().err


def test_the_order_of_examples_depends_on_seed_and_place_alone(town: SceneIndex) -> None:
    examples = MaskExamples(town, range(len(town)), SIZE, largest=2)

    def boxes(start: int, count: int, workers: int, seed: int) -> list[tuple[list[float], int]]:
        stream = batches_from(examples, start, 1, workers, seed)
        found = [(batch[0].boxes.flatten().tolist(), place) for batch, place in (next(stream) for _ in range(count))]
        stream.close()
        return found

    whole = boxes(0, 6, 0, seed=1)
    assert boxes(whole[2][1], 3, 0, seed=1) == whole[3:]
    assert boxes(0, 3, 1, seed=1) == whole[:3]
    assert boxes(0, 6, 0, seed=2) != whole


def test_data_without_objects_are_refused(town: SceneIndex) -> None:
    for rows, said in (([0], "shows an object"), ([], "no image")):
        examples = MaskExamples(town, rows, SIZE, largest=0)
        with pytest.raises(DataError, match=said):
            next(batches_from(examples, 0, 1, 0, 0))


def test_a_curve_is_cut(tmp_path: Path) -> None:
    path = tmp_path / CURVE
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    cut_curve(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
