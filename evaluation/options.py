"""Options that the commands of this package share. Imports neither torch nor the devkit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, Final, get_args

import click

from configs.errors import UsageError
from configs.plan_schema import Precision
from configs.remote_location import DataRoot
from evaluation.checkpoint_files import LATEST, find_checkpoint

Function = Callable[..., Any]

DEFAULT_ROOT: Final = Path("data/synthetic")
DEFAULT_VERSION: Final = "v1.0-synthetic"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which detector, and how it runs, as the options of `model_options` say."""

    run: Path | None
    checkpoint: str | None
    config: str | None
    overrides: tuple[str, ...]
    averaged: bool | None
    device: str
    batch_size: int
    workers: int
    precision: Precision

    @property
    def names_any(self) -> bool:
        """An option names a detector, if not whole."""
        return not (self.run is None and self.config is None and self.checkpoint is None)

    def check(self) -> None:
        """Raises `UsageError` unless the options name one detector. Quick: nothing heavy is imported."""
        if self.run is not None:
            if self.config is not None or self.overrides:
                raise UsageError("--run has its own recipe", fix="leave out --config and --set")
            find_checkpoint(self.run, self.checkpoint or LATEST)
            return
        if self.config is None or self.checkpoint is None:
            raise UsageError(
                "no detector is named",
                fix="give --run DIR, or --config RECIPE with --checkpoint FILE",
            )
        if self.averaged is not None:
            raise UsageError(
                "--ema and --no-ema choose among the weights of a run", fix="leave them out, or give --run"
            )


@dataclass(frozen=True, slots=True)
class DataChoice:
    """Which data set, as the options of `data_options` say."""

    data_root: Path
    version: str | None
    index_dir: Path | None


@dataclass(frozen=True, slots=True)
class MaskChoice:
    """Which SAM 2, as the options of `mask_options` say."""

    sam2_weights: str | None
    sam2_config: str | None

    @property
    def names_any(self) -> bool:
        """Weights are named."""
        return self.sam2_weights is not None


_MODEL_OPTIONS: Final = (
    click.option(
        "--run",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Run directory that `train` made, e.g. outputs/<run>; its recipe and its latest checkpoint are used.",
    ),
    click.option(
        "--checkpoint",
        metavar="NAME|FILE",
        help="With --run: which of its checkpoints, `latest` (default), `best` or e.g. `step_00001234`. Without --run: "
        "a weights file (.safetensors, or a published .pth) of the recipe in --config.",
    ),
    click.option(
        "--config",
        metavar="RECIPE",
        help="Recipe of a weights file: a name such as bevnext/bevnext-stage1, or a YAML file.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a value of --config, e.g. model.head.score_threshold=0.2; may be repeated.",
    ),
    click.option(
        "--ema/--no-ema",
        "averaged",
        default=None,
        help="With --run: the moving average of the weights, or the weights of the last step. Default: the average "
        "when the recipe keeps one.",
    ),
    click.option(
        "--device", default="auto", show_default=True, help="auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
    ),
    click.option(
        "--batch-size", type=click.IntRange(min=1), default=4, show_default=True, help="Samples per forward pass."
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=0),
        default=2,
        show_default=True,
        help="Processes that read samples; 0 reads in the main one.",
    ),
    click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="fp32",
        show_default=True,
        help="What networks compute in, whatever they were trained in.",
    ),
)

_DATA_OPTIONS: Final = (
    click.option(
        "--data-root",
        "--data-path",
        type=DataRoot(),
        default=DEFAULT_ROOT,
        show_default=True,
        metavar="DIR|s3://...",
        help="Root of a data set in nuScenes format; the default is the synthetic one.",
    ),
    click.option(
        "--version",
        metavar="NAME",
        help=f"Version of the data set. Default: the recipe's, and {DEFAULT_VERSION} without a recipe.",
    ),
    click.option(
        "--index-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Parent directory of the index, when it is not <data root>/index.",
    ),
)


_MASK_OPTIONS: Final = (
    click.option(
        "--sam2-weights",
        metavar="NAME|FILE",
        help="Weights of SAM 2: a name of `checkpoints list`, or a file. Default: published ones that were fetched, "
        "else outputs/sam2-nano/sam2.safetensors, which `sam2 train` makes. Never random ones.",
    ),
    click.option(
        "--sam2-config",
        metavar="NAME|FILE",
        help="Their SAM 2 configuration. Default: the one that the name belongs to; for a file sam2_hiera_nano.",
    ),
)


def model_options(command: Function) -> Function:
    """Add the options that choose a detector; the command gets them as `model: ModelChoice`."""
    return _gathered(command, "model", ModelChoice, _MODEL_OPTIONS)


def data_options(command: Function) -> Function:
    """Add the options that choose a data set; the command gets them as `data: DataChoice`."""
    return _gathered(command, "data", DataChoice, _DATA_OPTIONS)


def mask_options(command: Function) -> Function:
    """Add the options that choose a SAM 2; the command gets them as `sam2: MaskChoice`."""
    return _gathered(command, "sam2", MaskChoice, _MASK_OPTIONS)


def _gathered(command: Function, name: str, kind: type[Any], options: tuple[Function, ...]) -> Function:
    @wraps(command)
    def gather(**values: Any) -> Any:
        choice = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        return command(**{name: choice}, **values)

    for option in reversed(options):
        gather = option(gather)
    return gather
