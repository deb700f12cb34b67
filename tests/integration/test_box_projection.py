"""Boxes in images: clipped as solids, so that near and cut objects get the 2D box that they have."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from configs.errors import UsageError
from integration.convex import Polygons, clip_to_rectangle, convex_hull
from integration.projection import (
    NEAR,
    CameraRig,
    Visibility,
    box_corners,
    near_outline,
    project_boxes,
    worth,
)
from integration.rays import occlusion, pixel_rays, ray_depths

SIZE = (900, 1600)
FOCAL = 1266.0
INTRINSICS = torch.tensor([[FOCAL, 0.0, 800.0], [0.0, FOCAL, 450.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
# Ego: x forward, y left, z up. Camera: x right, y down, z forward.
CAM_FROM_EGO = torch.tensor(
    [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)
ALL = Visibility(min_area=1e-6, min_side=0.0, max_truncation=1.1)


def one_camera(**changes: object) -> CameraRig:
    return CameraRig(INTRINSICS[None], CAM_FROM_EGO[None], SIZE, **changes)  # type: ignore[arg-type]


def box(x: float, y: float = 0.0, z: float = 0.0, size: tuple[float, float, float] = (4, 2, 1.5), yaw: float = 0.0):
    return torch.tensor([[x, y, z, *size, yaw]], dtype=torch.float64)


def random_boxes(count: int, seed: int = 0) -> Tensor:
    """All around a camera, from its own place to 60 m."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(count, 7, generator=generator, dtype=torch.float64)
    distance, bearing = 60 * draw[:, 0] ** 1.5, (draw[:, 1] * 2 - 1) * math.pi
    place = torch.stack([distance * bearing.cos(), distance * bearing.sin(), draw[:, 2] * 4 - 2], 1)
    sizes = torch.stack([0.5 + 11 * draw[:, 3] ** 2, 0.5 + 2.5 * draw[:, 4], 0.8 + 3 * draw[:, 5]], 1)
    return torch.cat([place, sizes, (draw[:, 6:] * 2 - 1) * math.pi], 1)


# --- convex polygons -----------------------------------------------------------------------------------------------


def test_hulls_equal_those_of_opencv() -> None:
    import cv2
    import numpy as np

    generator = torch.Generator().manual_seed(0)
    points = torch.rand(200, 20, 2, generator=generator, dtype=torch.float64)
    valid = torch.rand(200, 20, generator=generator) < 0.7
    valid[:, :3] = True
    found = convex_hull(points, valid)
    for number in range(200):
        expected = cv2.convexHull(points[number][valid[number]].numpy().astype(np.float32))
        assert int(found.count[number]) == len(expected)
        assert math.isclose(float(found.area()[number]), cv2.contourArea(expected), rel_tol=1e-5)


def test_clipping_keeps_what_is_inside() -> None:
    square = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]])
    cut = clip_to_rectangle(Polygons(square, torch.tensor([4])), (5, 5))
    assert cut.area().tolist() == [1.0]
    assert cut.bounds().tolist() == [[0.0, 0.0, 1.0, 1.0]]
    gone = clip_to_rectangle(Polygons(square - 10, torch.tensor([4])), (5, 5))
    assert gone.count.tolist() == [0]
    assert gone.area().tolist() == [0.0]


# --- single boxes --------------------------------------------------------------------------------------------------


def test_a_box_straight_ahead() -> None:
    pairs = project_boxes(box(12.0), one_camera())
    half_width, half_height = FOCAL * 1.0 / 10, FOCAL * 0.75 / 10
    expected = [800 - half_width, 450 - half_height, 800 + half_width, 450 + half_height]
    torch.testing.assert_close(pairs.box[0], torch.tensor(expected, dtype=torch.float64))
    assert pairs.truncation.abs().item() < 1e-9
    assert pairs.distance.tolist() == [10.0]
    assert pairs.depth.tolist() == [12.0]
    assert pairs.front_corners.tolist() == [8]


