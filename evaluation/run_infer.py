"""The work of `bevnext-sam2 infer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console

from configs import run_directory
from configs.errors import UsageError
from configs.mask_weights import MaskWeights
from evaluation.evaluate import RESULTS_FILE
from evaluation.figures.sample_view import view_of
from evaluation.global_boxes import GlobalBoxes
from evaluation.object_masks import MASKS_FILE, ObjectMask, mask_maker, segment, write_masks
from evaluation.options import DataChoice, ModelChoice
from evaluation.pictures import draw_film, draw_sample
from evaluation.processes import is_main_process, joined_processes
from evaluation.results import best_boxes, write_results
from evaluation.session import open_data, predict_rows, progress_bar
from evaluation.trained import load_chosen
from integration.bev_sam_fusion import BEVSAMFusion
from integration.precision import lower_kind
from scenes.index import SceneIndex

_MASK_SCORE: Final = 0.1
"""Boxes with lower scores get no masks, unless they are drawn."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn, and how."""

    min_score: float
    with_truth: bool
    video: bool
    frames_per_second: int


def run_infer(
    model: ModelChoice,
    data: DataChoice,
    *,
    scene: str | None,
    sample: str | None,
    drawing: Drawing,
    out: Path | None,
    mask_weights: MaskWeights | None = None,
) -> None:
    """Predict a scene or a sample, write the results file, and masks where their weights are given, draw."""
    if (scene is None) == (sample is None):
        raise UsageError("name what to work on", fix="give either --scene NAME or --sample TOKEN")
    masks: dict[str, list[ObjectMask]] | None = None
    with joined_processes(model.device) as device:
        console = Console(quiet=not is_main_process(), highlight=False, soft_wrap=True)
        lower_kind(model.precision, device)
        least = min(_MASK_SCORE, drawing.min_score)
        fusion = None if mask_weights is None else mask_maker(mask_weights, device, least, model.precision)
        trained = load_chosen(model, device)
        index, config = open_data(data, trained.recipe, console)
        rows = _rows(index, scene, sample)
        predictions = predict_rows(trained, index, rows, config, model, device, console)
        if predictions is None:
            return
        predictions = {token: best_boxes(boxes) for token, boxes in predictions.items()}
        if fusion is not None:
            masks = _segment(fusion, index, rows, predictions, console)
    name = scene or str(sample)
    default = Path("outputs/infer") if model.run is None else model.run / run_directory.FIGURES
    folder = out or default / name
    console.print(f"results:  {write_results(folder / RESULTS_FILE, predictions)}")
    if masks is not None and mask_weights is not None:
        console.print(mask_weights.line())
        console.print(f"masks:    {write_masks(folder / MASKS_FILE, masks, mask_weights, RESULTS_FILE)}")
    _draw(index, rows, predictions, masks, drawing, folder, name, console)


def _rows(index: SceneIndex, scene: str | None, sample: str | None) -> npt.NDArray[np.int64]:
    return index.scene_named(scene).rows if scene is not None else np.array([index.row_of(str(sample))])


def _segment(
    fusion: BEVSAMFusion,
    index: SceneIndex,
    rows: npt.NDArray[np.int64],
    predictions: Mapping[str, GlobalBoxes],
    console: Console,
) -> dict[str, list[ObjectMask]]:
    masks = {}
    with progress_bar(console, "segmenting") as on_progress:
        for number, row in enumerate(rows.tolist(), start=1):
            token = index.token(row)
            masks[token] = segment(fusion, view_of(index, row), predictions[token])
            on_progress(number, len(rows))
    return masks


def _draw(
    index: SceneIndex,
    rows: npt.NDArray[np.int64],
    predictions: Mapping[str, GlobalBoxes],
    masks: Mapping[str, Sequence[ObjectMask]] | None,
    drawing: Drawing,
    folder: Path,
    name: str,
    console: Console,
) -> None:
    with progress_bar(console, "drawing") as on_progress:
        for number, row in enumerate(rows.tolist(), start=1):
            token = index.token(row)
            draw_sample(
                index,
                row,
                predictions[token],
                folder,
                f"{number:03d}",
                min_score=drawing.min_score,
                with_truth=drawing.with_truth,
                masks=None if masks is None else masks[token],
            )
            on_progress(number, len(rows))
    console.print(f"pictures: {folder}/*_cameras.jpg, *_bev.png")
    if drawing.video and len(rows) > 1:
        with progress_bar(console, "filming") as on_progress:
            film = draw_film(
                index,
                rows.tolist(),
                predictions,
                folder / f"{name}.mp4",
                min_score=drawing.min_score,
                with_truth=drawing.with_truth,
                frames_per_second=drawing.frames_per_second,
                masks=masks,
                on_progress=on_progress,
            )
        console.print(f"film:     {film}")
