"""`bevnext-sam2 bench sam`: SAM 2 per image and per box, and what its features cost a detector.

Images, boxes and weights are made up: they have the true shapes, and the time does not depend on their values. Every
time is the best of several passes, which take turns with the baseline's. On a CPU, seconds are processor time, summed
over the threads.
"""

from __future__ import annotations

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
from benchmarks.passes import Passes, pass_options
from benchmarks.result_file import out_option, write_result
from configs.image_size import ImageSize
from configs.recipes import load_recipe
from configs.schema import Recipe, Sam2Config
from integration.sam2_weights import load_segmenter
from integration.sam_enhanced import build_recipe_detector
from integration.segmenter import ImageFeatures, Prompts

SOURCE: Final = (900, 1600)
"""Height and width of the images, as of nuScenes; resizing them belongs to encoding."""
Measurement = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured, and how."""

    config: str
    network_size: tuple[int, int] | None
    images: int
    boxes: int
    compiled: bool
    passes: Passes


@click.command()
@click.option(
    "--config", default="sam2_hiera_nano", show_default=True, metavar="NAME|FILE", help="SAM 2 configuration."
)
@click.option(
    "--network-size",
    type=ImageSize(),
    metavar="WxH",
    help="Size that images are resized to. Default: the configuration's.",
)
@pass_options
@click.option("--images", type=click.IntRange(min=1), default=6, show_default=True, help="Of one sample.")
@click.option("--boxes", type=click.IntRange(min=1), default=30, show_default=True, help="In all images together.")
@click.option("--compile/--no-compile", "compiled", default=False, show_default=True, help="torch.compile the encoder.")
@click.option(
    "--detector",
    metavar="RECIPE",
    help="Measure this BEVNeXt recipe, too, with and without the features of the configuration (mode shared).",
)
@out_option
def sam(
    config: str,
    network_size: tuple[int, int] | None,
    passes: Passes,
    images: int,
    boxes: int,
    compiled: bool,
    detector: str | None,
    out: Path | None,
) -> None:
    """Time SAM 2: encoding an image, decoding a box, memory; and the cost of its features in a detector.

    The baseline encodes one image and decodes one box at a time.
    """
    setting = Setting(config, network_size, images, boxes, compiled, passes)
    result = measured_on("torch", "sam2") | {
        "benchmark": "sam",
        "baseline": "the same weights, one image and one box at a time",
        "weights": "random, of the true shapes: times do not depend on their values",
        **passes.facts("seconds"),
        "compiled": compiled,
        **_segmenter(setting),
    }
    if detector is not None:
        result["detector"] = _detector(load_recipe(detector), config, passes)
    _show(result)
    write_result(result, out)


# --- SAM 2 ---------------------------------------------------------------------------------------------------------


def _segmenter(setting: Setting) -> Measurement:
    passes = setting.passes
    torch.manual_seed(0)
    segmenter = load_segmenter(setting.config, None, network_size=setting.network_size, device=passes.device)
    if setting.compiled:
        segmenter.image_encoder.compile()
    images = torch.randint(0, 256, (setting.images, 3, *SOURCE), dtype=torch.uint8).to(passes.device)
    prompts = Prompts.of_boxes(torch.arange(setting.boxes, device=passes.device) % setting.images, _boxes(setting))
    with torch.inference_mode(), passes.autocast():
        features = segmenter.encode(images)
        ways: dict[str, Callable[[], object]] = {
            "encode": lambda: segmenter.encode(images),
            "decode": lambda: segmenter.decode(features, prompts),
            "encode_single": lambda: segmenter.encode(images, chunk=1),
            "decode_single": lambda: segmenter.decode(features, prompts, chunk=1),
        }
        for way in ways.values():
            way()  # warms up, and compiles
        before = _peak_memory(passes.device, reset=True)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(passes.repeats):
            for name, way in ways.items():
                seconds[name].append(passes.seconds(way))
        peak = _peak_memory(passes.device)
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "config": setting.config,
        "network_size": list(segmenter.network_size),
        "parameters": sum(one.numel() for one in segmenter.parameters()),
        "encode": _against(best["encode"], best["encode_single"], setting.images, "image"),
        "decode": _against(best["decode"], best["decode_single"], setting.boxes, "box"),
        "sample_seconds": round(best["encode"] + best["decode"], 4),
        "memory": {
            "of": "the device's allocator" if passes.device.type == "cuda" else "the whole process",
            "features_mb": round(_size(features) / 1e6, 1),
            "before_mb": round(before / 1e6, 1),
            "peak_mb": round(peak / 1e6, 1),
        },
    }


def _boxes(setting: Setting) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(setting.boxes, 2, generator=generator) * torch.tensor([SOURCE[1] - 400.0, SOURCE[0] - 300.0])
    side = 40 + torch.rand(setting.boxes, 2, generator=generator) * 260
    return torch.cat([corner, corner + side], 1).to(setting.passes.device)


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


def _detector(recipe: Recipe, config: str, passes: Passes) -> Measurement:
    """A forward pass of one sample with and without SAM 2's features."""
    torch.manual_seed(0)
    features = Sam2Config(config=config, weights=None, random=True)
    ways = {"plain": recipe.model_copy(update={"sam2": None}), "enhanced": recipe.model_copy(update={"sam2": features})}
    detectors = {name: build_recipe_detector(one).to(passes.device).eval() for name, one in ways.items()}
    batch = made_up_batch(recipe.data, 1).to(passes.device)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peak: dict[str, float] = {}
    with torch.inference_mode(), passes.autocast():
        for name, one in detectors.items():
            _peak_memory(passes.device, reset=True)
            one(batch)
            peak[name] = _peak_memory(passes.device) / 1e6
        for _ in range(passes.repeats):
            for name, one in detectors.items():
                seconds[name].append(passes.seconds(lambda one=one: one(batch)))  # type: ignore[misc]
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "recipe": recipe.name,
        "image_size": list(recipe.data.image_size),
        "mode": "shared",
        "plain_seconds": round(best["plain"], 4),
        "enhanced_seconds": round(best["enhanced"], 4),
        "ratio": round(best["enhanced"] / best["plain"], 3),
        **(
            {f"{name}_peak_mb": round(value, 1) for name, value in peak.items()} if passes.device.type == "cuda" else {}
        ),
    }


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
