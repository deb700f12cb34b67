"""What `demo` works on: samples with boxes, from a data set, from images in a folder, or from the synthetic set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from configs.errors import UsageError
from configs.index_location import HEADER, index_directory
from configs.recipes import SPLITS_OF_VERSION
from configs.synthetic_set import SYNTHETIC_ROOT, SYNTHETIC_SIZE, SYNTHETIC_VERSION
from evaluation.box_file import box_records, read_boxes
from evaluation.camera_folder import detect, read_camera_folder
from evaluation.figures.sample_view import SampleView, view_of
from evaluation.global_boxes import GlobalBoxes, from_annotations
from evaluation.options import DEFAULT_VERSION, DataChoice, ModelChoice
from evaluation.session import data_line, open_data, predict_rows
from evaluation.trained import load_chosen
from integration.precision import lower_kind
from scenes.index import SceneIndex, open_index

ANNOTATED, PREDICTED, GIVEN = "annotated", "predicted", "given"


@dataclass(frozen=True, slots=True)
class DemoChoice:
    """What `demo` was asked to work on."""

    scene: str | None
    sample: str | None
    images: Path | None
    calibration: Path | None
    boxes: Path | None

    def check(self, model: ModelChoice) -> None:
        """Raises `UsageError` for options that exclude one another, or need others."""
        if self.scene is not None and self.sample is not None:
            raise UsageError("--scene and --sample are both given", fix="give one of them")
        if self.images is None:
            if self.calibration is not None or self.boxes is not None:
                raise UsageError("--calibration and --boxes belong to --images", fix="give --images FOLDER as well")
            return
        if self.scene is not None or self.sample is not None:
            raise UsageError("--images is no data set with scenes and samples", fix="leave --scene and --sample out")
        if (self.boxes is None) == (not model.names_any):
            raise UsageError(
                "--images: nothing says where the objects are" if self.boxes is None else "--boxes beside a detector",
                fix="give a detector (--run DIR, or --config with --checkpoint), or boxes (--boxes FILE)",
            )


@dataclass(frozen=True, slots=True)
class DemoSamples:
    """Samples by token, in order, with the boxes that get masks."""

    name: str
    boxes: Mapping[str, GlobalBoxes]
    index: SceneIndex | None
    folder: SampleView | None
    """Either of them holds the images."""
    counted: str
    """What the boxes are."""

    def view(self, token: str) -> SampleView:
        """A sample's images and calibration."""
        if self.index is not None:
            return view_of(self.index, self.index.row_of(token))
        assert self.folder is not None
        return self.folder

    def records(self) -> list[dict[str, object]] | None:
        """The boxes in the ego frame, for images in a folder; samples of a data set have a results file."""
        return None if self.folder is None else box_records(self.boxes[self.folder.title])


def open_source(
    choice: DemoChoice,
    model: ModelChoice,
    data: DataChoice,
    min_score: float,
    device: torch.device,
    console: Console,
) -> DemoSamples:
    """Read, and detect where a detector is named; says what the boxes are."""
    if choice.images is not None:
        return _of_folder(choice.images, choice, model, min_score, device, console)
    prepare_synthetic(data, console)
    if model.names_any:
        return _predicted(choice, model, data, min_score, device, console)
    version = data.version or DEFAULT_VERSION
    index = open_index(data.data_root, version, data.index_dir)
    console.print(data_line(data, version))
    rows = rows_of(index, choice)
    boxes = {index.token(row): from_annotations(index.frame(row).annotations) for row in rows.tolist()}
    if not any(map(len, boxes.values())):
        raise UsageError(
            f"{data.data_root} ({version}) has no annotated boxes for this choice", fix="name a detector with --run DIR"
        )
    console.print("boxes: the annotated ones (no detector is named; --run DIR takes a detector's)")
    return DemoSamples(_name(choice, index, rows), boxes, index, None, ANNOTATED)


def prepare_synthetic(data: DataChoice, console: Console) -> None:
    """Make the synthetic set, and its index, where it is asked for and absent. A data set of the user is never made."""
    if data.data_root != SYNTHETIC_ROOT or (data.version or SYNTHETIC_VERSION) != SYNTHETIC_VERSION:
        return
    from scenes.index_command import index
    from scenes.synthetic.command import synth

    if not (data.data_root / SYNTHETIC_VERSION).is_dir():
        console.print(f"{data.data_root} is not there: the synthetic set is made first")
        synth.main(["--out", str(data.data_root), *SYNTHETIC_SIZE], standalone_mode=False)
    if not (index_directory(data.data_root, SYNTHETIC_VERSION, data.index_dir) / HEADER).is_file():
        where = [] if data.index_dir is None else ["--index-dir", str(data.index_dir)]
        options = ["--data-root", str(data.data_root), "--version", SYNTHETIC_VERSION, *where]
        index.main(options, standalone_mode=False)


def rows_of(index: SceneIndex, choice: DemoChoice) -> npt.NDArray[np.int64]:
    """Rows of the chosen scene or sample; by default the first key frame that was not trained on."""
    if choice.scene is not None:
        return index.scene_named(choice.scene).rows
    if choice.sample is not None:
        return np.array([index.row_of(choice.sample)])
    splits = SPLITS_OF_VERSION.get(index.version)
    held_out = splits[1] if splits else None
    return index.rows_in(held_out)[:1] if held_out in index.header.splits else np.array([0])


def _predicted(
    choice: DemoChoice,
    model: ModelChoice,
    data: DataChoice,
    min_score: float,
    device: torch.device,
    console: Console,
) -> DemoSamples:
    trained = load_chosen(model, device)
    index, config = open_data(data, trained.recipe, console)
    rows = rows_of(index, choice)
    found = predict_rows(trained, index, rows, config, model, device, console)
    assert found is not None, "demo runs in one process"
    boxes = {token: own.keep(own.scores >= min_score) for token, own in found.items()}
    _say_predicted(boxes, trained.weights, min_score, console)
    return DemoSamples(_name(choice, index, rows), boxes, index, None, PREDICTED)


def _of_folder(
    folder: Path,
    choice: DemoChoice,
    model: ModelChoice,
    min_score: float,
    device: torch.device,
    console: Console,
) -> DemoSamples:
    view = read_camera_folder(folder, choice.calibration)
    console.print(f"images: {folder}, {len(view.cameras)} cameras")
    if choice.boxes is not None:
        given = read_boxes(choice.boxes)
        boxes = {view.title: given.keep(given.scores >= min_score)}
        console.print(f"boxes: {len(boxes[view.title])} of {choice.boxes}")
        return DemoSamples(view.title, boxes, None, view, GIVEN)
    trained = load_chosen(model, device)
    found = detect(trained, view, device, lower_kind(model.precision, device))
    boxes = {view.title: found.keep(found.scores >= min_score)}
    _say_predicted(boxes, trained.weights, min_score, console)
    return DemoSamples(view.title, boxes, None, view, PREDICTED)


def _say_predicted(boxes: Mapping[str, GlobalBoxes], weights: Path, min_score: float, console: Console) -> None:
    count = sum(map(len, boxes.values()))
    console.print(f"boxes: {count} of score {min_score:g} or more, found by {weights}")


def _name(choice: DemoChoice, index: SceneIndex, rows: npt.NDArray[np.int64]) -> str:
    return choice.scene or choice.sample or f"{index.scene_of(int(rows[0])).name}_{index.token(int(rows[0]))[:8]}"
