"""BEV maps of earlier frames, carried on along a scene instead of made anew: no gradient, and one warp each.

A frame's map stays in the raster it was made in. For a later key frame it is sampled where the key frame's cells lie in
that raster, bilinearly and once, however old it is. Where its raster does not reach, there are zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from detectors.bevnext.grid import Axis, BevGrid
from detectors.geometry import inverse
from detectors.interface import CameraBatch, Memory
from detectors.layers.constants import constants
from detectors.layers.precision import at_least_float32


@dataclass(frozen=True, slots=True)
class CarriedMap:
    """The BEV map of a frame, as it was when this was the key frame."""

    bev: Tensor
    """`[C, Y, X]`, without gradient."""
    bev_from_global: Tensor
    """float64 `[4, 4]`: where its raster lies in the world, augmentation included."""


def maps_of(bev: Tensor, batch: CameraBatch) -> list[CarriedMap]:
    """The maps `[B, C, Y, X]` of a batch's key frames, each in memory of its own."""
    places = batch.bev_from_ego.double() @ inverse(batch.global_from_ego)
    # One memory order, whatever the network's: a run that is taken up adds in the same order.
    own = (one.clone(memory_format=torch.contiguous_format) for one in bev.detach())
    return [CarriedMap(*pair) for pair in zip(own, places, strict=True)]


def into_rasters_of_key_frames(frames: Sequence[Sequence[CarriedMap]], grid: BevGrid) -> Tensor:
    """`[B, (T-1)*C, Y, X]` of the maps of B samples, T frames each, the key frame first; its own map is not warped."""
    samples = []
    for key, *earlier in frames:
        global_from_key = inverse(key.bev_from_global)
        warped = [one.bev if one is key else _warped(one, global_from_key, grid) for one in earlier]
        samples.append(torch.cat(warped))
    return torch.stack(samples)


def _warped(earlier: CarriedMap, global_from_key: Tensor, grid: BevGrid) -> Tensor:
    """`[C, Y, X]` in the key frame's raster; cells move along the ground, height is left aside."""
    along_x, along_y, _, move = (earlier.bev_from_global @ global_from_key)[:2].unbind(1)
    x, y = _centres(grid.x, move), _centres(grid.y, move)
    metres = y[:, None, None] * along_y + (x[:, None] * along_x + move)
    # To -1 at the raster's lower bound and 1 at its upper one.
    across = (grid.x.step * grid.x.cells, grid.y.step * grid.y.cells)
    places = (metres - constants((grid.x.lower, grid.y.lower), metres)) / constants(across, metres) * 2 - 1
    bev = at_least_float32(earlier.bev)[None]
    warped = grid_sample(bev, places[None].to(bev.dtype), align_corners=False)
    return warped[0].to(earlier.bev.dtype)


def _centres(axis: Axis, like: Tensor) -> Tensor:
    return axis.lower + axis.step * (torch.arange(axis.cells, dtype=like.dtype, device=like.device) + 0.5)


class SlotMemory(Memory):
    """The maps that training along scenes carries on, by slot of the optimiser step and by age on its walk."""

    def __init__(self, frames: int) -> None:
        self.earlier = frames - 1
        self._slots: dict[int, dict[int, CarriedMap]] = {}

    def frames_of(self, walk: Sequence[tuple[int, int]], own: Sequence[CarriedMap]) -> list[list[CarriedMap]]:
        """Per sample its own map and those of the frames before it, the latest first; its own is remembered.

        The key frame stands in for what its walk does not remember, as it does where a scene begins.
        """
        frames = []
        for (slot, age), key in zip(walk, own, strict=True):
            past = {then: one for then, one in self._slots.get(slot, {}).items() if age - self.earlier <= then < age}
            frames.append([key, *(past.get(age - back, key) for back in range(1, self.earlier + 1))])
            self._slots[slot] = past | {age: key}
        return frames

    def state(self) -> dict[str, Tensor]:
        found = {}
        for slot, maps in self._slots.items():
            found[f"{slot}.ages"] = torch.tensor(list(maps))
            found[f"{slot}.bev"] = torch.stack([one.bev for one in maps.values()])
            found[f"{slot}.bev_from_global"] = torch.stack([one.bev_from_global for one in maps.values()])
        return found

    def take_up(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self._slots = {}
        for slot in sorted({int(name.partition(".")[0]) for name in state}):
            ages, bev, places = (state[f"{slot}.{part}"] for part in ("ages", "bev", "bev_from_global"))
            maps = [CarriedMap(*pair) for pair in zip(bev.to(device), places.to(device), strict=True)]
            self._slots[slot] = dict(zip(ages.tolist(), maps, strict=True))

    def forget(self) -> None:
        self._slots = {}
