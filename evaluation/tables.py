"""The official scores as tables of a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from configs.nuscenes import CLASSES
from evaluation.figures.palette import PRETTY_NAMES
from evaluation.nuscenes_metrics import TP_ERRORS, MetricsSummary


def metrics_tables(summary: MetricsSummary) -> Group:
    """NDS, mAP and the five errors in one table, the classes in another."""
    return Group(_overall(summary), _per_class(summary))


def _overall(summary: MetricsSummary) -> Table:
    table = Table(title=f"{summary.version} · {summary.split} · {summary.samples} samples", title_justify="left")
    for name in ("NDS ↑", "mAP ↑", *(f"{name} ↓" for name in TP_ERRORS.values())):
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.4f}" for value in (summary.nds, summary.mean_ap, *summary.tp_errors.values())))
    return table


def _per_class(summary: MetricsSummary) -> Table:
    distances = list(next(iter(summary.distance_ap.values())))
    table = Table(title="per class", title_justify="left")
    table.add_column("class")
    for name in (
        "boxes",
        "AP",
        *(f"AP {float(distance):g} m" for distance in distances),
        "ATE",
        "ASE",
        "AOE",
        "AVE",
        "AAE",
    ):
        table.add_column(name, justify="right")
    for name in CLASSES:
        errors = summary.class_tp_errors[name].values()
        table.add_row(
            PRETTY_NAMES[name],
            str(summary.annotations[name]),
            f"{summary.class_ap[name]:.3f}",
            *(f"{summary.distance_ap[name][distance]:.3f}" for distance in distances),
            *("–" if error is None else f"{error:.3f}" for error in errors),
        )
    return table
