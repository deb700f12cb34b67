"""Masks for every object of one sample: 3D boxes, six cameras, SAM 2, a picture.

    python examples/demo_fusion.py --weights outputs/sam2-nano/sam2.safetensors
    python examples/demo_fusion.py --data-root /data/nuscenes --version v1.0-mini --config sam2.1_hiera_t \\
        --weights sam2.1-hiera-tiny

The boxes are the annotated ones; `integration.BEVSAMFusion` takes a detector's in the same way.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from configs.errors import BevnextError
from configs.nuscenes import CAMERAS, CLASSES
from integration import BEVSAMFusion
from integration.mask_pictures import draw_masks, sheet
from integration.rle import encode_masks
from scenes import open_index
from scenes.boxes import training_boxes


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("data/synthetic"), show_default=True)
@click.option("--version", default="v1.0-synthetic", show_default=True)
@click.option("--row", default=0, show_default=True, help="Which sample of the index.")
@click.option("--config", default="sam2_hiera_nano", show_default=True, help="SAM 2 configuration.")
@click.option("--weights", required=True, help="Its weights: a file, or a name of `checkpoints list`.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("outputs/demo_fusion"), show_default=True)
def main(data_root: Path, version: str, row: int, config: str, weights: str, out: Path) -> None:
    """Write masks.jpg (six cameras) and masks.json (COCO run lengths) of one sample."""
    fusion = BEVSAMFusion(weights, config)
    frame = open_index(data_root, version).frame(row)
    images = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in frame.image_paths])
    boxes, labels = training_boxes(frame.annotations, frame.global_from_ego)
    ego_from_cam = np.linalg.inv(frame.global_from_ego) @ frame.global_from_ego_cam @ frame.ego_from_cam
    detections = {
        "boxes_3d": torch.from_numpy(boxes),
        "scores": torch.ones(len(boxes)),
        "labels": torch.from_numpy(labels),
    }
    cameras = {
        "intrinsics": torch.from_numpy(frame.intrinsics.copy()),
        "extrinsics": torch.from_numpy(np.linalg.inv(ego_from_cam)),
        "delay": torch.from_numpy((frame.camera_timestamps_us - frame.timestamp_us) * 1e-6),
    }
    found = fusion(images.permute(0, 3, 1, 2)[None], detections, cameras)

    pictures = []
    for camera, image in enumerate(images.numpy()):
        own = found["pair_camera"] == camera
        pictures.append(draw_masks(image, found["masks"][own], found["pair_object"][own].tolist()))
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(pictures)).save(out / "masks.jpg", quality=92)
    (out / "masks.json").write_text(json.dumps(_record(found)) + "\n", encoding="utf-8")
    click.echo(f"{len(found['kept'])} objects, {len(found['pair_object'])} masks: {out}/masks.jpg, {out}/masks.json")


def _record(found: dict[str, torch.Tensor]) -> list[dict[str, object]]:
    return [
        {
            "object": place,
            "class": CLASSES[int(found["labels"][place])],
            "camera": CAMERAS[camera],
            "box": [round(value, 1) for value in box],
            "quality": round(quality, 4),
            "mask": mask,
        }
        for place, camera, box, quality, mask in zip(
            found["pair_object"].tolist(),
            found["pair_camera"].tolist(),
            found["boxes_2d"].tolist(),
            found["mask_scores"].tolist(),
            encode_masks(found["masks"]),
            strict=True,
        )
    ]


if __name__ == "__main__":
    try:
        main()
    except BevnextError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
