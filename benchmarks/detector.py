"""`bevnext-sam2 bench detector`: forward and training passes of any recipe, by part, and against the plain twin.

Images and weights are made up, so neither data nor checkpoints are needed. Every time is the best of several passes;
ours and the baseline take turns. On a CPU, seconds are processor time, summed over the threads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import measured_on
from benchmarks.made_up_batch import METRES_PER_FRAME, made_up_batch
from benchmarks.parts import OperationCounter, Stopwatch, observed
from benchmarks.passes import Passes, pass_options
from benchmarks.plain_bevnext import plain_twin
from benchmarks.result_file import out_option, write_result
from configs.recipes import load_recipe
from configs.schema import Recipe, StreamingConfig
from detectors import build_detector
from detectors.bevnext.model import BEVNeXt
from detectors.interface import Detector
from scenes.sample import Batch

TARGET_RATIO: Final = 2.0
"""Of stage 2 on a CPU against the plain twin."""
Measurement = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured, and how."""

    recipe: Recipe
    samples: int
    passes: Passes


@click.command()
@click.option("--config", default="bevnext/bevnext-stage2", show_default=True, metavar="NAME|PATH", help="Recipe.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe.")
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Samples of a pass.")
@pass_options
@click.option("--count/--no-count", default=True, show_default=True, help="Count operations and bytes in a pass more.")
@click.option("--training/--no-training", default=True, show_default=True, help="Forward and backward passes, too.")
@click.option("--plain/--no-plain", default=True, show_default=True, help="The plain twin, too.")
@click.option("--streaming/--no-streaming", default=True, show_default=True, help="Passes along a scene, too.")
@click.option("--carrying/--no-carrying", default=True, show_default=True, help="Training along a scene, too.")
@out_option
def detector(
    config: str,
    overrides: tuple[str, ...],
    batch_size: int,
    passes: Passes,
    count: bool,
    training: bool,
    plain: bool,
    streaming: bool,
    carrying: bool,
    out: Path | None,
) -> None:
    """Time a detector by part, with floating-point operations and bytes, and against the same network written plainly.

    The baseline goes frame by frame, sorts frustum points, and computes the CRF as its formula reads.
    """
    setting = Setting(load_recipe(config, overrides), batch_size, passes)
    result = measured_on("torch", "torchvision") | {
        "benchmark": "detector",
        "baseline": "the same weights, frame by frame, sort-based pooling, CRF as its formula reads",
        **passes.facts("seconds per sample"),
        "recipe": setting.recipe.name,
        "overrides": list(overrides),
        "samples": batch_size,
        **_measure(
            setting, count=count, training=training, plain=plain, streaming=streaming, carrying=carrying and training
        ),
    }
    _show(result)
    write_result(result, out)


def _measure(
    setting: Setting, *, count: bool, training: bool, plain: bool, streaming: bool, carrying: bool
) -> Measurement:
    torch.manual_seed(0)
    ours = build_detector(setting.recipe.model, setting.recipe.data).to(setting.passes.device)
    batch = made_up_batch(setting.recipe.data, setting.samples).to(setting.passes.device)
    twin = plain_twin(ours, setting.recipe.data) if plain and isinstance(ours, BEVNeXt) else None
    if setting.recipe.engine.channels_last:
        ours.to(memory_format=torch.channels_last)
    ours.eval()
    result: Measurement = {"forward": _forward(ours, None if twin is None else twin.eval(), batch, setting, count)}
    if streaming and ours.stream() is not None:
        result["streaming"] = _streamed(ours, setting)
    if training:
        ours.train()
        result["training"] = _trained(ours, None if twin is None else twin.train(), batch, setting)
    if carrying and setting.recipe.data.frames > 1:
        result["carrying"] = _trained_along_a_scene(ours, batch, setting, result["training"]["seconds"])
    return result


# --- forward -------------------------------------------------------------------------------------------------------


