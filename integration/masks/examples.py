"""Images with boxes and exact instance masks, from the labels beside a synthetic set.

Shape legend: H W image as stored, h w raster of the mask prompt, P pairs of a box and a camera.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from configs.errors import DataError
from configs.nuscenes import CAMERAS
from integration.projection import ALL_VISIBLE, Pairs, Visibility, worth
from integration.rays import occlusion, outline_coverage
from integration.scene_boxes import annotated_pairs, rig_of
from integration.segmenter import LOGIT_STRIDE
from scenes.frame import Frame
from scenes.index import SceneIndex
from scenes.loading import ImageLoader
from scenes.remote_root import sensor_bytes
from scenes.synthetic.labels import INSTANCES, mask_path

HULL: Final = "hull filled"
OPEN_HULL: Final = "hull without nearer hulls"


def has_exact_masks(root: Path) -> bool:
    """There are instance masks beside the data; those of a set on S3 are fetched as they are read."""
    try:
        return bool(sensor_bytes(root / INSTANCES))
    except FileNotFoundError:
        return False


class ExactMasks:
    """The instance masks beside a synthetic set (docs/synthetic.md)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not has_exact_masks(root):
            raise DataError(
                f"{root} holds no instance masks ({INSTANCES} is missing)",
                fix="use a set of `bevnext-sam2 data synth`, which makes them",
            )

    def numbers(self, index: SceneIndex, frame: Frame) -> NDArray[np.int64]:
        """The object number of each annotation of a key frame."""
        scene = self._by_scene[index.scene_of(frame.row).name]
        return np.array([scene[token] for token in frame.annotations.instance_tokens.tolist()], np.int64)

    def read(self, image: Path) -> NDArray[np.uint16]:
        """`[H, W]`: the object number of each pixel of an image, 0 for none."""
        path = self.root / mask_path(image.relative_to(self.root).as_posix())
        try:
            mask = cv2.imdecode(np.frombuffer(sensor_bytes(path), np.uint8), cv2.IMREAD_UNCHANGED)
        except (OSError, cv2.error):  # the latter for an empty file
            mask = None
        if mask is None or mask.dtype != np.uint16:
            raise DataError(f"instance mask {path} is missing or damaged", fix="make the set again: data synth")
        return np.asarray(mask, np.uint16)

    @cached_property
    def _by_scene(self) -> dict[str, dict[str, int]]:
        content = json.loads(sensor_bytes(self.root / INSTANCES))
        return {
            scene: {item["instance_token"]: item["number"] for item in items if item["instance_token"]}
            for scene, items in content.items()
        }


@dataclass(frozen=True, slots=True)
class MaskExample:
    """One image with the P annotated objects that it shows."""

    image: Tensor
    """uint8 RGB `[3, H, W]`"""
    boxes: Tensor
    """float32 `[P, 4]`: left, top, right, bottom, pixels."""
    outline: Tensor | None
    """float32 `[P, h, w]`: share of each raster cell that the 3D box fills; `None` where there are no 3D boxes."""
    open_outline: Tensor | None
    """float32 `[P, h, w]`: the part that no nearer box covers."""
    masks: Tensor
    """bool `[P, H, W]`: the object's visible pixels."""
    occlusion: Tensor
    """float32 `[P]`: share of the outline that nearer boxes cover."""
    labels: Tensor
    """int64 `[P]`: class, -1 for those outside the detection task."""
    hulls: tuple[Tensor, ...] | None = None
    """bool `[P, H, W]` of each of the data's `baselines`, where they were asked for."""
    points: Tensor | None = None
    """float32 `[P, K, 2]`: points of the prompts, where there are any."""
    point_labels: Tensor | None = None
    """int64 `[P, K]`: what they mean (`integration.segmenter`)."""

    def mirrored(self) -> MaskExample:
        """Left and right exchanged."""
        last = self.image.shape[-1] - 1
        maps = {name: getattr(self, name) for name in ("image", "outline", "open_outline", "masks")}
        flipped = {name: value.flip(-1) for name, value in maps.items() if value is not None}
        boxes = torch.cat(
            [last - self.boxes[:, [2]], self.boxes[:, [1]], last - self.boxes[:, [0]], self.boxes[:, [3]]], 1
        )
        points = None if self.points is None else torch.stack([last - self.points[..., 0], self.points[..., 1]], -1)
        return replace(self, boxes=boxes, points=points, **flipped)


