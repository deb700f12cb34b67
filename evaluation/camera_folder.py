"""Images of one moment in a folder with their calibration, instead of a data set.

The folder holds one image per camera, named after it (`CAM_FRONT.jpg`, `.jpeg` or `.png`), all of one size, whatever
that is; `calibration.json` in it, or a file elsewhere, holds

    {"CAM_FRONT": {"intrinsics": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "ego_from_cam": [[4 numbers], 4 rows]}, ...}

in pixels of these images and metres. Ego: x forward, y left, z up. Camera: x right, y down, z forward.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from configs.errors import DataError, UsageError
from configs.nuscenes import CAMERAS
from configs.schema import DataConfig
from evaluation.figures.sample_view import SampleView
from evaluation.global_boxes import FloatArray, GlobalBoxes, from_detections
from evaluation.trained import Trained
from integration.precision import autocast_to
from scenes.augment import plain_image_transform
from scenes.loading import ImageLoader
from scenes.sample import Sample, collate

CALIBRATION: Final = "calibration.json"
SUFFIXES: Final = (".jpg", ".jpeg", ".png")
_SHAPE: Final = "give intrinsics [3][3] in pixels and ego_from_cam [4][4] in metres for each camera (see docs/sam2.md)"
_FAR: Final = 50.0
"""Metres: no camera of a vehicle is farther from its rear axle."""


def read_camera_folder(folder: Path, calibration: Path | None = None) -> SampleView:
    """The images and matrices of a folder as a sample, whose global frame is its ego frame; without LiDAR points.

    Raises:
        UsageError: no such folder.
        DataError: an image or the calibration is missing, cannot be read, or does not fit the rest.
    """
    if not folder.is_dir():
        raise UsageError(f"--images {folder}: no such folder", fix="name a folder with CAM_FRONT.jpg and others")
    path = calibration or folder / CALIBRATION
    matrices = _read_calibration(path)
    images = {camera: _read_image(folder, camera) for camera in matrices}
    sizes = {camera: image.shape[:2] for camera, image in images.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{camera} {width}x{height}" for camera, (height, width) in sizes.items())
        raise DataError(f"images in {folder} have several sizes: {shown}", fix="bring them to one size")
    for camera, one in matrices.items():
        if fault := _fault(one["intrinsics"], one["ego_from_cam"], sizes[camera]):
            raise DataError(f"{path}: {camera}: {fault}", fix=_SHAPE)
    return SampleView(
        title=folder.resolve().name,
        cameras=tuple(matrices),
        images=tuple(images.values()),
        intrinsics=np.stack([one["intrinsics"] for one in matrices.values()]),
        cam_from_global=np.linalg.inv(np.stack([one["ego_from_cam"] for one in matrices.values()])),
        ego_from_global=np.eye(4),
        points=np.zeros((0, 3)),
        delays=np.zeros(len(matrices)),
    )


def detect(trained: Trained, view: SampleView, device: torch.device, lower: torch.dtype | None = None) -> GlobalBoxes:
    """What a detector finds in such a sample; `lower` is as in `predict`.

    Raises `UsageError` where the sample lacks a camera of its recipe.
    """
    batch = collate([_sample(view, trained.recipe.data)]).to(device)
    with torch.inference_mode():
        with autocast_to(lower, device):
            outputs = trained.detector(batch)
        found = trained.detector.decode(outputs)[0]
    return from_detections(found, np.linalg.inv(view.ego_from_global))


# --- reading -------------------------------------------------------------------------------------------------------


def _read_calibration(path: Path) -> dict[str, dict[str, FloatArray]]:
    """Matrices by camera, in the order of `configs.nuscenes.CAMERAS`, and name."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if unknown := [camera for camera in content if camera not in CAMERAS]:
            raise DataError(f"{path}: no camera is called {unknown[0]}", fix=f"known are {', '.join(CAMERAS)}")
        matrices = {
            camera: {name: np.array(content[camera][name], np.float64) for name in ("intrinsics", "ego_from_cam")}
            for camera in CAMERAS
            if camera in content
        }
    except FileNotFoundError as error:
        raise DataError(
            f"there is no calibration: {path} is not there", fix=f"name it with --calibration FILE; {_SHAPE}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be used: {error!r}", fix=_SHAPE) from error
    if not matrices:
        raise DataError(f"{path} holds no camera", fix=_SHAPE)
    return matrices


