"""Which box a pixel's ray meets first: outlines as pixel masks, occlusion, and amodal depth, all from one test.

A ray meets a box between the last entry into and the first exit from its three slabs (Kay and Kajiya 1986). Depth is
along the optical axis, in metres. Pixel centres are at integers.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from integration.projection import NEAR, Pairs, centre_and_axes

SAMPLES: Final = 16
"""Rays along each side of an object's 2D box that occlusion is measured with."""
BOUNDS_SAMPLES: Final = 48
"""The same, for the bounds of what is not covered."""
_PARALLEL: Final = 1e-9


def ray_depths(corners: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Depths at which rays enter and leave boxes; both infinite where a ray misses.

    Args:
        corners: `[P, 8, 3]` in the camera's frame.
        rays: `[P, R, 3]` or `[R, 3]`: directions with depth 1.
    """
    centre, axes = centre_and_axes(corners)
    square = (axes * axes).sum(-1).clamp(min=_PARALLEL)
    normals = axes / square[..., None]  # the box is |normal . (point - centre)| <= 1
    offset = (normals @ centre[..., None])[..., 0][:, None]
    slope = rays @ normals.transpose(-1, -2)
    slope = torch.where(slope.abs() < _PARALLEL, _PARALLEL, slope)
    ends = torch.stack([(offset - 1) / slope, (offset + 1) / slope])
    enter, leave = ends.amin(0).amax(-1).clamp(min=NEAR), ends.amax(0).amin(-1)
    meets = enter < leave
    return torch.where(meets, enter, torch.inf), torch.where(meets, leave, torch.inf)


def pixel_rays(pixels: Tensor, cam_from_img: Tensor) -> Tensor:
    """Directions `[..., 3]` of pixels `[..., 2]`; `cam_from_img` is the inverse of the intrinsics `[3, 3]`."""
    ones = torch.ones_like(pixels[..., :1])
    return torch.cat([pixels, ones], -1) @ cam_from_img.transpose(-1, -2)


def grid_pixels(size: tuple[int, int], image_size: tuple[int, int], device: torch.device) -> Tensor:
    """Pixels `[h, w, 2]` of an image at the cell centres of a raster of `size` (height, width) laid over it."""
    axes = [
        (torch.arange(cells, device=device, dtype=torch.float64) + 0.5) * (length / cells) - 0.5
        for cells, length in zip(size, image_size, strict=True)
    ]
    v, u = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([u, v], -1)


def occlusion(pairs: Pairs, cam_from_img: Tensor, others: Pairs | None = None) -> Tensor:
    """`[P]`: share of each outline that nearer boxes cover, as far as boxes tell.

    Args:
        cam_from_img: `[C, 3, 3]`; the pairs' boxes are in pixels of that image.
        others: all pairs that may hide something, where they are more than `pairs`.
    """
    return _covered(pairs, cam_from_img, others or pairs)[0]


def occluded_points(
    pairs: Pairs, cam_from_img: Tensor, count: int, others: Pairs | None = None
) -> tuple[Tensor, Tensor]:
    """Up to `count` points in each pair's 2D box that belong to nearer boxes: `[P, count, 2]`, and which are valid."""
    _, points, covered = _covered(pairs, cam_from_img, others or pairs)
    numbers = covered.cumsum(1)
    total = numbers[:, -1:]
    # evenly spread over the covered samples, in reading order
    steps = torch.arange(1, count + 1, device=points.device)
    wanted = (total * (2 * steps - 1) // (2 * count) + 1).clamp(max=SAMPLES**2)
    place = torch.searchsorted(numbers.contiguous(), wanted.contiguous()).clamp(max=SAMPLES**2 - 1)
    return points.gather(1, place[..., None].expand(-1, -1, 2)), (total >= count).expand(-1, count)


def open_bounds(pairs: Pairs, cam_from_img: Tensor, others: Pairs | None = None) -> Tensor:
    """float64 `[P, 4]`: bounds of the part of each outline that no nearer box covers; zeros where nothing is left."""
    bounds = torch.zeros(len(pairs), 4, dtype=torch.float64, device=pairs.box.device)
    steps = torch.arange(BOUNDS_SAMPLES + 1, device=pairs.box.device, dtype=torch.float64) / BOUNDS_SAMPLES
    middles = (steps[:-1] + steps[1:]) / 2
    for number, box in enumerate(pairs.box.double()):
        across, down = (box[axis] + middles * (box[axis + 2] - box[axis]) for axis in (0, 1))
        v, u = torch.meshgrid(down, across, indexing="ij")
        rays = pixel_rays(torch.stack([u, v], -1).flatten(0, 1), cam_from_img[pairs.camera[number]].double())
        own, nearest = _own_and_nearest(pairs, number, rays, others or pairs)
        is_open = (own.isfinite() & (own <= nearest)).view_as(u)
        if not bool(is_open.any()):
            continue
        for axis, present in enumerate((is_open.any(0), is_open.any(1))):
            cells = present.nonzero()[:, 0]
            ends = torch.stack([steps[cells[0]], steps[cells[-1] + 1]])
            bounds[number, [axis, axis + 2]] = box[axis] + ends * (box[axis + 2] - box[axis])
    return bounds


def _covered(pairs: Pairs, cam_from_img: Tensor, others: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Share covered `[P]`; sample points `[P, R, 2]`; those that a nearer box covers, `[P, R]`."""
    steps = (torch.arange(SAMPLES, device=pairs.box.device, dtype=torch.float64) + 0.5) / SAMPLES
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    places = torch.stack([u, v], -1).flatten(0, 1)
    box = pairs.box.double()
    points = box[:, None, :2] + places * (box[:, 2:] - box[:, :2])[:, None]
    share = torch.zeros(len(pairs), dtype=torch.float64, device=box.device)
    covered = torch.zeros(points.shape[:2], dtype=torch.bool, device=box.device)
    for number in range(len(pairs)):  # one after the other: memory stays bounded with thousands of boxes
        rays = pixel_rays(points[number], cam_from_img[pairs.camera[number]].double())
        own, nearest = _own_and_nearest(pairs, number, rays, others)
        hit = own.isfinite()
        covered[number] = nearest < own  # also beside the outline, where own is infinite
        share[number] = (covered[number] & hit).sum() / hit.sum().clamp(min=1)
    return share, points, covered


def outline_coverage(
    pairs: Pairs,
    cam_from_img: Tensor,
    image_size: tuple[int, int],
    raster: tuple[int, int],
    rays_per_side: int = 2,
    others: Pairs | None = None,
) -> tuple[Tensor, Tensor]:
    """What boxes fill of the cells of a raster laid over the image.

    Args:
        raster: height and width of the raster in cells.
        rays_per_side: of a cell; 1 with a raster of the image's size asks for each pixel's centre.
        others: as in `occlusion`.

    Returns:
        float32 `[P, h, w]` twice, 0 to 1: each box's outline, and the part of it that no nearer box covers.
    """
    fine = (rays_per_side * raster[0], rays_per_side * raster[1])
    pixels = grid_pixels(fine, image_size, pairs.box.device)
    whole = torch.zeros(len(pairs), *fine, device=pairs.box.device)
    open_part = torch.zeros_like(whole)
    cells = pairs.box.new_tensor([fine[1] / image_size[1], fine[0] / image_size[0]])
    for number in range(len(pairs)):
        (left, top), (right, bottom) = (
            ((pairs.box[number, ends] + 0.5) * cells).long().tolist() for ends in (slice(0, 2), slice(2, 4))
        )
        window = (slice(max(top - 1, 0), bottom + 2), slice(max(left - 1, 0), right + 2))
        rays = pixel_rays(pixels[window], cam_from_img[pairs.camera[number]].double())
        own, nearest = _own_and_nearest(pairs, number, rays.flatten(0, 1), others or pairs)
        hit = own.isfinite()
        whole[number][window] = hit.view(rays.shape[:2]).float()
        open_part[number][window] = (hit & (own <= nearest)).view(rays.shape[:2]).float()
    return _per_cell(whole, rays_per_side), _per_cell(open_part, rays_per_side)


def _per_cell(fine: Tensor, side: int) -> Tensor:
    count, rows, columns = fine.shape
    return fine.view(count, rows // side, side, columns // side, side).mean((2, 4))


def _own_and_nearest(pairs: Pairs, number: int, rays: Tensor, others: Pairs) -> tuple[Tensor, Tensor]:
    """Depths `[R]` at which rays meet a pair's box, and the nearest of the other boxes in its camera."""
    in_way = (others.camera == pairs.camera[number]) & (others.object != pairs.object[number])
    in_way &= _overlap(others.box, pairs.box[number])
    own = ray_depths(pairs.corners[number : number + 1], rays)[0][0]
    if not bool(in_way.any()):
        return own, torch.full_like(own, torch.inf)
    return own, ray_depths(others.corners[in_way], rays)[0].amin(0)


def _overlap(boxes: Tensor, box: Tensor) -> Tensor:
    return (boxes[:, :2] < box[2:]).all(1) & (boxes[:, 2:] > box[:2]).all(1)
