"""The work of `sam2 train` and `sam2 eval`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from configs.errors import BevnextError, DataError, ExitCode, UsageError
from configs.recipes import SPLITS_OF_VERSION
from configs.stop_signal import StopSignal
from integration.bev_sam_fusion import BEVSAMFusion
from integration.masks.calibrate import calibrate
from integration.masks.evaluate import evaluate_masks
from integration.masks.examples import MaskData, MaskExamples, has_exact_masks
from integration.masks.nuimages import NuImages, find_tables
from integration.masks.nuimages_examples import NuImagesExamples
from integration.masks.point_evaluate import ALL_OBJECTS, evaluate_by_points, fused_masks
from integration.masks.train import TrainingOptions, train_masks
from integration.masks.training_state import STATE, WEIGHTS, find_state
from integration.sam2_weights import load_segmenter
from integration.score_feedback import FEATURES, ScoreFeedback
from integration.segmenter import Segmenter
from scenes.index import open_index

Summary = Mapping[str, Mapping[str, Mapping[str, float]]]

SYNTHETIC: Final = "v1.0-synthetic"
LINES: Final = 10
"""Of progress that a training prints."""


class InterruptedTrainingError(BevnextError):
    """A training that was stopped by a signal and saved (exit code 75)."""

    exit_code = ExitCode.PREEMPTED


@dataclass(frozen=True, slots=True)
class DataChoice:
    """Which images with masks."""

    kind: str
    """`scenes` (nuScenes format) or `nuimages`."""
    root: Path
    version: str | None
    """`None` takes the kind's usual one."""
    split: str | None = None
    """Of scenes; `None` takes the usual one."""


@dataclass(frozen=True, slots=True)
class TrainingChoice:
    """What `sam2 train` was asked for."""

    data: DataChoice
    config: str
    weights: str | None
    network_size: tuple[int, int] | None
    objects: int
    device: str
    learning_rate: float
    train_encoder: bool
    steps: int
    images: int
    workers: int
    seed: int
    resume: str


def run_training(choice: TrainingChoice, out: Path, say: Callable[[str], None]) -> Path:
    """Train; returns the weights file. Raises `InterruptedTrainingError` when a signal ends it."""
    state = find_state(choice.resume, out)
    if choice.resume == "auto" and state is None and (out / WEIGHTS).is_file():
        say(f"{out} holds a training that came to its end; --resume none trains anew")
        return out / WEIGHTS
    torch.manual_seed(choice.seed)
    segmenter = load_segmenter(
        choice.config,
        choice.weights,
        network_size=choice.network_size,
        wants_outline=choice.weights is None and choice.data.kind == "scenes",
        device=chosen_device(choice.device),
    )
    examples, line = _training_data(choice, segmenter)
    say(line)
    width, height = segmenter.network_size[::-1]
    parts = "encoder and decoder" if choice.train_encoder else "decoder"
    say(f"training the {parts} of {choice.config} at {width}x{height}" + (f", from {state}" if state else ""))
    stop = StopSignal().listen()
    finished = train_masks(
        segmenter,
        examples,
        _options(choice),
        out,
        _reporter(choice.steps, say),
        state=state,
        made_of={
            "data": str(choice.data.root.resolve()),
            "kind": choice.data.kind,
            "version": choice.data.version,
            "split": choice.data.split,
            "examples": len(examples),
            "objects": choice.objects,
            "config": choice.config,
            "weights": choice.weights,
            "network_size": f"{width}x{height}",
        },
        should_stop=lambda: bool(stop),
    )
    if not finished:
        raise InterruptedTrainingError(f"stopped by a signal; {out / STATE} is saved", fix="go on with --resume auto")
    return out / WEIGHTS


def run_evaluation(data: DataChoice, metric: str, config: str, weights: str, every: int, device: str) -> Summary:
    """Scores by group of objects and way: of the `masks` metric or of the `lidar` metric."""
    place = chosen_device(device)
    if data.kind == "nuimages":
        if metric == "lidar":
            raise UsageError("--metric lidar: nuImages has no LiDAR points", fix="use --metric masks")
        segmenter = load_segmenter(config, weights, device=place)
        return evaluate_masks(segmenter, _nuimages(data, segmenter, "v1.0-val", with_hulls=True), every).summary()
    version, split = _version_and_split(data, 1)
    index = open_index(data.root, version)
    rows = index.rows_in(split).tolist()
    if metric == "lidar" or (metric == "auto" and not has_exact_masks(index.dataroot)):
        fusion = BEVSAMFusion(weights, config, place, limits=ALL_OBJECTS)
        return evaluate_by_points(fused_masks(fusion), index, rows, every).summary()
    segmenter = load_segmenter(config, weights, device=place)
    return evaluate_masks(
        segmenter, MaskExamples(index, rows, segmenter.network_size, with_hulls=True), every
    ).summary()