def test_a_box_behind_the_camera_is_not_seen() -> None:
    assert len(project_boxes(box(-12.0), one_camera())) == 0


def test_a_box_around_the_camera_is_left_out() -> None:
    assert len(project_boxes(box(0.0), one_camera(), ALL)) == 0


def test_a_box_that_straddles_the_near_plane_has_finite_bounds_in_the_image() -> None:
    pairs = project_boxes(box(1.0, 1.8), one_camera(), ALL)
    assert 0 < int(pairs.front_corners) < 8
    assert pairs.box.isfinite().all()
    assert (pairs.box >= 0).all()
    assert (pairs.box <= torch.tensor([1600, 900, 1600, 900])).all()


def test_a_half_turn_changes_nothing() -> None:
    first, second = (project_boxes(box(15.0, 3.0, yaw=yaw), one_camera()) for yaw in (0.4, 0.4 - math.pi))
    torch.testing.assert_close(first.box, second.box)


def test_a_box_in_two_cameras_makes_two_pairs() -> None:
    turned = CAM_FROM_EGO.clone()
    cos, sin = math.cos(math.pi / 4), math.sin(math.pi / 4)
    turned[:3, :3] @= torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    rig = CameraRig(INTRINSICS.expand(2, 3, 3), torch.stack([CAM_FROM_EGO, turned]), SIZE)
    pairs = project_boxes(box(10.0, 4.5), rig)
    assert pairs.camera.tolist() == [0, 1]
    assert pairs.object.tolist() == [0, 0]


def test_ego_motion_and_velocity_move_the_box() -> None:
    moving = torch.cat([box(12.0), torch.tensor([[0.0, 10.0]], dtype=torch.float64)], 1)
    still = project_boxes(box(12.0), one_camera())
    later = project_boxes(moving, one_camera(delay=torch.tensor([0.05])))
    torch.testing.assert_close(later.box, project_boxes(box(12.0, 0.5), one_camera()).box)
    forward = CAM_FROM_EGO.clone()
    forward[2, 3] = -0.5  # the camera has moved half a metre ahead
    nearer = project_boxes(box(12.0), CameraRig(INTRINSICS[None], forward[None], SIZE))
    assert nearer.area > still.area


def test_augmentation_moves_the_outline_with_the_image() -> None:
    """Half size, mirrored, cropped: the outline goes where its pixels go."""
    canvas_from_img = torch.eye(4, dtype=torch.float64)
    canvas_from_img[0, 0], canvas_from_img[1, 1] = -0.5, 0.5
    canvas_from_img[0, 3], canvas_from_img[1, 3] = 800.0, -100.0
    rig = one_camera(canvas_from_img=canvas_from_img[None], canvas_size=(350, 800))
    plain, moved = project_boxes(box(12.0, 2.0), one_camera()), project_boxes(box(12.0, 2.0), rig)
    left, top, right, bottom = plain.box[0].tolist()
    expected = torch.tensor([800 - right / 2, top / 2 - 100, 800 - left / 2, bottom / 2 - 100], dtype=torch.float64)
    torch.testing.assert_close(moved.box[0], expected)
    torch.testing.assert_close(moved.area, plain.area / 4)


def test_many_boxes_are_as_one_by_one() -> None:
    boxes = random_boxes(60)
    together = project_boxes(boxes, one_camera(), ALL)
    for number, place in enumerate(together.object.tolist()):
        alone = project_boxes(boxes[place : place + 1], one_camera(), ALL)
        torch.testing.assert_close(alone.box[0], together.box[number])


