"""The work of `bevnext-sam2 eval`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from configs import run_directory
from configs.errors import UsageError
from configs.recipes import SPLITS_OF_VERSION
from evaluation.atomic_file import write_atomically
from evaluation.evaluate import evaluate_detector
from evaluation.nuscenes_metrics import METRICS_FILE, MetricsSummary, evaluate_nuscenes
from evaluation.options import DEFAULT_VERSION, DataChoice, ModelChoice
from evaluation.pictures import draw_sample, spread_rows
from evaluation.processes import is_main_process, joined_processes
from evaluation.results import read_results
from evaluation.session import data_line, open_data, progress_bar
from evaluation.tables import metrics_tables
from evaluation.trained import Trained, load_chosen
from scenes.index import SceneIndex, open_index


def run_eval(
    model: ModelChoice,
    data: DataChoice,
    *,
    split: str | None,
    results: Path | None,
    pictures: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Score, show, write, draw; what is shown goes to standard error when JSON has standard output."""
    with joined_processes(model.device) as device:
        console = Console(stderr=as_json, quiet=not is_main_process(), highlight=False, soft_wrap=True)
        if results is not None:
            summary, folder = _score_file(results, model, data, split, out, console)
            figures = folder / run_directory.FIGURES
        else:
            trained = load_chosen(model, device)
            index, config = open_data(data, trained.recipe, console)
            split = split or config.val_split
            folder = out or _default_folder(model, trained, split, config.val_split)
            figures = (model.run if model.run is not None and out is None else folder) / run_directory.FIGURES
            console.print(f"weights: {trained.weights}")
            with progress_bar(console, f"predicting {split}") as on_progress:
                found = evaluate_detector(
                    trained.detector,
                    index,
                    split,
                    config,
                    folder,
                    device=device,
                    batch_size=model.batch_size,
                    workers=model.workers,
                    on_progress=on_progress,
                )
            if found is None:
                return
            summary = found
    _show(summary, folder, console, as_json)
    if pictures:
        index = open_index(data.data_root, summary.version, data.index_dir)
        _draw(index, summary, pictures, figures, console)


def _score_file(
    results: Path, model: ModelChoice, data: DataChoice, split: str | None, out: Path | None, console: Console
) -> tuple[MetricsSummary, Path]:
    if model.run is not None or model.config is not None or model.checkpoint is not None:
        raise UsageError("--results is scored without a detector", fix="leave out --run, --config and --checkpoint")
    version = data.version or DEFAULT_VERSION
    split = split or SPLITS_OF_VERSION.get(version, ("", ""))[1]
    if not split:
        raise UsageError(f"the validation split of {version} is not known", fix="name it with --split")
    console.print(data_line(data, version))
    folder = out or results.parent / f"{results.stem}_metrics"
    summary = evaluate_nuscenes(results, data.data_root, version, split, folder)
    write_atomically(folder / METRICS_FILE, summary.model_dump_json(indent=2))
    return summary, folder


def _default_folder(model: ModelChoice, trained: Trained, split: str, val_split: str) -> Path:
    if model.run is None:
        return Path("outputs/eval") / trained.weights.stem
    name = trained.weights.parent.name
    return model.run / run_directory.RESULTS / (name if split == val_split else f"{name}-{split}")


def _show(summary: MetricsSummary, folder: Path, console: Console, as_json: bool) -> None:
    if as_json:
        print(summary.model_dump_json(indent=2))
    else:
        console.print(metrics_tables(summary))
    console.print(f"results: {summary.results}\nscores:  {folder / METRICS_FILE}")


def _draw(index: SceneIndex, summary: MetricsSummary, count: int, figures: Path, console: Console) -> None:
    """Samples spread over the split, numbered in its order."""
    predictions = read_results(Path(summary.results))
    rows = spread_rows(index, summary.split, count)
    with progress_bar(console, "drawing") as on_progress:
        for number, row in enumerate(rows, start=1):
            draw_sample(index, row, predictions[index.token(row)], figures, f"{summary.split}_{number:02d}")
            on_progress(number, len(rows))
    console.print(f"pictures: {figures}/{summary.split}_*")
