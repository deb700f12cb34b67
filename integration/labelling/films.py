"""Masks that hold together over time: SAM 2's memory follows each object through the key frames of a camera.

Per camera, the key frames are a film. An object enters it with its mask in the frame that shows it best (least
truncated and hidden), is followed from there in both directions, and enters anew every fourth key frame from there
where its mask agrees with its 3D box. Everywhere else the film's mask takes the place of the image's own, unless the
two differ much and the image's agrees better with the box.

Shape legend: T key frames, P pairs of a box and a camera, h w raster at a quarter of the network image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from configs.errors import UsageError
from configs.nuscenes import CAMERAS
from detectors.weight_files import read_weights
from detectors.zoo import misfit
from integration.composition import share_pixels
from integration.labelling.frame_masks import FrameMasks, in_cells, kept_near
from integration.labelling.quality import agreement
from integration.sam2_package import construct_sam2
from integration.sam2_weights import is_image_part
from integration.scene_boxes import rig_of

EVERY: Final = 4
"""Key frames from one entry of an object to the next."""
ENTRY_AGREEMENT: Final = 0.7
"""Of a mask with its box, for another entry."""
SAME: Final = 0.5
"""IoU of two masks below which they are different things."""

_FILM_PART: Final = {
    "_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor",
    "binarize_mask_from_pts_for_mem_enc": True,  # as the published builder sets it
    "fill_hole_area": 0,  # needs the package's compiled part
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """An object in one frame of a camera."""

    frame: int
    """Position in the film."""
    pair: int
    """Position in that frame's masks."""


Sightings = Mapping[str, Sequence[Sighting]]
"""Of each object, in the order of time."""


class FilmFollower:
    """Follows objects with the memory of a published SAM 2.

    Raises:
        UsageError: the configuration has no memory, or the weights hold none.
    """

    def __init__(self, config: str, weights: str | Path, device: torch.device) -> None:
        network: Any = construct_sam2(config, _FILM_PART)
        fix = "give published weights and their configuration: --weights sam2.1-hiera-tiny --config sam2.1_hiera_t"
        if network.memory_attention is None or network.num_maskmem == 0:
            raise UsageError(f"--tracks: the SAM 2 configuration {config} has no memory to follow objects with", fix)
        file = read_weights(weights)
        if is_image_part(file.state):
            raise UsageError(f"--tracks: {file.path} holds SAM 2's image part alone, without its memory", fix)
        if fault := misfit(network.state_dict(), file.state):
            raise UsageError(f"{file.path} does not fit the SAM 2 configuration {config}: {fault}", fix)
        network.load_state_dict(file.state)
        self.device = device
        self.network = network.to(device).eval()

    def follow(self, frames: Sequence[FrameMasks]) -> list[FrameMasks]:
        """The masks of consecutive key frames, with those that came through the film where they are better."""
        followed = [replace(frame, logits=frame.logits.clone(), iou=frame.iou.clone()) for frame in frames]
        followed = [replace(frame, from_film=frame.from_film.clone()) for frame in followed]
        for camera in range(len(CAMERAS)):
            self._follow_in(camera, frames, followed)
        return followed

    def _follow_in(self, camera: int, frames: Sequence[FrameMasks], followed: Sequence[FrameMasks]) -> None:
        sightings = sightings_in(frames, camera)
        claims = [_shared(frame, camera) for frame in frames]
        entries = {name: own for name, seen in sightings.items() if (own := entries_of(seen, frames, claims))}
        if not entries:
            return
        paths = [frame.frame.image_paths[camera] for frame in frames]
        found = self.film(paths, claims, entries)
        for name, own in entries.items():
            entered = {entry.frame for entry in own}
            for sighting in sightings[name]:
                if sighting.frame in entered:
                    continue
                frame = frames[sighting.frame]
                logits = _near_box(frame, sighting.pair, found[name, sighting.frame])
                if _is_better(frame, sighting.pair, logits):
                    target = followed[sighting.frame]
                    target.logits[sighting.pair] = logits
                    target.iou[sighting.pair] = frames[own[0].frame].iou[own[0].pair]  # the predictor tells none
                    target.from_film[sighting.pair] = True

    @torch.inference_mode()
    def film(
        self, paths: Sequence[Path], claims: Sequence[Mapping[int, Tensor]], entries: Sightings
    ) -> dict[tuple[str, int], Tensor]:
        """Logits `[h, w]` by object and frame: forward from an object's first entry in time, backward before it.

        Args:
            paths: T images.
            claims: T times, the mask `[h, w]` of each pair.
            entries: where each object enters; not empty.
        """
        first = {name: min(entry.frame for entry in own) for name, own in entries.items()}
        found: dict[tuple[str, int], Tensor] = {}
        # Memory is kept in bfloat16 whatever the weights are, and fails beside float32 without this; published code
        # runs so. Standard error would show the package's progress bars.
        low_precision = torch.autocast(self.device.type, torch.bfloat16)
        with numbered_folder(paths) as folder, redirect_stderr(StringIO()), low_precision:
            state = self.network.init_state(str(folder), offload_video_to_cpu=True, offload_state_to_cpu=True)
            # Masks come out at this size, and all that is needed is the raster.
            rows, columns = next(iter(claims[first[next(iter(entries))]].values())).shape
            state["video_height"], state["video_width"] = rows, columns
            ordered = sorted((entry.frame, name, entry.pair) for name, own in entries.items() for entry in own)
            for number, name, pair in ordered:  # by frame: the predictor remembers the features of one
                self.network.add_new_mask(state, number, name, claims[number][pair])
            for reverse, start in ((False, min(first.values())), (True, max(first.values()))):
                for number, names, logits in self.network.propagate_in_video(state, start, reverse=reverse):
                    for name, one in zip(names, logits[:, 0].float().cpu(), strict=True):
                        if (number < first[name]) == reverse:
                            found[name, number] = one.clone()
        return found