def test_gradients_are_finite() -> None:
    boxes = random_boxes(80).requires_grad_()
    project_boxes(boxes, one_camera(), ALL).box.sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()
    assert (boxes.grad != 0).any()


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (torch.zeros(2, 5), r"not \[N, 7\]"),
        (torch.full((1, 7), torch.nan), "box 0 holds a value that is no number"),
        (-torch.ones(1, 7), "negative size"),
    ],
)
def test_boxes_that_are_none_are_refused(boxes: Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        project_boxes(boxes, one_camera())


def test_calibration_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="cam_from_ego"):
        CameraRig(INTRINSICS[None], CAM_FROM_EGO, SIZE)
    with pytest.raises(UsageError, match="no numbers"):
        CameraRig(INTRINSICS[None] * torch.nan, CAM_FROM_EGO[None], SIZE)


def test_occlusion_is_the_share_behind_nearer_boxes() -> None:
    """A wall hides the left half of a box behind it, and nothing of itself."""
    boxes = torch.cat([box(20.0, size=(2, 2, 2)), box(10.0, 5.0, size=(0.2, 10, 10)), box(20.0, -9.0)])
    pairs = project_boxes(boxes, one_camera(), ALL)
    found = occlusion(pairs, torch.linalg.inv(INTRINSICS)[None])
    assert 0.4 < float(found[0]) < 0.6
    assert found[1:].tolist() == [0.0, 0.0]


def test_what_is_too_much_cut_off_for_a_mask_still_hides_others() -> None:
    boxes = torch.cat([box(20.0, -11.0, size=(2, 2, 2)), box(10.0, -9.5, size=(0.2, 8, 8))])
    seen = project_boxes(boxes, one_camera(), ALL)
    pairs = seen.select(worth(seen, Visibility(max_truncation=0.5)))
    assert pairs.object.tolist() == [0]
    cam_from_img = torch.linalg.inv(INTRINSICS)[None]
    assert occlusion(pairs, cam_from_img).tolist() == [0.0]
    assert occlusion(pairs, cam_from_img, seen).item() > 0.5


# --- the error table -----------------------------------------------------------------------------------------------


def all_corners_clamped(corners: Tensor) -> Tensor:
    image = corners @ INTRINSICS.T
    return clamped(image[..., :2] / image[..., 2:])


def front_corners_hull(corners: Tensor) -> Tensor:
    image, valid = corners @ INTRINSICS.T, corners[..., 2] > 0
    depth = torch.where(valid, image[..., 2], 1.0)
    return clip_to_rectangle(convex_hull(image[..., :2] / depth[..., None], valid), SIZE).bounds()


def edges_clamped(corners: Tensor) -> Tensor:
    outline = near_outline(corners, INTRINSICS.expand(len(corners), 3, 3))[0]
    return torch.where(outline.count[:, None] > 0, clamped(outline.vertices), 0.0)


def solid_clipped(corners: Tensor) -> Tensor:
    return clip_to_rectangle(near_outline(corners, INTRINSICS.expand(len(corners), 3, 3))[0], SIZE).bounds()


def clamped(pixels: Tensor) -> Tensor:
    ends = torch.cat([pixels.amin(1), pixels.amax(1)], -1)
    return ends.minimum(torch.tensor([1600.0, 900.0, 1600.0, 900.0])).clamp(min=0)


METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "project all 8 corners, clamp": all_corners_clamped,
    "corners in front, hull within image": front_corners_hull,
    "edges clipped, min/max clamped": edges_clamped,
    "edges clipped, hull within image": solid_clipped,
}


def sampled_bounds(corners: Tensor, steps: int = 48) -> Tensor:
    """Bounds of what is seen of densely sampled surfaces; zeros where nothing is."""
    line = torch.linspace(0, 1, steps, dtype=torch.float64)
    a, b = (axis.flatten()[:, None] for axis in torch.meshgrid(line, line, indexing="ij"))
    faces = [(0, 1, 2), (4, 5, 6), (0, 1, 4), (2, 3, 6), (0, 2, 4), (1, 3, 5)]
    found = []
    for one in corners:
        points = torch.cat([one[o] + a * (one[p] - one[o]) + b * (one[q] - one[o]) for o, p, q in faces])
        image = points[points[:, 2] > NEAR] @ INTRINSICS.T
        pixels = image[:, :2] / image[:, 2:]
        inside = pixels[((pixels >= 0) & (pixels <= torch.tensor([1600.0, 900.0]))).all(1)]
        empty = torch.zeros(4, dtype=torch.float64)
        found.append(torch.cat([inside.amin(0), inside.amax(0)]) if len(inside) else empty)
    return torch.stack(found)


