"""`bevnext-sam2 bench sam`: SAM 2 per image and per box, and what its features cost a detector.

Images, boxes and weights are made up: they have the true shapes, and the time does not depend on their values. Every
time is the best of several passes, which take turns with the baseline's. On a CPU, seconds are processor time, summed
over the threads.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import measured_on
from benchmarks.made_up_batch import made_up_batch
from benchmarks.parts import seconds_on
from configs.errors import UsageError
from configs.recipes import load_recipe
from configs.schema import Recipe, Sam2Config
from integration.sam2_weights import load_segmenter
from integration.sam_enhanced import build_recipe_detector
from integration.segmenter import ImageFeatures, Prompts

PRECISIONS: Final = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SOURCE: Final = (900, 1600)
"""Height and width of the images, as of nuScenes; resizing them belongs to encoding."""
Measurement = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured, and how."""

    config: str
    network_size: tuple[int, int] | None
    device: torch.device
    precision: str
    images: int
    boxes: int
    repeats: int
    compiled: bool

    def autocast(self) -> torch.autocast:
        kind = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, kind, enabled=kind is not None)


@click.command()
@click.option(
    "--config", default="sam2_hiera_nano", show_default=True, metavar="NAME|FILE", help="SAM 2 configuration."
)
@click.option("--network-size", metavar="WxH", help="Size that images are resized to. Default: the configuration's.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--precision", type=click.Choice(list(PRECISIONS)), default="fp32", show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=6, show_default=True, help="Of one sample.")
@click.option("--boxes", type=click.IntRange(min=1), default=30, show_default=True, help="In all images together.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Passes; the best counts.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the CPU. Default: PyTorch's.")
@click.option("--compile/--no-compile", "compiled", default=False, show_default=True, help="torch.compile the encoder.")
@click.option(
    "--detector",
    metavar="RECIPE",
    help="Measure this BEVNeXt recipe, too, with and without the features of the configuration (mode shared).",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the result to this JSON file.")
def sam(
    config: str,
    network_size: str | None,
    device: str,
    precision: str,
    images: int,
    boxes: int,
    repeats: int,
    threads: int | None,
    compiled: bool,
    detector: str | None,
    out: Path | None,
) -> None:
    """Time SAM 2: encoding an image, decoding a box, memory; and the cost of its features in a detector.

    The baseline encodes one image and decodes one box at a time.
    """
    if threads:
        torch.set_num_threads(threads)
    setting = Setting(config, _network_size(network_size), _device(device), precision, images, boxes, repeats, compiled)
    result = measured_on("torch", "sam2") | {
        "benchmark": "sam",
        "baseline": "the same weights, one image and one box at a time",
        "weights": "random, of the true shapes: times do not depend on their values",
        "unit": "seconds" + (", processor time of all threads" if setting.device.type == "cpu" else ""),
        "device": torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "compiled": compiled,
        **_segmenter(setting),
    }
    if detector is not None:
        result["detector"] = _detector(load_recipe(detector), setting)
    _show(result)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        click.echo(f"written to {out}")


# --- SAM 2 ---------------------------------------------------------------------------------------------------------


def _segmenter(setting: Setting) -> Measurement:
    torch.manual_seed(0)
    segmenter = load_segmenter(setting.config, None, network_size=setting.network_size, device=setting.device)
    if setting.compiled:
        segmenter.image_encoder.compile()
    images = torch.randint(0, 256, (setting.images, 3, *SOURCE), dtype=torch.uint8).to(setting.device)
    prompts = Prompts.of_boxes(torch.arange(setting.boxes, device=setting.device) % setting.images, _boxes(setting))
    seconds: dict[str, list[float]] = {"encode": [], "decode": [], "encode_single": [], "decode_single": []}
    with torch.inference_mode(), setting.autocast():
        features = segmenter.encode(images)  # warms up, and compiles
        segmenter.decode(features, prompts)
        before = _peak_memory(setting.device, reset=True)
        for _ in range(setting.repeats):
            seconds["encode"].append(_seconds(lambda: segmenter.encode(images), setting))
            seconds["decode"].append(_seconds(lambda: segmenter.decode(features, prompts), setting))
        peak = _peak_memory(setting.device)
        for _ in range(setting.repeats):
            seconds["encode_single"].append(_seconds(lambda: segmenter.encode(images, chunk=1), setting))
            seconds["decode_single"].append(_seconds(lambda: segmenter.decode(features, prompts, chunk=1), setting))
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "config": setting.config,
        "network_size": list(segmenter.network_size),
        "parameters": sum(one.numel() for one in segmenter.parameters()),
        "encode": _against(best["encode"], best["encode_single"], setting.images, "image"),
        "decode": _against(best["decode"], best["decode_single"], setting.boxes, "box"),
        "sample_seconds": round(best["encode"] + best["decode"], 4),
        "memory": {
            "of": "the device's allocator" if setting.device.type == "cuda" else "the whole process",
            "features_mb": round(_size(features) / 1e6, 1),
            "before_mb": round(before / 1e6, 1),
            "peak_mb": round(peak / 1e6, 1),
        },
    }


