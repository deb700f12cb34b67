"""`bevnext-sam2 sam2`: train and measure masks. Torch is imported when a command runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from configs.errors import UsageError
from configs.recipes import SPLITS_OF_VERSION

DEFAULT_ROOT: Final = Path("data/synthetic")
VERSION: Final = "v1.0-synthetic"
DEFAULT_SIZE: Final = "512x288"

_ROOT = click.option(
    "--data-root",
    "--data-path",
    type=click.Path(path_type=Path),
    default=DEFAULT_ROOT,
    show_default=True,
    metavar="DIR",
    help="A set of `data synth`, with its index (`data index`).",
)
_CONFIG = click.option(
    "--config",
    default="sam2_hiera_nano",
    show_default=True,
    metavar="NAME|FILE",
    help="SAM 2 configuration: sam2_hiera_nano, a published one such as sam2.1_hiera_t, or a file.",
)


@click.group("sam2")
def sam2() -> None:
    """Fine-tune and measure SAM 2 on exact instance masks."""


@sam2.command("train")
@_ROOT
@_CONFIG
@click.option("--weights", metavar="NAME|FILE", help="Weights to start from. Default: from scratch.")
@click.option("--steps", type=click.IntRange(min=1), default=700, show_default=True, help="Optimiser steps.")
@click.option("--images", type=click.IntRange(min=1), default=4, show_default=True, help="Images per step.")
@click.option(
    "--objects", type=click.IntRange(min=1), default=6, show_default=True, help="Most objects of an image that train."
)
@click.option(
    "--learning-rate", type=float, help="Peak rate. Default: 1e-3 from scratch, 1e-4 with --weights (decoder alone)."
)
@click.option("--encoder/--no-encoder", default=None, help="Train the image encoder too. Default: from scratch only.")
@click.option(
    "--network-size", metavar="WxH", help=f"Size that images are resized to. Default: {DEFAULT_SIZE} from scratch."
)
@click.option(
    "--device", default="auto", show_default=True, help="auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
)
@click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Processes that read images.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("outputs/sam2-nano"), show_default=True, metavar="DIR"
)
def train(
    data_root: Path,
    config: str,
    weights: str | None,
    steps: int,
    images: int,
    objects: int,
    learning_rate: float | None,
    encoder: bool | None,
    network_size: str | None,
    device: str,
    workers: int,
    seed: int,
    out: Path,
) -> None:
    """Train on the instance masks of a synthetic set.

    From scratch everything is trained, and the outline of each object's 3D box is part of the prompt; with --weights
    the mask decoder is, from boxes alone. Weights go to DIR/sam2.safetensors, the curve to DIR/metrics.jsonl.

    \b
    bevnext-sam2 data synth --out data/synthetic --image-size 704x396 --scenes 80 --samples 4 --reach 20
    bevnext-sam2 sam2 train --data-root data/synthetic --out outputs/sam2-nano
    bevnext-sam2 sam2 eval --data-root data/synthetic --weights outputs/sam2-nano/sam2.safetensors

    Exit codes: 0 done, 2 bad option or weights, 3 bad data, 1 anything else.
    """
    from integration.masks.session import TrainingChoice, run_training

    size = _size(network_size or (DEFAULT_SIZE if weights is None else None))
    choice = TrainingChoice(
        data_root=data_root,
        version=VERSION,
        split=SPLITS_OF_VERSION[VERSION][0],
        config=config,
        weights=weights,
        network_size=size,
        objects=objects,
        device=device,
        learning_rate=learning_rate or (1e-3 if weights is None else 1e-4),
        train_encoder=weights is None if encoder is None else encoder,
        steps=steps,
        images=images,
        workers=workers,
        seed=seed,
    )
    click.echo(f"weights: {run_training(choice, out, click.echo)}")


@sam2.command("eval")
@_ROOT
@_CONFIG
@click.option("--weights", required=True, metavar="NAME|FILE", help="Weights to measure.")
@click.option("--split", default=SPLITS_OF_VERSION[VERSION][1], show_default=True, metavar="NAME")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True, help="Each n-th image only.")
@click.option("--device", default="auto", show_default=True, help="auto (a GPU if there is one), cpu, cuda, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON and nothing else on standard output.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the scores as JSON there, too.")
def evaluate(
    data_root: Path, config: str, weights: str, split: str, every: int, device: str, as_json: bool, out: Path | None
) -> None:
    """Mask IoU and boundary F against the exact masks of a synthetic set, from the annotated 3D boxes.

    Beside it stands what the boxes give without SAM 2: the outline of the 3D box filled, and the same without what
    nearer outlines cover.

    Exit codes: 0 done, 2 bad option or weights, 3 bad data, 1 anything else.
    """
    from integration.masks.session import run_evaluation, table

    summary = run_evaluation(data_root, VERSION, split, config, weights, every, device)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(summary) if as_json else table(summary))


def _size(text: str | None) -> tuple[int, int] | None:
    """`512x288` to (288, 512)."""
    if text is None:
        return None
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise UsageError(f"--network-size {text} is not of the form WxH", fix=f"write --network-size {DEFAULT_SIZE}")
    return int(height), int(width)
