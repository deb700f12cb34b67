"""What a run says while it trains: a live line in a terminal, plain lines elsewhere, and the figures on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from configs import run_directory
from configs.outlived_reader import outlive_reader
from configs.plan import Plan
from configs.schema import Recipe

from .device_watch import DeviceWatch
from .fault import StepFault
from .metrics_log import MetricsLog
from .pace import Pace
from .rank_figures import RankFigures, mean_seconds, own_work, straggler
from .trainer import StepReport


def log_due(step: int, first_step: int, plan: Plan, log_every: int) -> bool:
    """The figures are told after this step: the first one, the last one, and every so many."""
    return step in (first_step + 1, plan.total_steps) or step % log_every == 0


class SilentReporter:
    """For the processes that do not speak. Leaving the context ends the report."""

    def __enter__(self) -> SilentReporter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def say(self, text: str) -> None:
        """A line for the reader."""

    def step(self, step: int, report: StepReport, waited: float, ranks: Sequence[RankFigures] | None = None) -> None:
        """An optimiser step is done.

        Args:
            waited: seconds of it that were spent waiting for data.
            ranks: what every process measured since the last figures, where figures are due.
        """

    def stalled(self, seconds: float) -> None:
        """Training has just waited for a checkpoint."""

    def checkpoint(self, step: int, place: Path, seconds: float, stalled: float) -> None:
        """A checkpoint has been written, some steps later perhaps; training waited for `stalled` of the seconds."""

    def fault(self, step: int, fault: StepFault, answer: str) -> None:
        """A step was not finite; `answer` says what became of it."""

    def skipped_samples(self, step: int, tokens: list[str], total: int) -> None:
        """Other samples stood in for those of `tokens`; `total` of them so far."""

    def predicted(self, done: int, samples: int) -> None:
        """`done` of this process's samples of an evaluation are predicted."""

    def evaluation(self, step: int, metrics: dict[str, float], seconds: float) -> None:
        """An evaluation is done."""

    def describe(self, recipe: Recipe) -> None:
        """What is run."""

    def pictures(self, step: int, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """RGB images of an evaluation."""

    def close(self) -> None:
        """The run ends here."""


@dataclass
class _Window:
    """Sums over the steps since the last line."""

    begun: float = field(default_factory=time.perf_counter)
    steps: int = 0
    waited: float = 0.0
    loss: float = 0.0
    grad_norm: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)

    def add(self, report: StepReport, waited: float) -> None:
        self.steps += 1
        self.waited += waited
        self.loss += report.loss
        self.grad_norm += report.grad_norm
        for name, value in report.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value