def _forward(ours: Detector, twin: Detector | None, batch: Batch, setting: Setting, count: bool) -> Measurement:
    """Ours by part, and the twin in turn with it; the counting pass also warms up."""
    passes, counter = setting.passes, OperationCounter()
    if count:
        with torch.no_grad(), passes.autocast(), observed(ours, counter.enter, counter.leave), counter:
            ours(batch)
    times: list[dict[str, float]] = []
    plain: list[float] = []
    outputs: dict[str, Any] = {}
    with torch.inference_mode(), passes.autocast():
        for _ in range(passes.repeats):
            watch = Stopwatch(passes.device)
            with observed(ours, watch.enter, watch.leave):
                outputs["ours"] = ours(batch)
            times.append(watch.stop())
            if twin is not None:
                plain.append(passes.seconds(lambda: outputs.update(plain=twin(batch))))
    best = min(times, key=lambda seconds: sum(seconds.values()))
    result: Measurement = {"seconds": round(sum(best.values()) / setting.samples, 4)}
    if count:
        result["gflop"] = round(sum(counter.flop.values()) / 1e9 / setting.samples, 1)
        result["megabytes"] = round(sum(counter.moved.values()) / 1e6 / setting.samples, 1)
    result["parts"] = [_part(name, seconds, counter, setting, count) for name, seconds in best.items()]
    if twin is not None:
        result["plain"] = _against(sum(best.values()), min(plain), setting)
        result["plain"]["largest_difference"] = _difference(outputs["ours"], outputs["plain"])
    return result


def _part(name: str, seconds: float, counter: OperationCounter, setting: Setting, count: bool) -> Measurement:
    part: Measurement = {"part": name, "seconds": round(seconds / setting.samples, 5)}
    if count:
        part["gflop"] = round(counter.flop[name] / 1e9 / setting.samples, 2)
        part["megabytes"] = round(counter.moved[name] / 1e6 / setting.samples, 1)
    return part


def _streamed(ours: Detector, setting: Setting) -> Measurement:
    """A sample whose earlier frames are remembered, against one whose frames are all made anew."""
    passes, frames = setting.passes, setting.recipe.data.frames
    shown = made_up_batch(setting.recipe.data, 1).to(passes.device)
    stream = ours.stream()
    assert stream is not None
    seconds: dict[str, list[float]] = {"anew": [], "remembered": []}
    outputs: dict[str, Any] = {}
    with torch.inference_mode(), passes.autocast():
        for age in range(1, frames):
            stream.remember(_frame(shown, age), [frames - 1 - age])
        for key in range(frames - 1, frames - 1 + passes.repeats):
            own = [key, *range(frames - 2, -1, -1)]
            seconds["remembered"].append(passes.seconds(lambda: outputs.update(one=stream.detect(shown, [own]))))  # noqa: B023
        for _ in range(passes.repeats):
            seconds["anew"].append(passes.seconds(lambda: outputs.update(other=ours(shown))))
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "anew_seconds": round(best["anew"], 4),
        "remembered_seconds": round(best["remembered"], 4),
        "ratio": round(best["anew"] / best["remembered"], 3),
        "largest_difference": _difference(outputs["one"], outputs["other"]),
    }


def _frame(batch: Batch, age: int) -> Batch:
    """The batch with an earlier frame in the place of the key frame."""
    values = {name: getattr(batch, name) for name in batch.__slots__}
    per_frame = ("images", "img_from_cam", "ego_from_cam", "canvas_from_img")
    return Batch(**(values | {name: values[name][:, age : age + 1] for name in per_frame}))


# --- training ------------------------------------------------------------------------------------------------------


def _trained(ours: Detector, twin: Detector | None, batch: Batch, setting: Setting) -> Measurement:
    """Forward and backward pass, without the optimiser; the forward share of it by part."""
    passes = setting.passes
    watches: list[dict[str, float]] = []

    def step(network: Detector) -> None:
        watch = Stopwatch(passes.device)
        with passes.autocast(), observed(network, watch.enter, watch.leave):
            outputs = network(batch)
        watches.append(watch.stop())
        torch.stack(list(network.loss(outputs, network.targets(batch)).values())).sum().backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)

    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    if passes.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(passes.device)
        step(ours)  # algorithms are chosen
    for _ in range(passes.repeats):
        seconds["ours"].append(passes.seconds(lambda: step(ours)))
    forward = min(watches, key=lambda one: sum(one.values()))
    best = min(seconds["ours"])
    result = {
        "seconds": round(best / setting.samples, 4),
        "samples_per_second": round(setting.samples / best, 3),
        "forward_parts": [
            {"part": name, "seconds": round(value / setting.samples, 5)} for name, value in forward.items()
        ],
    }
    if passes.device.type == "cuda":
        result["peak_memory_gb"] = round(torch.cuda.max_memory_allocated(passes.device) / 1e9, 2)
    if twin is not None:
        for _ in range(passes.repeats):
            seconds["plain"].append(passes.seconds(lambda: step(twin)))
        result["plain"] = _against(best, min(seconds["plain"]), setting)
    return result