def _read_image(folder: Path, camera: str) -> npt.NDArray[np.uint8]:
    paths = [folder / f"{camera}{suffix}" for suffix in SUFFIXES]
    path = next((one for one in paths if one.is_file()), None)
    if path is None:
        raise DataError(f"{folder} holds no image of {camera}", fix=f"name it {paths[0].name}")
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error}", fix="save it again as JPEG or PNG") from error


def _fault(intrinsics: FloatArray, ego_from_cam: FloatArray, size: tuple[int, ...]) -> str:
    """What cannot be right about a camera of a vehicle; empty when all can."""
    if intrinsics.shape != (3, 3) or ego_from_cam.shape != (4, 4):
        return f"intrinsics are {list(intrinsics.shape)} and ego_from_cam {list(ego_from_cam.shape)}"
    if not (np.isfinite(intrinsics).all() and np.isfinite(ego_from_cam).all()):
        return "a matrix holds values that are no numbers"
    height, width = size
    turn, place = ego_from_cam[:3, :3], ego_from_cam[:3, 3]
    rules: Mapping[str, bool] = {
        "intrinsics need the last row 0, 0, 1": np.allclose(intrinsics[2], [0, 0, 1]),
        "intrinsics need focal lengths above 0": intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0,
        f"the principal point {intrinsics[:2, 2].round(1).tolist()} is outside the image of {width}x{height}: the "
        "intrinsics are those of another image size": bool((intrinsics[:2, 2] > 0).all())
        and intrinsics[0, 2] < width
        and intrinsics[1, 2] < height,
        "ego_from_cam needs the last row 0, 0, 0, 1": np.allclose(ego_from_cam[3], [0, 0, 0, 1]),
        "ego_from_cam is no rotation with a translation": np.allclose(turn @ turn.T, np.eye(3), atol=1e-3)
        and np.linalg.det(turn) > 0,
        f"ego_from_cam puts the camera {np.linalg.norm(place):.0f} m from the vehicle: it is to be in metres": bool(
            np.linalg.norm(place) < _FAR
        ),
        "ego_from_cam does not take the camera's y axis down: it is inverted, or of other axes": turn[2, 1] < -0.5,
    }
    return next((fault for fault, holds in rules.items() if not holds), "")


def _sample(view: SampleView, data: DataConfig) -> Sample:
    """The images as the detector of a recipe takes them; for earlier frames the images stand in, as at a start."""
    if missing := [camera for camera in data.cameras if camera not in view.cameras]:
        raise UsageError(f"the detector needs {', '.join(missing)} as well", fix="add images and calibration")
    places = [view.cameras.index(camera) for camera in data.cameras]
    fitted = data.model_copy(update={"source_size": view.images[0].shape[:2]})
    transform, loader = plain_image_transform(fitted), ImageLoader()
    images = torch.empty(data.frames, len(places), *data.image_size, 3, dtype=torch.uint8)
    for place, out in zip(places, images[0], strict=True):
        transform.apply(torch.from_numpy(view.images[place].copy()), loader, out)
    images[1:] = images[0]
    height, width = (side // data.depth_stride for side in data.image_size)
    intrinsics = torch.eye(4).repeat(len(places), 1, 1)
    intrinsics[:, :3, :3] = torch.from_numpy(view.intrinsics[places])
    ego_from_cam = torch.from_numpy(np.linalg.inv(view.cam_from_global[places])).float()
    canvas_from_img = torch.from_numpy(transform.canvas_from_img()).float()
    return Sample(
        images=images.permute(0, 1, 4, 2, 3),
        img_from_cam=intrinsics.expand(data.frames, *intrinsics.shape),
        ego_from_cam=ego_from_cam.expand(data.frames, *ego_from_cam.shape),
        canvas_from_img=canvas_from_img.expand(data.frames, len(places), 4, 4),
        bev_from_ego=torch.eye(4),
        global_from_ego=torch.eye(4, dtype=torch.float64),
        depth=torch.zeros(len(places), height, width),
        boxes=torch.zeros(0, 9),
        labels=torch.zeros(0, dtype=torch.int64),
        row=0,
        token=view.title,
    )
