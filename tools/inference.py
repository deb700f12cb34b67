"""Boxes and masks of six images in a folder, without any data set.

    python tools/inference.py --config bevnext/bevnext-stage1 --checkpoint bevnext-stage1 --input rig/ --output out/ \\
        --sam2-config sam2.1_hiera_t --sam2-weights sam2.1-hiera-tiny

The folder holds one JPEG per camera of the recipe, named after it (CAM_FRONT.jpg), and `calibration.json`:

    {"CAM_FRONT": {"intrinsics": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "ego_from_cam": [[4 numbers], 4 rows]}, ...}

Ego: x forward, y left, z up, metres. Written are `boxes.json` (ego frame), and with SAM 2 `masks.json` and `masks.jpg`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from configs.errors import BevnextError, DataError
from configs.nuscenes import CLASSES
from configs.schema import DataConfig
from detectors.interface import Detections
from evaluation.trained import load_weights
from integration import BEVSAMFusion
from integration.mask_pictures import draw_masks, sheet
from integration.rle import encode_masks
from scenes.augment import plain_image_transform
from scenes.loading import ImageLoader
from scenes.sample import Sample, collate


@click.command()
@click.option("--config", required=True, help="Recipe of the detector.")
@click.option("--checkpoint", required=True, help="Its weights: a file, or a name of `checkpoints list`.")
@click.option("--input", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the recipe.")
@click.option("--score-threshold", type=float, default=0.3, show_default=True)
@click.option("--sam2-config", default="sam2_hiera_nano", show_default=True)
@click.option("--sam2-weights", help="Weights of SAM 2; without them there are boxes alone.")
@click.option("--device", default="cpu", show_default=True)
def main(
    config: str,
    checkpoint: str,
    folder: Path,
    output: Path,
    overrides: tuple[str, ...],
    score_threshold: float,
    sam2_config: str,
    sam2_weights: str | None,
    device: str,
) -> None:
    """Boxes, and masks where SAM 2's weights are given, of six images in a folder."""
    trained = load_weights(config, checkpoint, overrides, device)
    data = trained.recipe.data
    calibration = read_calibration(folder, data.cameras)
    batch = collate([read_sample(folder, data, calibration)]).to(device)
    with torch.inference_mode():
        found = trained.detector.decode(trained.detector(batch))[0]
    output.mkdir(parents=True, exist_ok=True)
    kept = found.scores >= score_threshold
    found = Detections(found.boxes[kept].cpu(), found.scores[kept].cpu(), found.labels[kept].cpu())
    (output / "boxes.json").write_text(json.dumps(box_records(found), indent=1) + "\n", encoding="utf-8")
    click.echo(f"{len(found.scores)} boxes: {output}/boxes.json")
    if sam2_weights is not None:
        fusion = BEVSAMFusion(sam2_weights, sam2_config, device)
        click.echo(f"{write_masks(fusion, folder, data, calibration, found, output)} masks: {output}/masks.jpg")


def read_calibration(folder: Path, cameras: tuple[str, ...]) -> dict[str, dict[str, torch.Tensor]]:
    """Matrices by camera and name."""
    path = folder / "calibration.json"
    shape = "give intrinsics [3][3] and ego_from_cam [4][4] for each camera of the recipe"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        matrices = {
            camera: {name: torch.tensor(content[camera][name]) for name in ("intrinsics", "ego_from_cam")}
            for camera in cameras
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be used: {error!r}", fix=shape) from error
    for camera, own in matrices.items():
        if own["intrinsics"].shape != (3, 3) or own["ego_from_cam"].shape != (4, 4):
            raise DataError(f"{path}: {camera} has matrices of other sizes", fix=shape)
    return matrices


def read_sample(folder: Path, data: DataConfig, calibration: dict[str, dict[str, torch.Tensor]]) -> Sample:
    """The images as the detector of a recipe takes them."""
    transform, loader = plain_image_transform(data), ImageLoader()
    images = torch.empty(1, len(data.cameras), *data.image_size, 3, dtype=torch.uint8)
    for camera, out in zip(data.cameras, images[0], strict=True):
        transform.apply(loader.read(folder / f"{camera}.jpg", data.source_size), loader, out)
    height, width = (side // data.depth_stride for side in data.image_size)
    intrinsics = torch.eye(4).repeat(len(data.cameras), 1, 1)
    intrinsics[:, :3, :3] = torch.stack([calibration[camera]["intrinsics"] for camera in data.cameras])
    canvas_from_img = torch.from_numpy(transform.canvas_from_img()).float()
    return Sample(
        images=images.permute(0, 1, 4, 2, 3),
        img_from_cam=intrinsics[None],
        ego_from_cam=torch.stack([calibration[camera]["ego_from_cam"] for camera in data.cameras])[None].float(),
        canvas_from_img=canvas_from_img.expand(1, len(data.cameras), 4, 4),
        bev_from_ego=torch.eye(4),
        global_from_ego=torch.eye(4, dtype=torch.float64),
        depth=torch.zeros(len(data.cameras), height, width),
        boxes=torch.zeros(0, 9),
        labels=torch.zeros(0, dtype=torch.int64),
        row=0,
        token=folder.name,
    )


def box_records(found: Detections) -> list[dict[str, object]]:
    """As JSON holds them."""
    names = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy")
    return [
        {"class": CLASSES[label], "score": round(score, 4), **dict(zip(names, (round(v, 3) for v in box), strict=True))}
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ]


def write_masks(
    fusion: BEVSAMFusion,
    folder: Path,
    data: DataConfig,
    calibration: dict[str, dict[str, torch.Tensor]],
    found: Detections,
    output: Path,
) -> int:
    """Masks of the detections as picture and COCO run lengths; returns how many."""
    images = np.stack([np.array(Image.open(folder / f"{camera}.jpg").convert("RGB")) for camera in data.cameras])
    cameras = {
        "intrinsics": torch.stack([calibration[camera]["intrinsics"] for camera in data.cameras]),
        "extrinsics": torch.linalg.inv(
            torch.stack([calibration[camera]["ego_from_cam"] for camera in data.cameras]).double()
        ),
    }
    detections = {"boxes_3d": found.boxes, "scores": found.scores, "labels": found.labels}
    result = fusion(torch.from_numpy(images).permute(0, 3, 1, 2)[None], detections, cameras)
    pictures, records = [], []
    for number, camera in enumerate(data.cameras):
        own = result["pair_camera"] == number
        objects = result["pair_object"][own].tolist()
        pictures.append(draw_masks(images[number], result["masks"][own], objects))
        masks = encode_masks(result["masks"][own])
        kept = result["kept"].tolist()
        records += [{"camera": camera, "box": kept[o], "mask": m} for o, m in zip(objects, masks, strict=True)]
    Image.fromarray(sheet(pictures)).save(output / "masks.jpg", quality=92)
    (output / "masks.json").write_text(json.dumps(records) + "\n", encoding="utf-8")
    return len(records)


if __name__ == "__main__":
    try:
        main()
    except BevnextError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
