"""3D boxes in images: the polygon that a box fills in a camera, its 2D box, and what is needed to judge it.

The solid is clipped at the near plane before it is projected, and its outline is clipped by the image before its bounds
are taken. Projecting eight corners and clamping them, which is usual, gives wrong boxes for the nearest and largest
objects and reports boxes behind the camera.

Shape legend: N boxes, C cameras, P pairs of a box and a camera that sees it, V vertices. Boxes are `[x, y, z, l, w, h,
yaw]` with gravity centres, and `vx, vy` behind if known; pixels u right, v down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from configs.errors import UsageError
from integration.convex import Polygons, clip_to_rectangle, convex_hull

NEAR: Final = 0.1
"""Depth of the near plane, metres."""
SIGNS: Final = [(i, j, k) for i in (-1.0, 1.0) for j in (-1.0, 1.0) for k in (-1.0, 1.0)]
EDGES: Final = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b) in (1, 2, 4)]
"""Pairs of corners that differ in one sign."""


@dataclass(frozen=True, slots=True)
class CameraRig:
    """C cameras that look at one set of boxes."""

    img_from_cam: Tensor
    """`[C, 3, 3]`: intrinsics, pixels of the stored image."""
    cam_from_ego: Tensor
    """`[C, 4, 4]`: from the frame of the boxes to each camera at its own time, so with the ego motion in between."""
    image_size: tuple[int, int]
    """Height, width of the stored image."""
    delay: Tensor | None = None
    """`[C]`: seconds from the boxes' time to each camera's; moving boxes are moved by it."""
    canvas_from_img: Tensor | None = None
    """`[C, 4, 4]`: image augmentation, acts on (u, v, depth, 1)."""
    canvas_size: tuple[int, int] | None = None
    """Height, width of the augmented image."""

    def __post_init__(self) -> None:
        cameras = len(self.img_from_cam)
        for name, matrix, size in (
            ("img_from_cam", self.img_from_cam, 3),
            ("cam_from_ego", self.cam_from_ego, 4),
            ("canvas_from_img", self.canvas_from_img, 4),
        ):
            if matrix is not None and matrix.shape != (cameras, size, size):
                raise UsageError(
                    f"camera calibration: {name} is {list(matrix.shape)}, not {[cameras, size, size]}",
                    fix="give one matrix per camera",
                )
            if matrix is not None and not bool(matrix.isfinite().all()):
                raise UsageError(f"camera calibration: {name} holds values that are no numbers", fix="correct it")
        if self.delay is not None and not (self.delay.shape == (cameras,) and bool(self.delay.isfinite().all())):
            raise UsageError(
                f"camera calibration: delay is {self.delay.tolist()}, not {cameras} numbers",
                fix="give seconds, one value per camera",
            )

    def __len__(self) -> int:
        return len(self.img_from_cam)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image that pairs are in: the augmented one where there is one."""
        return self.canvas_size or self.image_size

    @property
    def cam_from_pixel(self) -> Tensor:
        """float64 `[C, 3, 3]`: pixels `(u, v, 1)` of that image to rays of depth 1."""
        pixel_from_cam = self.img_from_cam.double()
        if self.canvas_from_img is not None:
            plane = torch.eye(3, dtype=torch.float64, device=pixel_from_cam.device).repeat(len(self), 1, 1)
            plane[:, :2, :2], plane[:, :2, 2] = self.canvas_from_img[:, :2, :2], self.canvas_from_img[:, :2, 3]
            pixel_from_cam = plane @ pixel_from_cam
        cam_from_pixel: Tensor = torch.linalg.inv(pixel_from_cam)
        return cam_from_pixel


