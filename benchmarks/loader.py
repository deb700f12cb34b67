"""`bevnext-sam2 bench loader`: decode, resize and crop against Pillow, and samples per second of the whole loader.

Both paths start at the file and end at a uint8 array; they take turns on all images, in one thread. Times are CPU time
of that thread, for each image the best of several turns, so that other work on the machine counts little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.machine import measured_on
from benchmarks.result_file import out_option, write_result
from configs.errors import UsageError
from configs.schema import DataConfig
from scenes.augment import ImageTransform, draw_image_transform, plain_image_transform
from scenes.command_options import data_set_options, index_dir_option, say_if_synthetic
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex, open_index
from scenes.loader import training_batches
from scenes.loading import ImageLoader
from scenes.order import BatchLayout, training_order

TURNS: Final = 7
Pixels = NDArray[np.uint8]
Times = NDArray[np.float64]


@click.command()
@data_set_options
@index_dir_option
@click.option("--images", type=click.IntRange(min=1), default=60, show_default=True, help="Images to read.")
@click.option(
    "--images-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Also measure the JPEG files of this folder.",
)
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Loader processes.")
@click.option("--samples", type=click.IntRange(min=1), default=32, show_default=True, help="Samples of each stream.")
@out_option
def loader(
    data_root: Path,
    version: str,
    index_dir: Path | None,
    images: int,
    images_dir: Path | None,
    workers: int,
    samples: int,
    out: Path | None,
) -> None:
    """Compare decode + resize + crop with Pillow, one thread each, and time whole samples.

    Images are resized for evaluation (one size) and for training (sizes and crops of the published augmentation); with
    flip and rotation in a third set, which both paths leave to Pillow.
    """
    torch.set_num_threads(1)
    say_if_synthetic(version)
    index = open_index(data_root, version, index_dir)
    sources = {version: _images_of(index, images)}
    if images_dir is not None:
        sources["folder"] = _images_in(images_dir, images)
    result = measured_on("torch", "pillow", "simplejpeg", "numpy") | {
        "benchmark": "loader",
        "baseline": "Pillow: Image.open, bicubic resize, crop, to array",
        "unit": "images per second of CPU time in one thread",
        "images": [case for name, paths in sources.items() for case in _compare(name, paths)],
        "samples": [_stream(index, samples, count) for count in sorted({0, workers})],
    }
    _show(result)
    write_result(result, out)


def _images_of(index: SceneIndex, count: int) -> list[Path]:
    frames = (index.frame(row) for row in range(len(index)))
    return list(islice((path for frame in frames for path in frame.image_paths), count))


def _images_in(folder: Path, count: int) -> list[Path]:
    paths = sorted(folder.glob("*.jpg"))[:count]
    if not paths:
        raise UsageError(f"no *.jpg in {folder}", fix="name a folder of JPEG files with --images-dir")
    return paths


# --- images --------------------------------------------------------------------------------------------------------


def _compare(source: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    with Image.open(paths[0]) as image:
        size = image.height, image.width
    config = DataConfig(source_size=size)
    rng = np.random.default_rng(0)
    drawn = [draw_image_transform(config, rng) for _ in paths]
    upright = [ImageTransform(one.factor, one.resized, one.crop) for one in drawn]
    sets = {
        "evaluation": [plain_image_transform(config)] * len(paths),
        "training": upright,
        "training, flip, rotation": drawn,
    }
    return [
        {"source": source, "count": len(paths), "source_size": size, "transforms": name}
        | _race(paths, size, transforms, config.image_size)
        for name, transforms in sets.items()
    ]


def _race(
    paths: Sequence[Path], size: tuple[int, int], transforms: Sequence[ImageTransform], canvas: tuple[int, int]
) -> dict[str, Any]:
    cases = list(zip(paths, transforms, strict=True))
    images, out = ImageLoader(), torch.empty(*canvas, 3, dtype=torch.uint8)

    def by_ours(path: Path, transform: ImageTransform) -> Pixels:
        transform.apply(images.read(path, size), images, out)
        return out.numpy()

    differences = [np.abs(_by_pillow(*case).astype(np.int16) - by_ours(*case)) for case in cases]
    pillow, ours = np.min([[_seconds(read, cases) for read in (_by_pillow, by_ours)] for _ in range(TURNS)], axis=0)
    return {
        "pillow_images_per_second": round(len(cases) / pillow.sum(), 1),
        "our_images_per_second": round(len(cases) / ours.sum(), 1),
        "ratio": round(pillow.sum() / ours.sum(), 2),
        "largest_difference_grey_levels": max(int(difference.max()) for difference in differences),
        "differing_values": round(float(np.mean([(difference > 0).mean() for difference in differences])), 6),
    }


def _seconds(read: Callable[[Path, ImageTransform], Pixels], cases: Sequence[tuple[Path, ImageTransform]]) -> Times:
    """CPU time of this thread for each image."""
    stamps = [time.thread_time()]
    for case in cases:
        read(*case)
        stamps.append(time.thread_time())
    return np.diff(stamps)


def _by_pillow(path: Path, transform: ImageTransform) -> Pixels:
    """What the published loader does to a file."""
    with Image.open(path) as file:
        image = file.resize(transform.resized[::-1]).crop(transform.crop)
    if transform.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if transform.rotate_degrees:
        image = image.rotate(transform.rotate_degrees)
    return np.asarray(image)


# --- samples -------------------------------------------------------------------------------------------------------


def _stream(index: SceneIndex, samples: int, workers: int) -> dict[str, Any]:
    """Wall time of a stream of training samples, after the first batch of each worker has arrived."""
    config = DataConfig(version=index.version, source_size=index.frame(0).image_size)
    rows = np.arange(len(index))
    order, layout = training_order(index, rows, config, seed=0), BatchLayout(0, 1, 1, 1)
    dataset = SceneDataset(index, rows, config, training=True, seed=0)
    first = max(1, workers)
    batches = training_batches(dataset, order, layout, first_step=0, stop_step=first + samples, workers=workers)
    start = 0.0
    for number, _ in enumerate(batches, start=1):
        if number == first:
            start = time.perf_counter()
    rate = samples / (time.perf_counter() - start)
    return {
        "workers": workers,
        "samples": samples,
        "samples_per_second": round(rate, 2),
        "images_per_second": round(rate * len(config.cameras), 1),
    }


def _show(result: dict[str, Any]) -> None:
    images = Table(title="decode, resize, crop: images per second of one core, largest difference in grey levels")
    for heading in ("images", "for", "Pillow", "ours", "ratio", "off by"):
        images.add_column(heading, justify="left" if heading in ("images", "for") else "right")
    for case in result["images"]:
        images.add_row(
            f"{case['count']} of {case['source']}",
            case["transforms"],
            f"{case['pillow_images_per_second']:.1f}",
            f"{case['our_images_per_second']:.1f}",
            f"{case['ratio']:.2f}",
            f"{case['largest_difference_grey_levels']} level(s)",
        )
    samples = Table(title="whole training samples of BEVNeXt stage 1")
    for heading in ("workers", "samples per second", "images per second"):
        samples.add_column(heading, justify="right")
    for case in result["samples"]:
        samples.add_row(str(case["workers"]), f"{case['samples_per_second']:.2f}", f"{case['images_per_second']:.1f}")
    console = Console()
    console.print(images)
    console.print(samples)
