"""What `eval`, `infer` and `demo` do alike: open the data, say what they work on, predict, show progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from configs.recipes import with_version
from configs.schema import DataConfig, Recipe
from evaluation.global_boxes import GlobalBoxes
from evaluation.options import DEFAULT_VERSION, DataChoice, ModelChoice
from evaluation.predict import ProgressHook, predict
from evaluation.trained import Trained
from integration.precision import lower_kind
from scenes.index import SceneIndex, open_index


def open_data(choice: DataChoice, recipe: Recipe, console: Console) -> tuple[SceneIndex, DataConfig]:
    """The index of the chosen data set, and the recipe's data section for its version."""
    version = choice.version or recipe.data.version
    index = open_index(choice.data_root, version, choice.index_dir)
    console.print(data_line(choice, version))
    return index, with_version(recipe, version).data


def data_line(choice: DataChoice, version: str) -> str:
    """One line that names the data set, and says so when it is the synthetic one."""
    synthetic = " (the synthetic driving set of this project)" if version == DEFAULT_VERSION else ""
    return f"data: {choice.data_root}, {version}{synthetic}"


def predict_rows(
    trained: Trained,
    index: SceneIndex,
    rows: npt.NDArray[np.int64],
    config: DataConfig,
    model: ModelChoice,
    device: torch.device,
    console: Console,
) -> dict[str, GlobalBoxes] | None:
    """`predict` as the options of a command say, with a bar."""
    with progress_bar(console, "predicting") as on_progress:
        return predict(
            trained.detector,
            index,
            rows,
            config,
            device=device,
            batch_size=model.batch_size,
            workers=model.workers,
            on_progress=on_progress,
            lower=lower_kind(model.precision, device),
        )


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[ProgressHook]:
    """A bar on a terminal, and nothing elsewhere; yields the hook that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