@dataclass(frozen=True, slots=True)
class Pairs:
    """What P pairs of a box and a camera look like; sorted by camera, then by box."""

    object: Tensor
    """int64 `[P]`"""
    camera: Tensor
    """int64 `[P]`"""
    box: Tensor
    """`[P, 4]`: left, top, right, bottom of the visible outline, pixels of the canvas (the stored image if there is no
    augmentation)."""
    polygons: Polygons
    """The outline within the image."""
    area: Tensor
    """`[P]`: of the outline, square pixels."""
    truncation: Tensor
    """`[P]`: share of the whole outline that lies outside the image."""
    distance: Tensor
    """`[P]`: metres from the camera to the nearest point of the box."""
    depth: Tensor
    """`[P]`: of the centre, metres."""
    front_corners: Tensor
    """int64 `[P]`: corners in front of the near plane; 8 unless the box straddles it."""
    corners: Tensor
    """`[P, 8, 3]` in the camera's frame at its time."""

    def __len__(self) -> int:
        return len(self.object)

    def select(self, chosen: Tensor) -> Pairs:
        """The pairs that a mask or positions name."""
        polygons = Polygons(self.polygons.vertices[chosen], self.polygons.count[chosen])
        names = ("object", "camera", "box", "area", "truncation", "distance", "depth", "front_corners", "corners")
        return replace(self, polygons=polygons, **{name: getattr(self, name)[chosen] for name in names})


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which pairs are worth a mask."""

    min_area: float = 64.0
    """Square pixels."""
    min_side: float = 6.0
    """Pixels."""
    max_truncation: float = 0.9


ALL_VISIBLE: Final = Visibility(min_area=1.0, min_side=0.0, max_truncation=1.1)
"""Whatever shows at all: too little for a mask may still hide others."""


def box_corners(boxes: Tensor) -> Tensor:
    """Corners `[N, 8, 3]` of boxes `[N, 7+]`, in the order of `SIGNS` (forward, left, up)."""
    signs = boxes.new_tensor(SIGNS)
    half = boxes[:, None, 3:6] / 2 * signs
    cos, sin = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    x = cos * half[..., 0] - sin * half[..., 1]
    y = sin * half[..., 0] + cos * half[..., 1]
    return boxes[:, None, :3] + torch.stack([x, y, half[..., 2]], -1)


def project_boxes(boxes: Tensor, rig: CameraRig, visibility: Visibility | None = None) -> Pairs:
    """The pairs of `boxes` `[N, 7]` or `[N, 9]` with the cameras that see them.

    Raises:
        UsageError: boxes of another shape, or with values that are no numbers.
    """
    check_boxes(boxes)
    velocity = boxes[:, 7:9] if boxes.shape[1] >= 9 else None
    return project_solids(box_corners(boxes), rig, velocity, visibility)


def project_solids(
    corners: Tensor, rig: CameraRig, velocity: Tensor | None = None, visibility: Visibility | None = None
) -> Pairs:
    """As `project_boxes`, for boxes given by their corners `[N, 8, 3]` (order of `SIGNS`), which may be tilted.

    Args:
        velocity: `[N, 2]`, metres per second in the frame of the boxes; moves them by the rig's delay.
    """
    in_cameras = _in_cameras(corners, rig, velocity).flatten(0, 1)
    count = len(corners)
    camera = torch.arange(len(rig), device=corners.device).repeat_interleave(count)
    outline, front = near_outline(in_cameras, rig.img_from_cam.to(in_cameras)[camera])
    visible = clip_to_rectangle(outline, rig.image_size)
    shown = visible.area() / outline.area().clamp(min=1e-9)
    if rig.canvas_from_img is not None:
        canvas = rig.canvas_from_img.to(in_cameras)[camera]
        moved = visible.moved(canvas[:, :2, :2], canvas[:, :2, 3])
        visible = clip_to_rectangle(moved, rig.size)
        shown = shown * visible.area() / moved.area().clamp(min=1e-9)
    pairs = Pairs(
        object=torch.arange(count, device=corners.device).repeat(len(rig)),
        camera=camera,
        box=visible.bounds(),
        polygons=visible,
        area=visible.area(),
        truncation=1 - shown,
        distance=distance_to_boxes(in_cameras),
        depth=in_cameras[..., 2].mean(-1),
        front_corners=front,
        corners=in_cameras,
    )
    return pairs.select(worth(pairs, visibility or Visibility()))


def near_outline(corners: Tensor, img_from_cam: Tensor) -> tuple[Polygons, Tensor]:
    """Outlines of the solids' parts in front of the near plane, and how many corners are.

    The projection of a convex solid in front of the camera is the hull of its projected corners; those of the clipped
    solid are the corners in front and the points where edges pass the plane.

    Args:
        corners: `[P, 8, 3]` in the camera's frame.
        img_from_cam: `[P, 3, 3]`
    """
    first, second = (corners[:, [edge[end] for edge in EDGES]] for end in (0, 1))
    over, over_second = first[..., 2] - NEAR, second[..., 2] - NEAR
    crosses = (over > 0) != (over_second > 0)
    share = torch.where(crosses, over / torch.where(crosses, over - over_second, 1.0), 0.0)
    crossings = first + share[..., None] * (second - first)
    in_front = corners[..., 2] > NEAR
    solid = torch.cat([corners, crossings], 1)
    valid = torch.cat([in_front, crosses], 1)
    image = solid @ img_from_cam.transpose(-1, -2)
    depth = torch.where(valid, image[..., 2], 1.0)
    return convex_hull(image[..., :2] / depth[..., None], valid), in_front.sum(-1)


def distance_to_boxes(corners: Tensor) -> Tensor:
    """`[P]`: metres from the origin to the nearest point of boxes `[P, 8, 3]`; 0 inside."""
    centre, axes = centre_and_axes(corners)
    half = axes.norm(dim=-1)
    inwards = (axes / half[..., None].clamp(min=1e-9)) @ -centre[..., None]
    beyond = (inwards[..., 0].abs() - half).clamp(min=0)
    distance: Tensor = beyond.norm(dim=-1)
    return distance


def centre_and_axes(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Centres `[P, 3]` and half axes `[P, 3, 3]` (rows forward, left, up) of boxes `[P, 8, 3]`."""
    signs = corners.new_tensor(SIGNS)
    return corners.mean(1), signs.transpose(0, 1) @ corners / len(SIGNS)


