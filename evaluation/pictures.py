"""Pictures of samples and scenes as files: camera sheets, views from above, films."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from configs.nuscenes import CLASSES
from configs.replaced_file import replace_bytes
from evaluation.figures.bev import draw_bev, to_bytes
from evaluation.figures.cameras import Canvas, draw_cameras
from evaluation.figures.charts import draw_class_ap, draw_precision_recall
from evaluation.figures.masks import best_views, cut_out, draw_objects
from evaluation.figures.sample_view import SampleView, view_of
from evaluation.figures.style import by_object
from evaluation.figures.video import draw_film_frame, write_video
from evaluation.global_boxes import GlobalBoxes, from_annotations
from evaluation.nuscenes_metrics import MetricsSummary
from evaluation.object_masks import ObjectMask, of_kept
from scenes.index import SceneIndex

MIN_SCORE: Final = 0.3
"""Detections below this score are not drawn (they still count in the metrics)."""

_JPEG_QUALITY: Final = 92


def draw_sample(
    index: SceneIndex,
    row: int,
    predictions: GlobalBoxes,
    folder: Path,
    name: str,
    *,
    min_score: float = MIN_SCORE,
    with_truth: bool = True,
    masks: Sequence[ObjectMask] | None = None,
) -> tuple[Path, Path]:
    """Write `<name>_cameras.jpg` and `<name>_bev.png` of one sample into `folder`; `masks` are of the predictions."""
    view, shown, truth = _scene_parts(index, row, predictions, min_score, with_truth)
    own = None if masks is None else of_kept(masks, predictions.scores >= min_score)
    cameras = replace_bytes(folder / f"{name}_cameras.jpg", _jpeg(draw_cameras(view, shown, truth, masks=own)))
    above = replace_bytes(folder / f"{name}_bev.png", to_bytes(draw_bev(view, shown, truth), "png"))
    return cameras, above


def draw_film(
    index: SceneIndex,
    rows: Sequence[int],
    predictions: Mapping[str, GlobalBoxes],
    path: Path,
    *,
    min_score: float = MIN_SCORE,
    with_truth: bool = True,
    frames_per_second: int = 2,
    masks: Mapping[str, Sequence[ObjectMask]] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a film of consecutive samples; 2 frames per second is the real time of nuScenes key frames."""

    def frames() -> Iterator[Canvas]:
        for done, row in enumerate(rows, start=1):
            token = index.token(row)
            found = predictions[token]
            own = None if masks is None else of_kept(masks[token], found.scores >= min_score)
            yield draw_film_frame(*_scene_parts(index, row, found, min_score, with_truth), masks=own)
            if on_progress is not None:
                on_progress(done, len(rows))

    return write_video(frames(), path, frames_per_second)


def draw_objects_of(
    view: SampleView, boxes: GlobalBoxes, masks: Sequence[ObjectMask], folder: Path, name: str, counted: str
) -> list[Path]:
    """Pictures of one sample in which each object has its own colour and number, into `folder`.

    `<name>_cameras.jpg`, `<name>_bev.png` and `.pdf`, `<name>_objects.jpg` with a crop of every object, and in
    `objects/` each cut out (RGBA) of the image that shows most of it.

    Args:
        counted: what the boxes are, "predicted" or "annotated".
    """
    style = by_object(boxes)
    above = draw_bev(view, boxes, style=style, counted=counted)
    pictures = {
        f"{name}_cameras.jpg": _jpeg(draw_cameras(view, boxes, masks=masks, style=style)),
        f"{name}_bev.png": to_bytes(above, "png"),
        f"{name}_bev.pdf": to_bytes(above, "pdf"),
        f"{name}_objects.jpg": _jpeg(draw_objects(view, masks, style)),
    }
    for box, mask in best_views(masks).items():
        file = f"objects/{name}_{box + 1:02d}_{CLASSES[boxes.labels[box]]}_{mask.camera}.png"
        pictures[file] = _png(cut_out(view, mask))
    return [replace_bytes(folder / file, content) for file, content in pictures.items()]


def draw_score_charts(summary: MetricsSummary, details: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write `ap_per_class.pdf` and `precision_recall.pdf`; `details` is the devkit's metrics_details.json."""
    replace_bytes(folder / "ap_per_class.pdf", to_bytes(draw_class_ap(summary), "pdf"))
    replace_bytes(folder / "precision_recall.pdf", to_bytes(draw_precision_recall(details, summary), "pdf"))


def spread_rows(index: SceneIndex, split: str, count: int) -> list[int]:
    """At most `count` rows of a split, evenly spread over it, so over its scenes."""
    rows = index.rows_in(split)
    steps = np.linspace(0, len(rows), min(count, len(rows)), endpoint=False) + len(rows) / (2 * count)
    return [int(rows[min(int(step), len(rows) - 1)]) for step in steps]


def _scene_parts(
    index: SceneIndex, row: int, predictions: GlobalBoxes, min_score: float, with_truth: bool
) -> tuple[SampleView, GlobalBoxes, GlobalBoxes | None]:
    truth = from_annotations(index.frame(row).annotations) if with_truth else None
    return view_of(index, row), predictions.keep(predictions.scores >= min_score), truth


def _png(canvas: Canvas) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg(canvas: Canvas) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
