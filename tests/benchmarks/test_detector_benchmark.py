"""`bench detector` measures what it says, and its plain twin is the same network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.detector import detector
from benchmarks.made_up_batch import made_up_batch
from benchmarks.parts import OperationCounter
from benchmarks.plain_bevnext import plain_twin
from configs.errors import UsageError
from configs.recipes import load_recipe
from detectors import build_detector
from detectors.bevnext.model import BEVNeXt

RECIPE = "synthetic/bevnext-smoke-stage2"


def test_every_part_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "result" / "detector.json"
    done = CliRunner().invoke(detector, ["--config", RECIPE, "--repeats", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "ratio" in done.output
    result = json.loads(out.read_text())
    parts = {part["part"]: part for part in result["forward"]["parts"]}
    assert {"img_backbone", "img_view_transformer.crf", "transformer_neck", "the rest"} <= parts.keys()
    assert sum(part["gflop"] for part in parts.values()) == pytest.approx(result["forward"]["gflop"], abs=0.1)
    assert all(part["megabytes"] >= 0 and part["seconds"] >= 0 for part in parts.values())
    assert parts["img_backbone"]["megabytes"] > parts["img_backbone"]["gflop"] > 0
    assert result["forward"]["plain"]["largest_difference"] < 1e-4
    assert result["streaming"]["largest_difference"] < 1e-4
    assert result["training"]["plain"]["ratio"] > 0
    assert result["carrying"]["samples_per_second"] > 0
    assert result["carrying"]["window_seconds"] == result["training"]["seconds"]


def test_the_twin_trains_like_the_network_it_is_the_baseline_of() -> None:
    """Losses, gradients and running statistics of a training pass, in float64."""
    recipe = load_recipe(RECIPE, ["model.crf.iterations=3"])
    torch.manual_seed(0)
    ours = build_detector(recipe.model, recipe.data).double().train()
    assert isinstance(ours, BEVNeXt)
    twin = plain_twin(ours, recipe.data).double()
    twin.load_state_dict(ours.state_dict())
    batch = made_up_batch(recipe.data, 2)
    batch.images[:, :, :3] = 128  # equal colours: the CRF couples
    for network in (ours, twin):
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        torch.stack(list(network.loss(network(batch), network.targets(batch)).values())).sum().backward()  # type: ignore[no-untyped-call]
    theirs = dict(twin.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-6, atol=1e-9, msg=name)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(twin.named_buffers()), rtol=1e-9, atol=1e-9)


def test_a_device_that_is_not_there_is_named() -> None:
    done = CliRunner().invoke(detector, ["--config", RECIPE, "--device", "cuda:99"])
    assert isinstance(done.exception, UsageError)
    assert "cuda:99" in str(done.exception)


def test_rows_that_are_added_to_a_table_do_not_count_the_table() -> None:
    table, index, rows = torch.zeros(1000, 4), torch.tensor([3, 3]), torch.ones(2, 4)
    with OperationCounter() as counter:
        table.index_add_(0, index, rows)
    assert sum(counter.moved.values()) == 2 * 8 + 3 * (2 * 4 * 4)