def run_calibration(
    data: DataChoice, results: Path, config: str, weights: str, device: str, out: Path
) -> ScoreFeedback:
    """Fit score feedback on the training split, and write it to `out`."""
    version, split = _version_and_split(data, 0)
    index = open_index(data.root, version)
    fusion = BEVSAMFusion(weights, config, chosen_device(device))
    feedback = calibrate(fusion, index, index.rows_in(split).tolist(), results)
    feedback.save(out)
    return feedback


def table(summary: Summary) -> str:
    """The scores as lines of text."""
    if not summary:
        raise DataError("the data show no object that can be scored", fix="give another split")
    first = next(iter(summary.values()))
    ways = list(first)
    names = [name for name in first[ways[0]] if name != "objects"]
    width = max(28, 9 * len(names))
    head = f"{'':21s}{'objects':>9s}" + "".join(f"{way:>{width}s}" for way in ways)
    lines = [head, f"{'':30s}" + "".join(f"{name:>9s}" for name in map(_short, names)).rjust(width) * len(ways)]
    for group, scores in summary.items():
        cells = ("".join(f"{scores[way][name]:9.3f}" for name in names).rjust(width) for way in ways)
        lines.append(f"{group:21s}{int(scores[ways[0]]['objects']):9d}" + "".join(cells))
    return "\n".join(lines)


def feedback_table(feedback: ScoreFeedback) -> str:
    """The weights of the regressions, per standard deviation of each feature, as lines of text."""
    lines = [f"{'':22s}" + "".join(f"{name:>12s}" for name in FEATURES)]
    lines += [
        f"{name:22s}" + "".join(f"{weight:12.2f}" for weight in one.weights) for name, one in feedback.classes.items()
    ]
    return "\n".join(lines)


def _short(name: str) -> str:
    return {"iou": "IoU", "boundary_f": "bound. F", "f1": "F1", "precision": "prec.", "depth_leak": "leak m"}.get(
        name, name
    )


def _options(choice: TrainingChoice) -> TrainingOptions:
    return TrainingOptions(
        steps=choice.steps,
        images=choice.images,
        learning_rate=choice.learning_rate,
        train_encoder=choice.train_encoder,
        workers=choice.workers,
        seed=choice.seed,
    )


def _reporter(steps: int, say: Callable[[str], None]) -> Callable[[int, dict[str, float]], None]:
    """Says the means of the losses, `LINES` times in all."""
    sums: dict[str, float] = {}
    every = max(1, steps // LINES)

    def report(step: int, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value / every
        if step % every == 0:
            say(f"step {step}/{steps}: " + ", ".join(f"{name} {value:.3f}" for name, value in sums.items()))
            sums.clear()

    return report


def _training_data(choice: TrainingChoice, segmenter: Segmenter) -> tuple[MaskData, str]:
    """The examples, and a line that says what they are."""
    data = choice.data
    if data.kind == "nuimages":
        examples = _nuimages(data, segmenter, "v1.0-train", largest=choice.objects)
        return examples, f"data: {data.root}, nuImages tables, {len(examples)} images"
    version, split = _version_and_split(data, 0)
    index = open_index(data.root, version)
    rows = index.rows_in(split).tolist()
    kind = " (the synthetic driving set of this project)" if version == SYNTHETIC else ""
    line = f"data: {data.root}, {version}{kind}, {len(rows)} samples"
    return MaskExamples(index, rows, segmenter.network_size, choice.objects), line


def _nuimages(
    data: DataChoice, segmenter: Segmenter, usual: str, largest: int = 1 << 30, with_hulls: bool = False
) -> NuImagesExamples:
    if segmenter.wants_outline:
        raise UsageError(
            "these weights were trained with the outlines of 3D boxes, which nuImages does not have",
            fix="start from published weights, or from scratch (without --weights)",
        )
    tables = NuImages(data.root, find_tables(data.root, data.version, usual))
    return NuImagesExamples(tables, largest, with_hulls)


def _version_and_split(data: DataChoice, which: int) -> tuple[str, str]:
    """Of scenes; `which` is 0 for training, 1 for measuring."""
    version = data.version or SYNTHETIC
    split = data.split or SPLITS_OF_VERSION.get(version, ("", ""))[which]
    if not split:
        raise UsageError(f"the splits of {version} are not known", fix="name one with --split")
    return version, split


def chosen_device(name: str) -> torch.device:
    """`auto` is a GPU if there is one. Raises `UsageError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}", fix="use auto or cpu") from error
    return device
