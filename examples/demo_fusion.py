"""Masks for every object of one sample in a few lines: 3D boxes, six cameras, SAM 2, pictures.

    python examples/demo_fusion.py
    python examples/demo_fusion.py --data-root /data/nuscenes --version v1.0-mini --weights sam2.1-hiera-tiny

The boxes are the annotated ones; `bevnext-sam2 demo` does the same with a detector's, with scenes, and with images in a
folder. `integration.BEVSAMFusion` underneath takes plain tensors (docs/sam2.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from configs.errors import BevnextError, UsageError
from configs.mask_weights import choose_mask_weights
from evaluation.figures.sample_view import view_of
from evaluation.global_boxes import from_annotations
from evaluation.object_masks import MASKS_FILE, mask_maker, segment, write_masks
from evaluation.pictures import draw_objects_of
from evaluation.results import write_results
from scenes import open_index


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("data/synthetic"), show_default=True)
@click.option("--version", default="v1.0-synthetic", show_default=True)
@click.option("--row", type=click.IntRange(min=0), default=0, show_default=True, help="Which sample of the index.")
@click.option(
    "--weights", help="Weights of SAM 2: a file, or a name of `checkpoints list`. Default: those that are here."
)
@click.option("--config", help="Their SAM 2 configuration. Default: the one that belongs to them.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("outputs/demo_fusion"), show_default=True)
def main(data_root: Path, version: str, row: int, weights: str | None, config: str | None, out: Path) -> None:
    """Write pictures of one sample, and its boxes and masks."""
    sam2 = choose_mask_weights(weights, config)
    index = open_index(data_root, version)
    if row >= len(index):
        raise UsageError(f"--row {row}: the index has {len(index)} samples", fix=f"use 0 to {len(index) - 1}")
    view, boxes, token = view_of(index, row), from_annotations(index.frame(row).annotations), index.token(row)

    masks = segment(mask_maker(sam2), view, boxes)

    draw_objects_of(view, boxes, masks, out, "001", "annotated")
    results = write_results(out / "results_nusc.json", {token: boxes})
    write_masks(out / MASKS_FILE, {token: masks}, sam2, results.name)
    click.echo(f"{sam2.line()}\n{len(boxes)} objects, {len(masks)} masks: {out}/001_cameras.jpg, {out}/{MASKS_FILE}")


if __name__ == "__main__":
    try:
        main()
    except BevnextError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
