"""Charts of a run and of its scores: training curves, AP per class, precision over recall. Vector graphics."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from configs.nuscenes import CLASSES
from evaluation.figures.palette import CLASS_COLOURS, PRETTY_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evaluation.nuscenes_metrics import MetricsSummary

_INK: Final = "#20242b"
_SOFT: Final = "#9aa1aa"
_LINE: Final = "#1e88ff"
_DISTANCE_STYLES: Final[dict[str, tuple[float, tuple[float, ...]]]] = {
    "0.5": (0, (1, 1.4)),
    "1.0": (0, (3, 1.4)),
    "2.0": (0, ()),
    "4.0": (0, (6, 1.2, 1, 1.2)),
}
"""Dashes of each matching distance; none for the 2 m at which the errors are measured."""
_WINDOW: Final = 0.06
"""Share of a curve that its moving average spans."""


def draw_curve(
    steps: Sequence[float], values: Sequence[float], label: str, *, smooth: bool = False, logarithmic: bool = False
) -> Figure:
    """One quantity over optimiser steps; `smooth` adds a moving average over the pale raw values."""
    figure = Figure(figsize=(4.2, 2.4), layout="constrained")
    axes = figure.add_subplot()
    if smooth and len(values) > 2:
        axes.plot(steps, values, color=_LINE, alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smoothed(values), color=_LINE, linewidth=1.4)
    else:
        axes.plot(steps, values, color=_LINE, linewidth=1.4, marker="o" if len(values) < 40 else None, markersize=2.5)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("optimiser step", fontsize=8)
    axes.set_title(label, fontsize=9, loc="left", color=_INK)
    _plain(axes)
    return figure


def draw_class_ap(summary: MetricsSummary) -> Figure:
    """AP of each class as a bar, with a mark for each matching distance."""
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    names = sorted(CLASSES, key=lambda name: summary.class_ap[name])
    for place, name in enumerate(names):
        ap = summary.class_ap[name]
        axes.barh(place, ap, height=0.62, color=CLASS_COLOURS[name], alpha=0.85)
        axes.text(max(summary.distance_ap[name].values()) + 0.015, place, f"{ap:.3f}", va="center", fontsize=7)
        for distance, at_distance in summary.distance_ap[name].items():
            ends = [place - 0.31, place + 0.31]
            axes.plot([at_distance] * 2, ends, color=_INK, linewidth=0.9, linestyle=_DISTANCE_STYLES[distance])
    axes.set_yticks(range(len(names)), [PRETTY_NAMES[name] for name in names], fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision", fontsize=8)
    axes.set_title(f"AP per class, mAP {summary.mean_ap:.3f}", fontsize=9, loc="left", color=_INK)
    _plain(axes)
    _distance_legend(figure)
    return figure


def draw_precision_recall(details: Mapping[str, Mapping[str, Any]], summary: MetricsSummary) -> Figure:
    """Precision over recall, one panel a class, one line a matching distance.

    Args:
        details: content of the devkit's `metrics_details.json`, keys `class:distance`.
    """
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panels = figure.subplots(2, 5, sharex=True, sharey=True)
    for axes, name in zip(panels.flat, CLASSES, strict=True):
        for distance, style in _DISTANCE_STYLES.items():
            curve = details[f"{name}:{distance}"]
            axes.plot(curve["recall"], curve["precision"], color=CLASS_COLOURS[name], linestyle=style, linewidth=1.2)
        axes.set_title(f"{PRETTY_NAMES[name]}  {summary.class_ap[name]:.2f}", fontsize=8, loc="left", color=_INK)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        _plain(axes)
    for axes in panels[-1]:
        axes.set_xlabel("recall", fontsize=8)
    for axes in panels[:, 0]:
        axes.set_ylabel("precision", fontsize=8)
    _distance_legend(figure)
    return figure


def _distance_legend(figure: Figure) -> None:
    lines = [
        Line2D([], [], color=_INK, linewidth=1.2, linestyle=style, label=f"{float(distance):g} m")
        for distance, style in _DISTANCE_STYLES.items()
    ]
    figure.legend(
        handles=lines, title="matching distance", loc="outside lower center", ncols=4, frameon=False, fontsize=7,
        title_fontsize=7,
    )  # fmt: skip


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that looks the same everywhere: letters are outlines, ids are stable."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "bevnext-sam2"}):
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Centred moving average, which does not lag behind; its window shrinks towards both ends."""
    reach = max(1, round(len(values) * _WINDOW / 2))
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _plain(axes: Axes) -> None:
    """Hairline axes on two sides, a pale grid, small ticks."""
    axes.grid(color="#e8eaee", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=7, width=0.6, length=3, color=_SOFT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
        spine.set_color(_SOFT)
