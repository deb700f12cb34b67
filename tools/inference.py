"""Boxes and masks of six images in a folder, without any data set.

    python tools/inference.py --config bevnext/bevnext-stage1 --checkpoint bevnext-stage1 --input rig/ --output out/ \\
        --sam2-weights sam2.1-hiera-tiny

`evaluation/camera_folder.py` says what the folder holds. Written are `boxes.json` (ego frame), and with SAM 2
`masks.json` and pictures. `bevnext-sam2 demo --images` does the same with the detector of a run, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from configs.errors import BevnextError
from configs.mask_weights import choose_mask_weights
from configs.replaced_file import replace_text
from evaluation.box_file import box_records
from evaluation.camera_folder import detect, read_camera_folder
from evaluation.object_masks import MASKS_FILE, mask_maker, segment, write_masks
from evaluation.pictures import draw_objects_of
from evaluation.processes import choose_device
from evaluation.trained import load_weights


@click.command()
@click.option("--config", required=True, help="Recipe of the detector.")
@click.option("--checkpoint", required=True, help="Its weights: a file, or a name of `checkpoints list`.")
@click.option("--input", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--calibration", type=click.Path(path_type=Path), help="Default: calibration.json in the folder.")
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the recipe.")
@click.option("--score-threshold", type=click.FloatRange(0, 1), default=0.3, show_default=True)
@click.option("--sam2-config", help="SAM 2 configuration. Default: the one that the weights belong to.")
@click.option("--sam2-weights", help="Weights of SAM 2; without them there are boxes alone.")
@click.option("--device", default="auto", show_default=True, help="auto (a GPU if there is one), cpu, cuda, ...")
def main(
    config: str,
    checkpoint: str,
    folder: Path,
    calibration: Path | None,
    output: Path,
    overrides: tuple[str, ...],
    score_threshold: float,
    sam2_config: str | None,
    sam2_weights: str | None,
    device: str,
) -> None:
    """Boxes, and masks where SAM 2's weights are given, of six images in a folder."""
    place = choose_device(device)
    weights = None if sam2_weights is None else choose_mask_weights(sam2_weights, sam2_config)
    fusion = None if weights is None else mask_maker(weights, place)
    view = read_camera_folder(folder, calibration)
    found = detect(load_weights(config, checkpoint, overrides, place), view, place)
    boxes = found.keep(found.scores >= score_threshold)
    path = replace_text(output / "boxes.json", json.dumps(box_records(boxes), indent=1) + "\n")
    click.echo(f"{len(boxes)} boxes: {path}")
    if weights is None or fusion is None:
        return
    masks = segment(fusion, view, boxes)
    draw_objects_of(view, boxes, masks, output, "001", "predicted")
    write_masks(output / MASKS_FILE, {view.title: masks}, weights, path.name)
    click.echo(f"{len(masks)} masks: {output}/{MASKS_FILE}, {output}/001_cameras.jpg")


if __name__ == "__main__":
    try:
        main()
    except BevnextError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