def _boxes(setting: Setting) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(setting.boxes, 2, generator=generator) * torch.tensor([SOURCE[1] - 400.0, SOURCE[0] - 300.0])
    side = 40 + torch.rand(setting.boxes, 2, generator=generator) * 260
    return torch.cat([corner, corner + side], 1).to(setting.device)


def _against(ours: float, single: float, count: int, what: str) -> Measurement:
    return {
        "count": count,
        f"seconds_per_{what}": round(ours / count, 5),
        f"single_seconds_per_{what}": round(single / count, 5),
        "ratio": round(single / ours, 3),
    }


def _size(features: ImageFeatures) -> int:
    return features.embedding.nbytes + features.fine.nbytes + features.middle.nbytes


def _peak_memory(device: torch.device, reset: bool = False) -> int:
    """Bytes: the most that were in use so far (on a CPU by the whole process); on a GPU since the last `reset`."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated(device)
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return peak


# --- detector ------------------------------------------------------------------------------------------------------


def _detector(recipe: Recipe, setting: Setting) -> Measurement:
    """A forward pass of one sample with and without SAM 2's features."""
    torch.manual_seed(0)
    features = Sam2Config(config=setting.config, weights=None, random=True)
    ways = {"plain": recipe.model_copy(update={"sam2": None}), "enhanced": recipe.model_copy(update={"sam2": features})}
    detectors = {name: build_recipe_detector(one).to(setting.device).eval() for name, one in ways.items()}
    batch = made_up_batch(recipe.data, 1).to(setting.device)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peak: dict[str, float] = {}
    with torch.inference_mode(), setting.autocast():
        for name, one in detectors.items():
            _peak_memory(setting.device, reset=True)
            one(batch)
            peak[name] = _peak_memory(setting.device) / 1e6
        for _ in range(setting.repeats):
            for name, one in detectors.items():
                seconds[name].append(_seconds(lambda one=one: one(batch), setting))  # type: ignore[misc]
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "recipe": recipe.name,
        "image_size": list(recipe.data.image_size),
        "mode": "shared",
        "plain_seconds": round(best["plain"], 4),
        "enhanced_seconds": round(best["enhanced"], 4),
        "ratio": round(best["enhanced"] / best["plain"], 3),
        **(
            {f"{name}_peak_mb": round(value, 1) for name, value in peak.items()}
            if setting.device.type == "cuda"
            else {}
        ),
    }


# --- common --------------------------------------------------------------------------------------------------------


def _network_size(text: str | None) -> tuple[int, int] | None:
    """`512x288` to (288, 512)."""
    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise UsageError(f"--network-size {text} is not of the form WxH", fix="write it like 512x288")
    return int(height), int(width)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device {name}: {str(error).splitlines()[0]}", fix="use cpu, or a GPU that is there"
        ) from error
    return device


def _seconds(work: Callable[[], object], setting: Setting) -> float:
    begun = seconds_on(setting.device)
    work()
    return seconds_on(setting.device) - begun


def _show(result: Measurement) -> None:
    console = Console(highlight=False)
    height, width = result["network_size"]
    table = Table(title=f"{result['config']} at {width}x{height}, {result['precision']}, {result['device']}")
    for heading in ("", "count", "seconds each", "one at a time", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, unit in (("encode", "image"), ("decode", "box")):
        one = result[name]
        each, single = (one[f"{kind}seconds_per_{unit}"] for kind in ("", "single_"))
        table.add_row(f"{name}, per {unit}", str(one["count"]), f"{each:.4f}", f"{single:.4f}", f"{one['ratio']:.2f}")
    console.print(table)
    memory = result["memory"]
    console.print(f"one sample: {result['sample_seconds']:.3f} s; peak {memory['peak_mb']:.0f} MB of {memory['of']}")
    console.print(f"weights: {result['weights']}")
    if "detector" in result:
        one = result["detector"]
        console.print(
            f"{one['recipe']}: {one['plain_seconds']:.3f} s, with SAM 2's features {one['enhanced_seconds']:.3f} s "
            f"({one['ratio']:.2f} times)"
        )