def sightings_in(frames: Sequence[FrameMasks], camera: int) -> dict[str, list[Sighting]]:
    """Where each object is seen by a camera."""
    found: dict[str, list[Sighting]] = {}
    for number, frame in enumerate(frames):
        instances = frame.instances()
        for pair in (frame.pairs.camera == camera).nonzero()[:, 0].tolist():
            found.setdefault(instances[pair], []).append(Sighting(number, pair))
    return found


def entries_of(
    sightings: Sequence[Sighting], frames: Sequence[FrameMasks], claims: Sequence[Mapping[int, Tensor]]
) -> list[Sighting]:
    """Where an object enters the film: the frame that shows it best first; none if no frame has a mask of it."""
    usable = [one for one in sightings if bool(claims[one.frame][one.pair].any())]
    if not usable:
        return []
    best = min(usable, key=lambda one: _hidden(frames[one.frame], one.pair))
    again = [
        one
        for one in usable
        if one.frame != best.frame
        and (one.frame - best.frame) % EVERY == 0
        and _agreement(frames[one.frame], one.pair, claims[one.frame][one.pair]) >= ENTRY_AGREEMENT
    ]
    return [best, *again]


@contextmanager
def numbered_folder(paths: Sequence[Path]) -> Iterator[Path]:
    """A folder of links `00000.jpg`, `00001.jpg`, ... to images: the only kind that the package's loader takes."""
    with tempfile.TemporaryDirectory(prefix="bevnext-sam2-film-") as name:
        folder = Path(name)
        for number, path in enumerate(paths):
            (folder / f"{number:05d}.jpg").symlink_to(path.resolve())
        yield folder


def _shared(frame: FrameMasks, camera: int) -> dict[int, Tensor]:
    """The masks `[h, w]` of a camera's pairs, without overlaps."""
    own = (frame.pairs.camera == camera).nonzero()[:, 0]
    masks = share_pixels(frame.logits[own], frame.pairs.distance[own].argsort()).logits > 0
    return dict(zip(own.tolist(), masks, strict=True))


def _hidden(frame: FrameMasks, pair: int) -> float:
    return float(frame.pairs.truncation[pair] + frame.occlusion[pair])


def _near_box(frame: FrameMasks, pair: int, logits: Tensor) -> Tensor:
    one = torch.tensor([pair])
    return kept_near(logits[None], frame.pairs.select(one), frame.near[one], rig_of(frame.frame))[0]


def _is_better(frame: FrameMasks, pair: int, logits: Tensor) -> bool:
    """The film's mask is kept, unless it differs much from the image's own and that agrees better with the box."""
    film, image = logits > 0, frame.logits[pair] > 0
    iou = float((film & image).sum()) / max(float((film | image).sum()), 1.0)
    return iou >= SAME or _agreement(frame, pair, film) >= _agreement(frame, pair, image)


def _agreement(frame: FrameMasks, pair: int, mask: Tensor) -> float:
    cells = in_cells(frame.open_box[pair, None], (mask.shape[0], mask.shape[1]), frame.frame.image_size)
    return float(agreement(mask[None], cells)[0])
