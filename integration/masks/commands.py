"""`bevnext-sam2 sam2`: train and measure masks. Torch is imported when a command runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from configs.image_size import ImageSize
from configs.remote_location import DataRoot
from integration.labelling.command import label

DEFAULT_ROOT: Final = Path("data/synthetic")
DEFAULT_SIZE: Final = (288, 512)
"""Height and width of the network image that a training from scratch takes."""

_ROOT = click.option(
    "--data-root",
    "--data-path",
    type=DataRoot(),
    default=DEFAULT_ROOT,
    show_default=True,
    metavar="DIR|s3://...",
    help="Root of the data; sets of scenes with their index (`data index`).",
)
_DATA = click.option(
    "--data",
    type=click.Choice(["scenes", "nuimages"]),
    default="scenes",
    show_default=True,
    help="scenes: nuScenes format, as `data synth` makes it. nuimages: nuImages, or labels that `sam2 label` wrote.",
)
_VERSION = click.option(
    "--version",
    metavar="NAME",
    help="Folder of the tables. Default: v1.0-synthetic; of nuImages v1.0-train to train, v1.0-val to measure, or the "
    "only one there is.",
)
_SPLIT = click.option("--split", metavar="NAME", help="Of scenes. Default: the version's own.")
_CONFIG = click.option(
    "--config",
    default="sam2_hiera_nano",
    show_default=True,
    metavar="NAME|FILE",
    help="SAM 2 configuration: sam2_hiera_nano, a published one such as sam2.1_hiera_t, or a file.",
)


@click.group("sam2")
def sam2() -> None:
    """Fine-tune and measure SAM 2 on exact instance masks; label data sets with it."""


sam2.add_command(label)


@sam2.command("train")
@_ROOT
@_DATA
@_VERSION
@_SPLIT
@_CONFIG
@click.option("--weights", metavar="NAME|FILE", help="Weights to start from. Default: from scratch.")
@click.option("--steps", type=click.IntRange(min=1), default=700, show_default=True, help="Optimiser steps.")
@click.option("--images", type=click.IntRange(min=1), default=4, show_default=True, help="Images per step.")
@click.option(
    "--objects", type=click.IntRange(min=1), default=6, show_default=True, help="Most objects of an image that train."
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Peak rate. Default: 1e-3 from scratch, 1e-4 with --weights (decoder alone).",
)
@click.option("--encoder/--no-encoder", default=None, help="Train the image encoder too. Default: from scratch only.")
@click.option(
    "--network-size",
    type=ImageSize(),
    metavar="WxH",
    help="Size that images are resized to. Default: {1}x{0} from scratch, else the weights' own.".format(*DEFAULT_SIZE),
)
@click.option(
    "--device", default="auto", show_default=True, help="auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
)
@click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Processes that read images.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--resume",
    default="none",
    show_default=True,
    metavar="auto|none|PATH",
    help="Go on with the training that was interrupted in --out (auto; it starts one where there is none) or in PATH.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("outputs/sam2-nano"), show_default=True, metavar="DIR"
)
def train(
    data_root: Path,
    data: str,
    version: str | None,
    split: str | None,
    config: str,
    weights: str | None,
    steps: int,
    images: int,
    objects: int,
    learning_rate: float | None,
    encoder: bool | None,
    network_size: tuple[int, int] | None,
    device: str,
    workers: int,
    seed: int,
    resume: str,
    out: Path,
) -> None:
    """Train on instance masks: exact ones of a synthetic set, annotated ones of nuImages, or labels of `sam2 label`.

    From scratch everything is trained, and the outline of each object's 3D box is part of the prompt; with --weights
    the mask decoder is, from boxes alone, and so it is with nuImages, whose objects have no 3D boxes. Weights go to
    DIR/sam2.safetensors when it is done, the curve to DIR/metrics.jsonl.

    SIGTERM, SIGINT and SIGUSR1 end it after the step it is at; --resume auto goes on, bit for bit.

    \b
    bevnext-sam2 data synth --out data/synthetic --image-size 704x396 --scenes 80 --samples 4 --reach 20
    bevnext-sam2 sam2 train --data-root data/synthetic --out outputs/sam2-nano
    bevnext-sam2 sam2 eval --data-root data/synthetic --weights outputs/sam2-nano/sam2.safetensors
    bevnext-sam2 sam2 train --data nuimages --data-root /data/nuimages --config sam2.1_hiera_t \\
        --weights sam2.1-hiera-tiny --out outputs/sam2-tiny

    Exit codes: 0 done, 2 bad option or weights, 3 bad data, 75 interrupted and saved, 1 anything else.
    """
    from integration.masks.session import DataChoice, TrainingChoice, run_training

    choice = TrainingChoice(
        data=DataChoice(data, data_root, version, split),
        config=config,
        weights=weights,
        network_size=network_size or (DEFAULT_SIZE if weights is None else None),
        objects=objects,
        device=device,
        learning_rate=learning_rate or (1e-3 if weights is None else 1e-4),
        train_encoder=weights is None if encoder is None else encoder,
        steps=steps,
        images=images,
        workers=workers,
        seed=seed,
        resume=resume,
    )
    click.echo(f"weights: {run_training(choice, out, click.echo)}")


@sam2.command("eval")
@_ROOT
@_DATA
@_VERSION
@_SPLIT
@_CONFIG
@click.option("--weights", required=True, metavar="NAME|FILE", help="Weights to measure.")
@click.option(
    "--metric",
    type=click.Choice(["auto", "masks", "lidar"]),
    default="auto",
    show_default=True,
    help="masks: IoU and boundary F. lidar: recall and precision of LiDAR points, which needs no masks. auto: masks "
    "where the data have them.",
)
@click.option(
    "--every", type=click.IntRange(min=1), default=1, show_default=True, help="Each n-th image (lidar: sample) only."
)
@click.option("--device", default="auto", show_default=True, help="auto (a GPU if there is one), cpu, cuda, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON and nothing else on standard output.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the scores as JSON there, too.")
def evaluate(
    data_root: Path,
    data: str,
    version: str | None,
    split: str | None,
    config: str,
    weights: str,
    metric: str,
    every: int,
    device: str,
    as_json: bool,
    out: Path | None,
) -> None:
    """Mask IoU and boundary F against exact masks (synthetic sets, nuImages), or agreement with LiDAR points.

    Masks are made from the annotated boxes. Beside them stands what the boxes give without SAM 2: the outline of the
    3D box filled, and the same without what nearer outlines cover (nuImages: the 2D box filled).

    Exit codes: 0 done, 2 bad option or weights, 3 bad data, 1 anything else.
    """
    from integration.masks.session import DataChoice, run_evaluation, table

    choice = DataChoice(data, data_root, version, split)
    summary = run_evaluation(choice, metric, config, weights, every, device)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(summary) if as_json else table(summary))


@sam2.command("calibrate")
@_ROOT
@_VERSION
@_SPLIT
@_CONFIG
@click.option("--weights", required=True, metavar="NAME|FILE", help="Weights that the masks are made with.")
@click.option(
    "--results",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Detections of the split in the nuScenes results format (`bevnext-sam2 eval --split ...`).",
)
@click.option("--device", default="auto", show_default=True, help="auto (a GPU if there is one), cpu, cuda, ...")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("outputs/feedback.json"), show_default=True, metavar="FILE"
)
def calibrate(
    data_root: Path,
    version: str | None,
    split: str | None,
    config: str,
    weights: str,
    results: Path,
    device: str,
    out: Path,
) -> None:
    """Fit what masks say about a detector's scores, for BEVSAMFusion(..., feedback=FILE).

    One logistic regression per class, from the score and its masks to whether a detection is true (2 m, as nuScenes
    counts), on the training split: of scenes that it is judged on it would learn the answers. Detections of a split
    that the detector was trained on look better than others will; of its own training, leave some scenes out.

    Exit codes: 0 done, 2 bad option or weights, 3 bad data, 1 anything else.
    """
    from integration.masks.session import DataChoice, feedback_table, run_calibration

    choice = DataChoice("scenes", data_root, version, split)
    click.echo(feedback_table(run_calibration(choice, results, config, weights, device, out)))
    click.echo(f"feedback: {out}")