def check_boxes(boxes: Tensor) -> None:
    """Raises `UsageError` unless boxes are `[N, 7]` or `[N, 9]` finite numbers with sizes that are not negative."""
    if boxes.ndim != 2 or boxes.shape[1] not in (7, 9):
        raise UsageError(
            f"boxes are {list(boxes.shape)}, not [N, 7] or [N, 9]", fix="give x, y, z, l, w, h, yaw (and vx, vy)"
        )
    bad = ~boxes.isfinite().all(1) | (boxes[:, 3:6] < 0).any(1)
    if bool(bad.any()):
        raise UsageError(
            f"box {int(bad.nonzero()[0])} holds a value that is no number, or a negative size",
            fix="leave such boxes out",
        )


def _in_cameras(corners: Tensor, rig: CameraRig, velocity: Tensor | None) -> Tensor:
    """`[C, N, 8, 3]`, in float64: near the camera plane the division magnifies rounding."""
    corners = corners.double().expand(len(rig), *corners.shape)
    if velocity is not None and rig.delay is not None:
        moved = rig.delay.to(corners)[:, None, None] * velocity.to(corners)
        corners = corners + torch.nn.functional.pad(moved, (0, 1))[:, :, None]
    cam_from_ego = rig.cam_from_ego.to(corners)
    return corners @ cam_from_ego[:, None, :3, :3].transpose(-1, -2) + cam_from_ego[:, None, None, :3, 3]


def worth(pairs: Pairs, visibility: Visibility) -> Tensor:
    """bool `[P]`: the pairs that are visible enough."""
    sides = pairs.box[:, 2:] - pairs.box[:, :2]
    kept: Tensor = (pairs.area >= visibility.min_area) & (sides.amin(-1) >= visibility.min_side)
    kept &= (pairs.truncation < visibility.max_truncation) & (pairs.distance > 0)
    return kept
