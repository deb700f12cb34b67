"""The work of `bevnext-sam2 infer`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from configs import run_directory
from configs.errors import UsageError
from evaluation.evaluate import RESULTS_FILE
from evaluation.global_boxes import GlobalBoxes
from evaluation.options import DataChoice, ModelChoice
from evaluation.pictures import draw_film, draw_sample
from evaluation.predict import predict
from evaluation.processes import is_main_process, joined_processes
from evaluation.results import write_results
from evaluation.session import open_data, progress_bar
from evaluation.trained import load_chosen
from scenes.index import SceneIndex


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
) -> None:
    """Predict a scene or a sample, write the results file, draw."""
    if (scene is None) == (sample is None):
        raise UsageError("name what to work on", fix="give either --scene NAME or --sample TOKEN")
    with joined_processes(model.device) as device:
        console = Console(quiet=not is_main_process(), highlight=False, soft_wrap=True)
        trained = load_chosen(model, device)
        index, config = open_data(data, trained.recipe, console)
        rows = _rows(index, scene, sample)
        with progress_bar(console, "predicting") as on_progress:
            predictions = predict(
                trained.detector,
                index,
                rows,
                config,
                device=device,
                batch_size=model.batch_size,
                workers=model.workers,
                on_progress=on_progress,
            )
    if predictions is None:
        return
    name = scene or str(sample)
    default = Path("outputs/infer") if model.run is None else model.run / run_directory.FIGURES
    folder = out or default / name
    console.print(f"results:  {write_results(folder / RESULTS_FILE, predictions)}")
    _draw(index, rows, predictions, drawing, folder, name, console)


def _rows(index: SceneIndex, scene: str | None, sample: str | None) -> npt.NDArray[np.int64]:
    return index.scene_named(scene).rows if scene is not None else np.array([index.row_of(str(sample))])


def _draw(
    index: SceneIndex,
    rows: npt.NDArray[np.int64],
    predictions: Mapping[str, GlobalBoxes],
    drawing: Drawing,
    folder: Path,
    name: str,
    console: Console,
) -> None:
    with progress_bar(console, "drawing") as on_progress:
        for number, row in enumerate(rows.tolist(), start=1):
            draw_sample(
                index,
                row,
                predictions[index.token(row)],
                folder,
                f"{number:03d}",
                min_score=drawing.min_score,
                with_truth=drawing.with_truth,
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
                on_progress=on_progress,
            )
        console.print(f"film:     {film}")