class Reporter(SilentReporter):
    """Speaks for the run.

    Args:
        console: where to; a live progress line is shown if it is a terminal.
        devices: looks at the hardware meanwhile; its figures go beside the run's.
    """

    def __init__(
        self,
        run_dir: Path,
        plan: Plan,
        log_every: int,
        first_step: int,
        console: Console | None = None,
        devices: DeviceWatch | None = None,
    ) -> None:
        self.plan = plan
        self.log_every = log_every
        self._first_step = first_step
        self.console = console or Console(file=outlive_reader(sys.stdout), soft_wrap=True, highlight=False)
        self._log = (run_dir / run_directory.LOG).open("a", encoding="utf-8", buffering=1)
        self._metrics = MetricsLog(run_dir, first_step)
        self._devices = devices
        self._window = _Window()
        self._pace = Pace()
        self._progress, self._task = self._live_line(first_step)

    def say(self, text: str) -> None:
        self._log.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n")
        self.console.print(text, markup=False)

    def step(self, step: int, report: StepReport, waited: float, ranks: Sequence[RankFigures] | None = None) -> None:
        self._window.add(report, waited)
        if log_due(step, self._first_step, self.plan, self.log_every):
            self._figures(step, report, ranks or ())
        self._progress.update(self._task, completed=step)

    def stalled(self, seconds: float) -> None:
        self._window.begun += seconds
        self._pace.aside += seconds

    def checkpoint(self, step: int, place: Path, seconds: float, stalled: float) -> None:
        size = sum(file.stat().st_size for file in place.iterdir())
        figures = {"seconds": seconds, "stalled_seconds": stalled, "bytes": size}
        self._metrics.write("checkpoint", step, figures, epoch=self._epoch(step))
        self.say(f"saved {place} ({size / 2**20:.1f} MiB in {seconds:.2f} s)")

    def fault(self, step: int, fault: StepFault, answer: str) -> None:
        self._metrics.write("fault", step, {}, reason=fault.reason, answer=answer, tokens=list(fault.tokens))
        self.say(f"step {step}: {fault.reason}; {answer}; samples: {', '.join(fault.tokens)}")

    def skipped_samples(self, step: int, tokens: list[str], total: int) -> None:
        self._metrics.write("skipped_samples", step, {}, tokens=tokens, total=total)
        self.say(f"step {step}: cannot be read, others stand in ({total} so far): {', '.join(tokens)}")

    def predicted(self, done: int, samples: int) -> None:
        self._progress.update(self._task, figures=f"evaluating {done}/{samples}")

    def evaluation(self, step: int, metrics: dict[str, float], seconds: float) -> None:
        self._metrics.write("evaluate", step, {"seconds": seconds}, epoch=self._epoch(step), metrics=metrics)
        self.say(f"evaluated in {seconds:.1f} s: NDS {metrics['NDS']:.4f}, mAP {metrics['mAP']:.4f}")
        self._window.begun += seconds
        self._pace.aside += seconds

    def describe(self, recipe: Recipe) -> None:
        plan = self.plan.model_dump(exclude={"origins", "warnings"})
        rows = [f"| {name} | {value} | {self.plan.origins.get(name, '')} |" for name, value in plan.items()]
        table = "\n".join(["| what | value | where it comes from |", "| --- | --- | --- |", *rows])
        values = {name: value for name, value in plan.items() if isinstance(value, str | int | float)}
        settings = {**values, "model": recipe.model.family, "weight_decay": recipe.optimizer.weight_decay}
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        self._metrics.describe({"plan": table, "recipe": f"```yaml\n{text}\n```"}, settings)

    def pictures(self, step: int, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        self._metrics.pictures(step, pictures)

    def close(self) -> None:
        self._progress.stop()
        if self._devices is not None:
            self._devices.close()
        self._metrics.close()
        self._log.close()

    def _epoch(self, step: int) -> float:
        return step / self.plan.steps_per_epoch

    def _figures(self, step: int, report: StepReport, ranks: Sequence[RankFigures]) -> None:
        """Record the means over the window, and begin the next."""
        window, self._window = self._window, _Window()
        seconds = self._window.begun - window.begun
        rate = window.steps * self.plan.effective_batch / seconds
        eta = (self.plan.total_steps - step) * self._pace.of_step(window.steps, seconds)
        figures = {
            "loss": window.loss / window.steps,
            "learning_rate": report.learning_rate,
            "grad_norm": window.grad_norm / window.steps,
            "samples_per_second": rate,
            "images_per_second": rate * self.plan.images_per_sample,
            "data_wait": window.waited / seconds,
            "eta_seconds": eta,
            **_of_ranks(ranks),
        }
        terms = {name: value / window.steps for name, value in window.terms.items()}
        more = {"seconds": mean_seconds(ranks), "ranks": self._with_rates(ranks)} if ranks else {}
        self._metrics.write("train", step, figures, epoch=self._epoch(step), terms=terms, **more)
        hardware = self._devices.take() if self._devices is not None else None
        if hardware is not None:
            self._metrics.write("devices", step, {}, **hardware.line())
            self._metrics.curves(step, hardware.curves())
        text = (
            f"epoch {self._epoch(step):.2f}/{self.plan.epochs}  loss {figures['loss']:.3f}  "
            f"lr {report.learning_rate:.2e}  |g| {figures['grad_norm']:.2f}  {rate:.1f} samples/s  "
            f"data wait {figures['data_wait']:.0%}  ETA {timedelta(seconds=round(eta))}"
        )
        self._progress.update(self._task, figures=text)
        if self.console.is_terminal:
            self._log.write(f"step {step}/{self.plan.total_steps}  {text}\n")
        else:
            self.say(f"step {step}/{self.plan.total_steps}  {text}")

    def _with_rates(self, ranks: Sequence[RankFigures]) -> list[RankFigures]:
        """With what each process would make if it never waited for the others, which all wait for the slowest."""
        samples = self.plan.effective_batch / len(ranks)
        rates = [samples / work if (work := own_work(one["seconds"])) > 0 else None for one in ranks]
        return [
            one
            if rate is None
            else {
                **one,
                "samples_per_second": round(rate, 4),
                "images_per_second": round(rate * self.plan.images_per_sample, 4),
            }
            for one, rate in zip(ranks, rates, strict=True)
        ]

    def _live_line(self, first_step: int) -> tuple[Progress, TaskID]:
        progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        task = progress.add_task("", total=self.plan.total_steps, completed=first_step, figures="first step ...")
        progress.start()
        return progress, task


def _of_ranks(ranks: Sequence[RankFigures]) -> dict[str, float]:
    """What the processes show together: the most memory of one, what the slowest takes, allocators that tried again."""
    figures: dict[str, float] = {}
    if ranks:
        figures["memory_bytes"] = max(one["memory_peak"] for one in ranks)
    if (slowest := straggler(ranks)) is not None:
        figures["slowest_over_median"], figures["slowest_rank"] = slowest
    retries = [one["allocator_retries"] for one in ranks if "allocator_retries" in one]
    return {**figures, "allocator_retries": sum(retries)} if retries else figures
