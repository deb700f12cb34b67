"""The work of `bevnext-sam2 eval`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from configs import run_directory
from configs.errors import UsageError
from configs.recipes import SPLITS_OF_VERSION
from configs.replaced_file import replace_text
from evaluation.evaluate import evaluate_detector
from evaluation.nuscenes_metrics import DETAILS_FILE, METRICS_FILE, MetricsSummary, evaluate_nuscenes
from evaluation.options import DEFAULT_VERSION, DataChoice, ModelChoice
from evaluation.pictures import draw_sample, draw_score_charts, spread_rows
from evaluation.processes import is_main_process, joined_processes
from evaluation.published_results import write_published_results
from evaluation.results import read_results
from evaluation.session import data_line, open_data, progress_bar
from evaluation.tables import metrics_tables
from evaluation.trained import Trained, load_chosen
from integration.precision import lower_kind
from scenes.index import SceneIndex, open_index

PUBLISHED_FILE: Final = "results_published.json"


@dataclass(frozen=True, slots=True)
class _Scored:
    summary: MetricsSummary
    folder: Path
    """Holds the scores."""
    figures: Path
    """Takes the pictures."""


def run_eval(
    model: ModelChoice,
    data: DataChoice,
    *,
    split: str | None,
    results: Path | None,
    pictures: int,
    out: Path | None,
    as_published: bool,
    as_json: bool,
) -> None:
    """Score, show, draw; what is said goes to standard error when JSON has standard output."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    if results is None:
        scored = _score_detector(model, data, split, out, console)
    else:
        scored = _score_file(results, model, data, split, out, console)
    if scored is None:
        return
    _show(scored, console, as_json)
    if not (pictures or as_published):
        return
    index = open_index(data.data_root, scored.summary.version, data.index_dir)
    if as_published:
        predictions = read_results(Path(scored.summary.results))
        path = write_published_results(scored.folder / PUBLISHED_FILE, predictions, index)
        console.print(f"as the authors' program writes it: {path}")
    if pictures:
        _draw(index, scored, pictures, console)


def _score_detector(
    model: ModelChoice, data: DataChoice, split: str | None, out: Path | None, console: Console
) -> _Scored | None:
    """Predict and score; `None` on all processes but the main one."""
    with joined_processes(model.device) as device:
        console.quiet = not is_main_process()
        lower = lower_kind(model.precision, device)
        trained = load_chosen(model, device)
        index, config = open_data(data, trained.recipe, console)
        split = split or config.val_split
        folder = out or _default_folder(model, trained, split, config.val_split)
        console.print(f"weights: {trained.weights}")
        with progress_bar(console, f"predicting {split}") as on_progress:
            summary = evaluate_detector(
                trained.detector,
                index,
                split,
                config,
                folder,
                device=device,
                batch_size=model.batch_size,
                workers=model.workers,
                lower=lower,
                on_progress=on_progress,
            )
    if summary is None:
        return None
    home = folder if model.run is None or out is not None else model.run
    return _Scored(summary, folder, home / run_directory.FIGURES)


def _score_file(
    results: Path, model: ModelChoice, data: DataChoice, split: str | None, out: Path | None, console: Console
) -> _Scored:
    if model.run is not None or model.config is not None or model.checkpoint is not None:
        raise UsageError("--results is scored without a detector", fix="leave out --run, --config and --checkpoint")
    version = data.version or DEFAULT_VERSION
    split = split or SPLITS_OF_VERSION.get(version, ("", ""))[1]
    if not split:
        raise UsageError(f"the validation split of {version} is not known", fix="name it with --split")
    console.print(data_line(data, version))
    folder = out or results.parent / f"{results.stem}_metrics"
    summary = evaluate_nuscenes(results, data.data_root, version, split, folder)
    replace_text(folder / METRICS_FILE, summary.model_dump_json(indent=2))
    return _Scored(summary, folder, folder / run_directory.FIGURES)


def _default_folder(model: ModelChoice, trained: Trained, split: str, val_split: str) -> Path:
    if model.run is None:
        return Path("outputs/eval") / trained.weights.stem
    name = trained.weights.parent.name
    return model.run / run_directory.RESULTS / (name if split == val_split else f"{name}-{split}")


def _show(scored: _Scored, console: Console, as_json: bool) -> None:
    if as_json:
        print(scored.summary.model_dump_json(indent=2))
    else:
        console.print(metrics_tables(scored.summary, console.width))
    console.print(f"results: {scored.summary.results}\nscores:  {scored.folder / METRICS_FILE}")


def _draw(index: SceneIndex, scored: _Scored, count: int, console: Console) -> None:
    """Samples spread over the split, numbered in its order, and the charts of the scores."""
    summary = scored.summary
    predictions = read_results(Path(summary.results))
    rows = spread_rows(index, summary.split, count)
    with progress_bar(console, "drawing") as on_progress:
        for number, row in enumerate(rows, start=1):
            draw_sample(index, row, predictions[index.token(row)], scored.figures, f"{summary.split}_{number:02d}")
            on_progress(number, len(rows))
    details = json.loads((scored.folder / DETAILS_FILE).read_bytes())
    draw_score_charts(summary, details, scored.figures)
    console.print(f"pictures: {scored.figures}")
