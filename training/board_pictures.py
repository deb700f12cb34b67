"""Pictures for TensorBoard: predictions over cameras and from above, and what the network itself sees."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from configs.schema import DataConfig
from detectors.interface import Detector
from evaluation.figures.bev import draw_bev, to_bytes
from evaluation.figures.cameras import draw_cameras
from evaluation.figures.sample_view import view_of
from evaluation.global_boxes import from_annotations
from evaluation.pictures import MIN_SCORE, spread_rows
from evaluation.results import read_results
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex
from scenes.sample import collate

SAMPLES: Final = 2
CAMERA_WIDTH: Final = 480
BEV_DPI: Final = 100

Picture = npt.NDArray[np.uint8]
"""RGB `[H, W, 3]`."""


def pictures_of_results(index: SceneIndex, split: str, results: Path) -> dict[str, Picture]:
    """Predictions and ground truth of a few samples of a split, evenly spread over it.

    Args:
        results: a nuScenes results file of the split.
    """
    predictions = read_results(results)
    found = {}
    for number, row in enumerate(spread_rows(index, split, SAMPLES)):
        boxes = predictions[index.token(row)]
        shown, truth = boxes.keep(boxes.scores >= MIN_SCORE), from_annotations(index.frame(row).annotations)
        view = view_of(index, row)
        found[f"cameras/{number}"] = draw_cameras(view, shown, truth, image_width=CAMERA_WIDTH)
        found[f"bev/{number}"] = _pixels(to_bytes(draw_bev(view, shown, truth), "png", dpi=BEV_DPI))
    return found


@torch.no_grad()
def pictures_of_network(
    detector: Detector, index: SceneIndex, split: str, data: DataConfig, device: torch.device
) -> dict[str, Picture]:
    """Depth and heat maps of one sample, of families that make such; the detector stays in the mode it is in."""
    row = spread_rows(index, split, 1)
    batch = collate([SceneDataset(index, np.asarray(row), data, training=False)[0]]).to(device)
    mode = detector.training
    detector.eval()
    try:
        outputs: Any = detector(batch)
    finally:
        detector.train(mode)
    found = {}
    if isinstance(depth := getattr(outputs, "depth", None), Tensor):
        found["network/depth"] = depth_picture(depth)
    if heatmaps := getattr(outputs, "heatmaps", None):
        found["network/heat"] = heat_picture(heatmaps)
    return found


def depth_picture(probability: Tensor) -> Picture:
    """Most likely depth bin of every cell, cameras side by side; `probability` `[N, D, h, w]`. Near is bright."""
    bins = probability.shape[1]
    nearest_first = 1 - probability.float().argmax(1).cpu().numpy() / max(1, bins - 1)
    return _coloured(np.concatenate(list(nearest_first), axis=1), "magma", enlarge=4)


def heat_picture(heatmaps: list[Tensor]) -> Picture:
    """Highest score of any class at every BEV cell; per task logits `[1, classes, Y, X]`. Forward is up."""
    highest = torch.cat([task[0].float() for task in heatmaps]).amax(0).sigmoid().cpu().numpy()
    return _coloured(highest.T[::-1, ::-1], "inferno", enlarge=3)


def _coloured(values: npt.NDArray[Any], name: str, enlarge: int) -> Picture:
    """Values in 0..1 in a colour scale, each cell as a square of pixels."""
    coloured = colormaps[name](values)[..., :3]
    cells: Picture = (coloured * 255).astype(np.uint8)
    return cells.repeat(enlarge, 0).repeat(enlarge, 1)


def _pixels(png: bytes) -> Picture:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
