"""What a monitor shows: the machine and the runs, as plain data that goes over a wire as it is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from monitoring.samples import Alert, MachineSample

RunState = Literal["starting", "training", "silent", "gone", "done", "crashed", "stopped", "hung", "refused"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerdictView(_Frozen):
    """As `monitoring.verdicts.Verdict`."""

    cause: str
    share: float
    text: str
    evidence: tuple[str, ...]
    change: str
    healthy: bool


class RankView(_Frozen):
    """One process of a run."""

    rank: int
    host: str = ""
    device: str = ""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Of one step by phase, the mean over the newest lines."""


class RunView(_Frozen):
    """A run as its directory tells; what it has not told yet is `None`."""

    name: str
    directory: str
    state: RunState
    state_text: str
    recipe: str | None = None
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    epochs: int | None = None
    figures: dict[str, float] = Field(default_factory=dict)
    """Of the newest line: loss, learning_rate, grad_norm, samples_per_second, eta_seconds, ..."""
    terms: dict[str, float] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    """Of a step by phase, the mean over processes and the newest lines."""
    ranks: tuple[RankView, ...] = ()
    scores: dict[str, float] = Field(default_factory=dict)
    """Of the newest evaluation."""
    faults: int = 0
    """Steps whose loss or gradient was not finite."""
    loss_finite: bool = True
    """The newest step was."""
    idle_seconds: float | None = None
    """Since the newest line."""
    verdicts: tuple[VerdictView, ...] = ()
    alerts: tuple[Alert, ...] = ()
    hardware: dict[str, object] | None = None
    """The newest line about the hardware of the run's own machine."""


class View(_Frozen):
    """One screen."""

    time: float
    machine: MachineSample | None = None
    runs: tuple[RunView, ...] = ()
    source: str = "this machine"
    sample_seconds: float | None = None
    """Processor time that the look at the machine took."""
    problem: str | None = None
    """Why there is nothing to show."""

    def alerts(self) -> list[Alert]:
        """Of the monitor itself, the machine, and all runs."""
        own = [Alert(kind="monitor", subject=self.source, text=self.problem)] if self.problem else []
        machine = self.machine.alerts if self.machine else ()
        return [*own, *machine, *(alert for run in self.runs for alert in run.alerts)]