def traced_bounds(corners: Tensor) -> Tensor:
    """Bounds of the pixels of a fine raster whose rays meet the box: right where surfaces pass close to the camera."""
    v, u = torch.meshgrid(
        torch.linspace(0, 900, 181, dtype=torch.float64),
        torch.linspace(0, 1600, 321, dtype=torch.float64),
        indexing="ij",
    )
    pixels = torch.stack([u, v], -1).flatten(0, 1)
    rays = pixel_rays(pixels, torch.linalg.inv(INTRINSICS))
    found = []
    for one in corners:
        met = pixels[ray_depths(one[None], rays)[0][0].isfinite()]
        empty = torch.zeros(4, dtype=torch.float64)
        found.append(torch.cat([met.amin(0), met.amax(0)]) if len(met) else empty)
    return torch.stack(found)


def iou(a: Tensor, b: Tensor) -> Tensor:
    sides = (a[:, 2:].minimum(b[:, 2:]) - a[:, :2].maximum(b[:, :2])).clamp(min=0)
    areas = [(one[:, 2:] - one[:, :2]).clamp(min=0).prod(1) for one in (a, b)]
    return sides.prod(1) / (areas[0] + areas[1] - sides.prod(1)).clamp(min=1e-9)


def error_table(count: int) -> dict[str, dict[str, float]]:
    """Per method: mean IoU over visible, straddling and cut boxes, and the share of unseen boxes that it reports."""
    corners = box_corners(random_boxes(count)) @ CAM_FROM_EGO[:3, :3].T
    around = torch.stack([(c[:, 2].min() <= 0) & (c[:, 2].max() > NEAR) for c in corners])
    near = (corners[..., 2] <= NEAR).any(1) & (corners[..., 2] > NEAR).any(1)
    truth = sampled_bounds(corners)
    truth[near] = traced_bounds(corners[near])
    sides = truth[:, 2:] - truth[:, :2]
    visible = (sides.amin(1) >= 6) & (truth[:, 2:] > truth[:, :2]).all(1)
    edges = torch.tensor([0.0, 0.0, 1600.0, 900.0])
    cut = visible & ~near & ((truth - edges).abs() < 12).any(1)
    unseen = (truth == 0).all(1)
    assert int(around.sum()) > 0
    table = {}
    for name, method in METHODS.items():
        found = method(corners)
        scores = iou(found, truth)
        reported = ((found[:, 2:] - found[:, :2]) > 6).all(1) & unseen
        table[name] = {
            "visible": float(scores[visible].mean()),
            "straddling": float(scores[visible & near].mean()),
            "cut": float(scores[cut].mean()),
            "invented": float(reported.sum() / unseen.sum()),
            "boxes": int(visible.sum()),
            "boxes straddling": int((visible & near).sum()),
        }
    return table


def test_error_table() -> None:
    """Only the solid clipped before, and the outline after projection is right everywhere."""
    table = error_table(1500)
    for name, row in table.items():
        print(f"{name:38s}", {key: round(value, 3) for key, value in row.items()})
    ours = table["edges clipped, hull within image"]
    assert ours["visible"] > 0.98
    assert ours["straddling"] > 0.96
    assert ours["cut"] > 0.97
    assert ours["invented"] == 0
    naive = table["project all 8 corners, clamp"]
    assert naive["straddling"] < 0.6
    assert naive["invented"] > 0.1
    assert table["corners in front, hull within image"]["straddling"] < 0.85
    assert table["edges clipped, min/max clamped"]["cut"] < ours["cut"] - 0.02