class MaskData(Protocol):
    """Images with masks to train and measure with."""

    @property
    def baselines(self) -> Sequence[str]:
        """What masks without SAM 2 an example's `hulls` are."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: int) -> MaskExample: ...

    def varied(self, example: MaskExample, generator: torch.Generator) -> MaskExample:
        """The example as it is trained on; what is random about it comes from the generator."""


class MaskExamples(Dataset[MaskExample]):
    """The images of some samples of a synthetic set that show an object.

    Args:
        rows: rows of the index.
        network_size: height and width of the network image; the raster is a quarter of it.
        largest: most objects of an image; of more, evenly spread ones by distance are taken.
        with_hulls: give `MaskExample.hulls` too: pixels of the 3D box, and those that no nearer box covers.
    """

    baselines = (HULL, OPEN_HULL)

    def __init__(
        self,
        index: SceneIndex,
        rows: Sequence[int],
        network_size: tuple[int, int],
        largest: int = 1 << 30,
        with_hulls: bool = False,
    ) -> None:
        self.index = index
        self.places = [(int(row), camera) for row in rows for camera in range(len(CAMERAS))]
        self.raster = (network_size[0] // LOGIT_STRIDE, network_size[1] // LOGIT_STRIDE)
        self.largest = largest
        self.with_hulls = with_hulls
        self.exact = ExactMasks(index.dataroot)
        self._loader = ImageLoader()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int) -> MaskExample:
        row, camera = self.places[item]
        frame = self.index.frame(row)
        rig = rig_of(frame)
        seen = annotated_pairs(frame, rig, ALL_VISIBLE)
        seen = seen.select(seen.camera == camera)
        pairs = seen.select(worth(seen, Visibility()))
        cam_from_img = torch.linalg.inv(rig.img_from_cam)
        hidden = occlusion(pairs, cam_from_img, seen).float()
        outline, open_outline = outline_coverage(pairs, cam_from_img, rig.image_size, self.raster, others=seen)
        chosen = self._spread(pairs)
        numbers = self.exact.numbers(self.index, frame)[pairs.object.numpy()]
        mask = self.exact.read(frame.image_paths[camera])
        return MaskExample(
            image=self._loader.read(frame.image_paths[camera], frame.image_size).permute(2, 0, 1).clone(),
            boxes=pairs.box.float()[chosen],
            outline=outline[chosen],
            open_outline=open_outline[chosen],
            masks=torch.from_numpy(mask[None] == numbers[chosen.numpy(), None, None]),
            occlusion=hidden[chosen],
            labels=torch.from_numpy(frame.annotations.labels)[pairs.object[chosen]],
            hulls=self._hulls(pairs, seen, cam_from_img, rig.image_size, chosen) if self.with_hulls else None,
        )

    def varied(self, example: MaskExample, generator: torch.Generator) -> MaskExample:
        """Half of the images are mirrored."""
        return example.mirrored() if bool(torch.rand((), generator=generator) < 0.5) else example

    def _hulls(
        self, pairs: Pairs, seen: Pairs, cam_from_img: Tensor, size: tuple[int, int], chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """At the full resolution of the image: as good as geometry can be."""
        whole, open_part = outline_coverage(pairs, cam_from_img, size, size, rays_per_side=1, others=seen)
        return whole[chosen] > 0.5, open_part[chosen] > 0.5

    def _spread(self, pairs: Pairs) -> Tensor:
        order = pairs.distance.argsort()
        steps = torch.linspace(0, max(len(pairs) - 1, 0), min(self.largest, len(pairs)))
        return order[steps.round().long()]
