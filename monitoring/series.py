"""Views as Prometheus series. Names and labels are stable: dashboards and alerts of others rest on them.

`bevnext_sam2_device_*`, `bevnext_sam2_host_*`, `bevnext_sam2_run_*`, `bevnext_sam2_alert`; what is missing has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitoring.fields import BYTES, CLOCK_REASONS, DEVICE, HOST, PERCENT, Figure
from monitoring.samples import DeviceSample, MachineSample
from monitoring.view import RunView, View

PREFIX: Final = "bevnext_sam2"
_UNITS: Final = {
    PERCENT: "percent", BYTES: "bytes", "B/s": "bytes_per_second", "W": "watts", "J": "joules", "°C": "celsius",
    "MHz": "megahertz",
}  # fmt: skip
_RUN: Final = ("machine", "run")
_DEVICE: Final = ("machine", "device", "kind", "uuid", "name")
_RUN_FIGURES: Final = {
    "loss": "loss of the newest line",
    "learning_rate": "learning rate",
    "grad_norm": "norm of the gradient before clipping",
    "samples_per_second": "samples per second of all devices",
    "images_per_second": "images per second of all devices",
    "eta_seconds": "seconds to the end of the plan",
    "memory_bytes": "most memory that one process held",
    "slowest_over_median": "own work of the slowest process over the median's",
    "allocator_retries": "times that allocators had to give memory back, all processes",
}
STATES: Final = ("starting", "training", "silent", "gone", "done", "crashed", "stopped", "hung", "refused")


class ViewCollector(Collector):
    """Gives the series of the newest view."""

    def __init__(self) -> None:
        self.view: View | None = None

    def collect(self) -> Iterator[Metric]:
        """The series, none before the first view."""
        view = self.view
        if view is None:
            return
        if view.machine is not None:
            yield from _devices(view.machine)
            yield from _host(view.machine)
        machine = view.machine.host.name if view.machine else ""
        yield from _runs(view.runs, machine)
        alerts = GaugeMetricFamily(f"{PREFIX}_alert", "1 while it holds", labels=("machine", "kind", "subject"))
        for key in sorted({(alert.kind, alert.subject) for alert in view.alerts()}):
            alerts.add_metric((machine, *key), 1)
        yield alerts
        if view.sample_seconds is not None:
            cost = GaugeMetricFamily(f"{PREFIX}_sample_cpu_seconds", "processor time of one look", labels=("machine",))
            cost.add_metric((machine,), view.sample_seconds)
            yield cost


def series_name(group: str, figure: Figure) -> str:
    """Such as `bevnext_sam2_device_memory_used_bytes`."""
    unit = _UNITS.get(figure.unit)
    return f"{PREFIX}_{group}_{figure.name}" + (f"_{unit}" if unit else "")


def _devices(machine: MachineSample) -> Iterator[Metric]:
    labels = {one.uuid: _labels(machine, one) for one in machine.devices}
    for figure in DEVICE.values():
        if figure.name == "clock_reasons":
            continue
        family: Metric
        name = series_name("device", figure)
        if figure.name == "energy":
            family = CounterMetricFamily(name, figure.what, labels=_DEVICE)
        else:
            family = GaugeMetricFamily(name, figure.what, labels=_DEVICE)
        for one in machine.devices:
            if figure.name in one.values:
                family.add_metric(labels[one.uuid], one.values[figure.name])
        yield family
    held = GaugeMetricFamily(f"{PREFIX}_device_clock_held", "1: clocks are held down so", labels=(*_DEVICE, "reason"))
    up = GaugeMetricFamily(f"{PREFIX}_device_up", "0: it answered before and is lost", labels=_DEVICE)
    lost = {alert.subject for alert in machine.alerts if alert.kind == "gpu_lost"}
    for one in machine.devices:
        up.add_metric(labels[one.uuid], float(f"GPU {one.index}" not in lost and "NPUs" not in lost))
        for bit, reason in CLOCK_REASONS.items() if "clock_reasons" in one.values else ():
            held.add_metric((*labels[one.uuid], reason), float(bool(int(one.values["clock_reasons"]) & bit)))
    yield from (held, up)


def _labels(machine: MachineSample, one: DeviceSample) -> tuple[str, ...]:
    return machine.host.name, str(one.index), one.kind, one.uuid, one.name


def _host(machine: MachineSample) -> Iterator[Metric]:
    for figure in HOST.values():
        family = GaugeMetricFamily(series_name("host", figure), figure.what, labels=("machine",))
        if figure.name in machine.host.values:
            family.add_metric((machine.host.name,), machine.host.values[figure.name])
        yield family


def _runs(runs: tuple[RunView, ...], machine: str) -> Iterator[Metric]:
    for name, what, labels, points in _RUN_SERIES:
        family = GaugeMetricFamily(f"{PREFIX}_run_{name}", what, labels=(*_RUN, *labels))
        for run in runs:
            for values, value in points(run):
                family.add_metric((machine, run.name, *values), value)
        yield family


def _plain(read: Callable[[RunView], float | None]) -> Callable[[RunView], Points]:
    """One point, or none where there is no value."""

    def points(run: RunView) -> Points:
        value = read(run)
        return [] if value is None else [((), float(value))]

    return points


def _by_name(read: Callable[[RunView], Mapping[str, float]]) -> Callable[[RunView], Points]:
    return lambda run: [((name,), value) for name, value in read(run).items()]


def _shares(run: RunView) -> dict[str, float]:
    """Phases of a step over the step; evaluations are not part of it."""
    seconds = {phase: value for phase, value in run.seconds.items() if phase != "evaluation"}
    whole = sum(seconds.values())
    return {phase: value / whole for phase, value in seconds.items()} if whole else {}


def _figure(name: str) -> Callable[[RunView], float | None]:
    return lambda run: run.figures.get(name)


Points = Sequence[tuple[tuple[str, ...], float]]
_RUN_SERIES: Final[tuple[tuple[str, str, tuple[str, ...], Callable[[RunView], Points]], ...]] = (
    ("state", "1 for the state the run is in", ("state",),
     lambda run: [((state,), float(run.state == state)) for state in STATES]),
    ("active", "1 while the run is expected to make progress", (),
     _plain(lambda run: run.state in ("training", "silent"))),
    ("loss_finite", "0: the newest step was not finite", (), _plain(lambda run: run.loss_finite)),
    ("idle_seconds", "since the log of the run grew", (), _plain(lambda run: run.idle_seconds)),
    ("faults", "steps that were not finite", (), _plain(lambda run: run.faults)),
    ("step", "optimiser steps done", (), _plain(lambda run: run.step)),
    ("total_steps", "optimiser steps of the plan", (), _plain(lambda run: run.total_steps)),
    ("epoch", "epochs done", (), _plain(lambda run: run.epoch)),
    *((name, what, (), _plain(_figure(name))) for name, what in _RUN_FIGURES.items()),
    ("loss_term", "one term of the loss", ("term",), _by_name(lambda run: run.terms)),
    ("step_seconds", "seconds of a step by phase, mean over processes", ("phase",), _by_name(lambda run: run.seconds)),
    ("step_share", "share of a step by phase, 0 to 1", ("phase",), _by_name(_shares)),
    ("rank_step_seconds", "seconds of a step by phase of one process", ("rank", "phase"),
     lambda run: [((str(one.rank), phase), value) for one in run.ranks for phase, value in one.seconds.items()]),
    ("score", "of the newest evaluation", ("metric",), _by_name(lambda run: run.scores)),
    ("verdict_share", "share of time that a cause costs, as estimated", ("cause",),
     _by_name(lambda run: {found.cause: found.share for found in reversed(run.verdicts)})),  # the costliest of a cause
)  # fmt: skip
