"""The official scores as tables of a terminal."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.console import Group
from rich.table import Table

from configs.nuscenes import CLASSES
from evaluation.figures.palette import PRETTY_NAMES
from evaluation.nuscenes_metrics import TP_ERRORS, MetricsSummary

_WIDE: Final = 112
"""Terminals of at least this width show the AP at each matching distance as well."""


def metrics_tables(summary: MetricsSummary, width: int) -> Group:
    """NDS, mAP and the five errors in one table, the classes in another, for a terminal of `width` columns."""
    return Group(_overall(summary), _per_class(summary, with_distances=width >= _WIDE))


def _overall(summary: MetricsSummary) -> Table:
    table = Table(title=f"{summary.version} · {summary.split} · {summary.samples} samples", title_justify="left")
    for name in ("NDS ↑", "mAP ↑", *(f"{name} ↓" for name in TP_ERRORS.values())):
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.4f}" for value in (summary.nds, summary.mean_ap, *summary.tp_errors.values())))
    return table


def _per_class(summary: MetricsSummary, with_distances: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    distances = list(next(iter(summary.distance_ap.values()))) if with_distances else []
    errors = [name.removeprefix("m") for name in TP_ERRORS.values()]
    for name in ("boxes", "AP", *(f"AP {float(distance):g} m" for distance in distances), *errors):
        table.add_column(name, justify="right")
    for name in CLASSES:
        of_class = summary.class_tp_errors[name]
        table.add_row(
            PRETTY_NAMES[name],
            str(summary.annotations[name]),
            f"{summary.class_ap[name]:.3f}",
            *(f"{summary.distance_ap[name][distance]:.3f}" for distance in distances),
            *(_error_text(of_class[error]) for error in errors),
        )
    return table


def _error_text(error: float | None) -> str:
    return "–" if error is None else f"{error:.3f}"