def _trained_along_a_scene(ours: Detector, batch: Batch, setting: Setting, window_seconds: float) -> Measurement:
    """As `_trained`, with the maps of earlier frames carried on (`data.streaming`) instead of made anew."""
    data = setting.recipe.data.model_copy(update={"streaming": StreamingConfig(), "class_balanced": False})
    carrying = build_detector(setting.recipe.model, data).to(setting.passes.device).train()
    carrying.load_state_dict(ours.state_dict())
    if setting.recipe.engine.channels_last:
        carrying.to(memory_format=torch.channels_last)
    with torch.no_grad(), setting.passes.autocast():
        for age in range(data.frames - 1):
            carrying(_on_a_walk(batch, age))
    result = _trained(carrying, None, _on_a_walk(batch, data.frames - 1), setting)
    return result | {"window_seconds": window_seconds, "ratio": round(window_seconds / result["seconds"], 3)}


def _on_a_walk(batch: Batch, age: int) -> Batch:
    """The key frames of the batch, driven on."""
    pose = batch.global_from_ego.clone()
    pose[:, 0, 3] += METRES_PER_FRAME * age
    walk = [(slot, age) for slot in range(len(batch))]
    return replace(_frame(batch, 0), global_from_ego=pose, walk=walk)


# --- common --------------------------------------------------------------------------------------------------------


def _against(ours: float, plain: float, setting: Setting) -> Measurement:
    return {
        "seconds": round(ours / setting.samples, 4),
        "plain_seconds": round(plain / setting.samples, 4),
        "ratio": round(plain / ours, 3),
    }


def _difference(ours: Any, other: Any) -> float:
    """Largest |a - b| / (1 + |b|) over all tensors of two raw outputs."""
    pairs = zip(_tensors(ours), _tensors(other), strict=True)
    return max(float(((a.float() - b.float()).abs() / (1 + b.float().abs())).max()) for a, b in pairs)


def _tensors(outputs: Any) -> list[Tensor]:
    values = [getattr(outputs, name) for name in outputs.__dataclass_fields__]
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def _show(result: Measurement) -> None:
    console = Console()
    whole = result["forward"]
    table = Table(title=f"{result['recipe']}, forward pass: {whole['seconds']:.3f} s per sample")
    for heading in ("part", "seconds", "GFLOP", "GFLOP/s", "MB read and written"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in whole["parts"]:
        counted = ["", "", ""]
        if "gflop" in part:
            rate = part["gflop"] / part["seconds"] if part["seconds"] else 0.0
            counted = [f"{part['gflop']:.1f}", f"{rate:.0f}", f"{part['megabytes']:.0f}"]
        table.add_row(part["part"], f"{part['seconds']:.4f}", *counted)
    console.print(table)
    if "plain" in whole:
        console.print(f"{_ratio(whole['plain'])}, outputs differ by {whole['plain']['largest_difference']:.1e}")
    if "streaming" in result:
        streamed = result["streaming"]
        console.print(
            f"along a scene: {streamed['remembered_seconds']:.3f} s against {streamed['anew_seconds']:.3f} s, "
            f"ratio {streamed['ratio']:.2f}, outputs differ by {streamed['largest_difference']:.1e}"
        )
    if "training" in result:
        trained = result["training"]
        console.print(f"forward and backward pass: {trained['seconds']:.3f} s per sample")
        if "plain" in trained:
            console.print(_ratio(trained["plain"]))
    if "carrying" in result:
        carried = result["carrying"]
        console.print(
            f"training along a scene: {carried['samples_per_second']:.3f} samples/s against "
            f"{result['training']['samples_per_second']:.3f} with every frame anew, ratio {carried['ratio']:.2f}"
        )


def _ratio(compared: Measurement) -> str:
    return (
        f"plain twin: {compared['plain_seconds']:.3f} s against {compared['seconds']:.3f} s, ratio "
        f"{compared['ratio']:.2f} (target for stage 2 on a CPU: {TARGET_RATIO:.0f})"
    )
