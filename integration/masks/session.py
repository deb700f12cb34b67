"""The work of `sam2 train` and `sam2 eval`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import UsageError
from integration.masks.evaluate import WAYS, evaluate_masks
from integration.masks.examples import MaskExamples
from integration.masks.train import TrainingOptions, train_masks
from integration.sam2_weights import load_segmenter
from scenes.index import open_index

Summary = Mapping[str, Mapping[str, Mapping[str, float]]]

LINES: int = 10
"""Of progress that a training prints."""


@dataclass(frozen=True, slots=True)
class TrainingChoice:
    """What `sam2 train` was asked for."""

    data_root: Path
    version: str
    split: str
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


def run_training(choice: TrainingChoice, out: Path, say: Callable[[str], None]) -> Path:
    """Train; returns the weights file."""
    index = open_index(choice.data_root, choice.version)
    torch.manual_seed(choice.seed)
    segmenter = load_segmenter(
        choice.config,
        choice.weights,
        network_size=choice.network_size,
        wants_outline=choice.weights is None,
        device=chosen_device(choice.device),
    )
    rows = index.rows_in(choice.split).tolist()
    examples = MaskExamples(index, rows, segmenter.network_size, choice.objects)
    options = TrainingOptions(
        steps=choice.steps,
        images=choice.images,
        learning_rate=choice.learning_rate,
        train_encoder=choice.train_encoder,
        workers=choice.workers,
        seed=choice.seed,
    )
    parts = "encoder and decoder" if choice.train_encoder else "decoder"
    say(f"data: {choice.data_root}, {choice.version} (the synthetic driving set of this project), {len(rows)} samples")
    say(f"training the {parts} of {choice.config} at {segmenter.network_size[1]}x{segmenter.network_size[0]}")
    sums: dict[str, float] = {}
    every = max(1, choice.steps // LINES)

    def report(step: int, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value / every
        if step % every == 0:
            say(f"step {step}/{choice.steps}: " + ", ".join(f"{name} {value:.3f}" for name, value in sums.items()))
            sums.clear()

    return train_masks(segmenter, examples, options, out, report)


def run_evaluation(
    data_root: Path, version: str, split: str, config: str, weights: str, every: int, device: str
) -> Summary:
    """Scores by occlusion and way."""
    index = open_index(data_root, version)
    segmenter = load_segmenter(config, weights, device=chosen_device(device))
    examples = MaskExamples(index, index.rows_in(split).tolist(), segmenter.network_size, with_hulls=True)
    return evaluate_masks(segmenter, examples, every).summary()


def table(summary: Summary) -> str:
    """The scores as lines of text."""
    head = f"{'':15s}{'objects':>9s}" + "".join(f"{way:>28s}" for way in WAYS)
    lines = [head, f"{'':24s}" + f"{'IoU':>18s}{'bound. F':>10s}" * len(WAYS)]
    for name, ways in summary.items():
        objects = int(ways[WAYS[0]]["objects"])
        scores = "".join(f"{ways[way]['iou']:18.3f}{ways[way]['boundary_f']:10.3f}" for way in WAYS)
        lines.append(f"{name:15s}{objects:9d}{scores}")
    return "\n".join(lines)


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
