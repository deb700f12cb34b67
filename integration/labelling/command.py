"""`bevnext-sam2 sam2 label`: its options and help. The work, and torch with it, is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import click

from configs.errors import UsageError
from configs.image_size import ImageSize
from configs.plan_schema import Precision
from configs.recipes import SPLITS_OF_VERSION
from configs.remote_location import DataRoot
from integration.labelling.options import LabelOptions, Thresholds

_VERSION: Final = "v1.0-synthetic"
_DEFAULTS: Final = Thresholds()
Function = Callable[..., Any]


def _least(option: str, default: float, meaning: str) -> Callable[[Function], Function]:
    return click.option(option, type=click.FloatRange(0, 1), default=default, show_default=True, help=meaning)


@click.command("label")
@click.option(
    "--data-root",
    "--data-path",
    type=DataRoot(),
    default=Path("data/synthetic"),
    show_default=True,
    metavar="DIR|s3://...",
    help="A data set with its index (`data index`).",
)
@click.option("--version", default=_VERSION, show_default=True, metavar="NAME", help="Version of the data.")
@click.option("--split", metavar="NAME", help="Split to label. Default: the version's training split.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the boxes from this nuScenes results file of detections or tracks. Default: the annotations.",
)
@_least("--min-score", 0.3, "Boxes of --results below it are left out.")
@click.option("--weights", required=True, metavar="NAME|FILE", help="Weights of SAM 2.")
@click.option(
    "--config",
    default="sam2_hiera_nano",
    show_default=True,
    metavar="NAME|FILE",
    help="SAM 2 configuration of the weights: sam2_hiera_nano, a published one such as sam2.1_hiera_t, or a file.",
)
@click.option(
    "--network-size",
    type=ImageSize(),
    metavar="WxH",
    help="Size that images are resized to. Default: the weights' own.",
)
@click.option(
    "--tracks",
    is_flag=True,
    help="Follow each object through the films of the cameras. Needs published weights (nano has no memory).",
)
@_least(
    "--min-quality",
    _DEFAULTS.quality,
    "Least quality of a mask: the geometric mean of expected IoU and agreement.",
)
@_least("--min-iou", _DEFAULTS.iou, "Least IoU that SAM 2 expects.")
@_least(
    "--min-agreement",
    _DEFAULTS.agreement,
    "Least IoU of the mask's bounds and those of the 3D box, as far as no nearer box covers it.",
)
@_least("--min-visible", _DEFAULTS.visible, "Least share of the 3D box's outline that the mask fills.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that scenes are shared out to; each has SAM 2 in memory, and GPUs are taken in turn.",
)
@click.option(
    "--device", default="auto", show_default=True, help="auto (GPUs if there are any), cpu, cuda, cuda:1, ..."
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="What SAM 2 computes in; bf16 takes half the memory, and less time on a GPU that has it.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("outputs/labels"), show_default=True, metavar="DIR"
)
def label(
    data_root: Path,
    version: str,
    split: str | None,
    results: Path | None,
    min_score: float,
    weights: str,
    config: str,
    network_size: tuple[int, int] | None,
    tracks: bool,
    min_quality: float,
    min_iou: float,
    min_agreement: float,
    min_visible: float,
    workers: int,
    device: str,
    precision: Precision,
    out: Path,
) -> None:
    """Turn the 3D boxes of a data set into instance masks.

    Writes DIR/coco (instances.json, panoptic.json and its PNGs), DIR/nuimages (tables of the nuImages schema) and
    DIR/index.html (samples to look at). A command that was ended goes on where it was when it is started again; a
    folder with labels of other options is refused.

    \b
    bevnext-sam2 sam2 label --weights outputs/sam2-nano/sam2.safetensors --split synthetic_val --workers 2
    bevnext-sam2 sam2 label --data-root /data/nuscenes --version v1.0-trainval --split train --tracks --workers 8 \\
        --weights sam2.1-hiera-large --config sam2.1_hiera_l --min-iou 0.8 --min-agreement 0.7 --out outputs/train
    bevnext-sam2 sam2 label --data-root /data/nuscenes --version v1.0-trainval --split val --results results.json \\
        --weights sam2.1-hiera-tiny --config sam2.1_hiera_t --out outputs/val

    Exit codes: 0 done, 2 bad option or weights, 3 bad data, 1 anything else.
    """
    from integration.labelling.run import run_labelling

    options = LabelOptions(
        data_root=data_root,
        version=version,
        split=split or _training_split(version),
        results=results,
        min_score=min_score,
        config=config,
        weights=weights,
        network_size=network_size,
        thresholds=Thresholds(min_quality, min_iou, min_agreement, min_visible),
        tracks=tracks,
        device=device,
        precision=precision,
        workers=workers,
        out=out,
    )
    folder = run_labelling(options, click.echo)
    click.echo(f"labels: {folder.coco}, {folder.nuimages}\nto look at: {folder.page}")


def _training_split(version: str) -> str:
    if version not in SPLITS_OF_VERSION:
        raise UsageError(f"--version {version}: its training split is not known", fix="name one with --split")
    return SPLITS_OF_VERSION[version][0]
