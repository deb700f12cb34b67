"""How the passes of a benchmark run and are timed: the same options, and the same clock, for every network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

import click
import torch

from benchmarks.parts import seconds_on
from evaluation.processes import choose_device

PRECISIONS: Final = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

_OPTIONS: Final = (
    click.option(
        "--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N, or auto (a GPU if there is one)."
    ),
    click.option("--precision", type=click.Choice(list(PRECISIONS)), default="fp32", show_default=True),
    click.option(
        "--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Passes; the best counts."
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Threads of the CPU. Default: PyTorch's."),
)


@dataclass(frozen=True, slots=True)
class Passes:
    """Where passes run, how exactly, and how often."""

    device: torch.device
    precision: str
    repeats: int

    def autocast(self) -> torch.autocast:
        """The precision, as a context."""
        kind = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, kind, enabled=kind is not None)

    def seconds(self, work: Callable[[], object]) -> float:
        """What `work` takes, as `seconds_on` counts."""
        begun = seconds_on(self.device)
        work()
        return seconds_on(self.device) - begun

    def facts(self, unit: str) -> dict[str, Any]:
        """What a result says about them; `unit` is that of its times."""
        on_gpu = self.device.type == "cuda"
        return {
            "unit": unit if on_gpu else f"{unit}, processor time of all threads",
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "precision": self.precision,
        }


def pass_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that decide them; the command gets them as `passes: Passes`."""

    @wraps(command)
    def gather(device: str, precision: str, repeats: int, threads: int | None, **others: Any) -> Any:
        if threads:
            torch.set_num_threads(threads)
        return command(passes=Passes(choose_device(device), precision, repeats), **others)

    for option in reversed(_OPTIONS):
        gather = option(gather)
    return gather
