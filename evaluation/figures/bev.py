"""The scene from above: LiDAR points, boxes, range rings, the ego car; metric axes, forward is up."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from matplotlib.patheffects import withStroke

from configs.nuscenes import CLASSES
from evaluation.figures.palette import CLASS_COLOURS, PRETTY_NAMES, TRUTH_INK
from evaluation.figures.projection import transform
from evaluation.figures.sample_view import SampleView
from evaluation.figures.style import Style, by_class
from evaluation.global_boxes import FloatArray, GlobalBoxes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANGE: Final = 51.2
"""Half side of the drawn square in metres: the detection range of BEVDet's family."""

_EGO_BODY: Final = (-1.0, 3.08, 0.865)
"""Rear, front and half width of the nuScenes car (Renault Zoe, 4.08 x 1.73 m) from the rear axle, metres."""
_POINT_COLOURS: Final = LinearSegmentedColormap.from_list("points", ["#b9c0c9", "#8fa6c0", "#4f7396"])
_POINT_HEIGHTS: Final = (-0.5, 3.5)  # metres above ground that the point colours span
_FLOOR: Final = [2, 3, 7, 6]  # corners of `GlobalBoxes.corners` around the bottom face
_RING_STEP: Final = 10
_VELOCITY_SECONDS: Final = 1.0  # length of a velocity arrow in seconds of travel
_MIN_SPEED: Final = 0.5
_ROOM_FOR_NUMBER: Final = 3.5  # metres along the paper's ordinate that a box needs to hold its number


def draw_bev(
    view: SampleView,
    predictions: GlobalBoxes,
    truth: GlobalBoxes | None = None,
    *,
    inches: float = 6.0,
    style: Style | None = None,
    counted: str = "predicted",
) -> Figure:
    """A square figure with title and legend; `to_bytes` or `to_pixels` turns it into a file or an image.

    Args:
        style: of the predictions. Default: by class. One with numbers puts them beside the boxes, and needs no legend.
        counted: what the predictions are called.
    """
    style = style or by_class(predictions)
    figure = Figure(figsize=(inches, inches * 1.02), layout="constrained")
    axes = figure.add_subplot()
    _draw_ground(axes)
    _draw_points(axes, view.points)
    if truth is not None:
        _draw_truth(axes, view, truth)
    _draw_predictions(axes, view, predictions, style)
    _finish(axes, view.title, _counts(predictions, truth, counted))
    if style.numbers is None:
        _add_legend(figure, with_truth=truth is not None)
    return figure


def to_pixels(figure: Figure, height: int) -> npt.NDArray[np.uint8]:
    """The figure as uint8 RGB of `height` pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=height / figure.get_figheight())
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, -1, 4)[..., :3]


def to_bytes(figure: Figure, kind: str, dpi: int = 300) -> bytes:
    """The figure as a `png`, `pdf` or `svg` file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi)
    return buffer.getvalue()


def _draw_ground(axes: Axes) -> None:
    for radius in range(_RING_STEP, int(RANGE) + 1, _RING_STEP):
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor="#d5d9de", linewidth=0.6, zorder=0))
        axes.text(
            -0.707 * radius, 0.707 * radius, f"{radius} m",
            ha="center", va="center", fontsize=6, color="#7d858f", zorder=1.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    rear, front, side = _EGO_BODY
    outline = np.array([[rear, side], [front - 0.9, side], [front, 0.0], [front - 0.9, -side], [rear, -side]])
    axes.add_patch(Polygon(_on_paper(outline), facecolor="#20242b", edgecolor="white", linewidth=0.6, zorder=4))


def _draw_points(axes: Axes, points: FloatArray) -> None:
    inside = points[np.abs(points[:, :2]).max(axis=1) < RANGE]
    paper = _on_paper(inside[:, :2])
    low, high = _POINT_HEIGHTS
    axes.scatter(
        paper[:, 0], paper[:, 1], c=inside[:, 2], cmap=_POINT_COLOURS, vmin=low, vmax=high,
        s=0.5, linewidths=0, rasterized=True, zorder=1,
    )  # fmt: skip


def _draw_truth(axes: Axes, view: SampleView, boxes: GlobalBoxes) -> None:
    outlines, headings = _footprints(view, boxes)
    axes.add_collection(
        PolyCollection(list(outlines), facecolors="#2b2f3618", edgecolors=TRUTH_INK, linewidths=0.7, zorder=2)
    )
    axes.add_collection(LineCollection(list(headings), colors=TRUTH_INK, linewidths=0.7, zorder=2))


def _draw_predictions(axes: Axes, view: SampleView, boxes: GlobalBoxes, style: Style) -> None:
    outlines, headings = _footprints(view, boxes)
    colours = list(style.colours)
    if style.numbers is not None:
        _write_numbers(axes, outlines, style)
    tints = [f"{colour}30" for colour in colours]
    axes.add_collection(PolyCollection(list(outlines), facecolors=tints, edgecolors=colours, linewidths=1.2, zorder=3))
    axes.add_collection(LineCollection(list(headings), colors=colours, linewidths=1.2, zorder=3))
    moving = np.flatnonzero(np.linalg.norm(boxes.velocities, axis=1) > _MIN_SPEED)
    if len(moving):
        starts = headings[moving, 1]
        global_velocity = np.concatenate([boxes.velocities[moving], np.zeros((len(moving), 1))], axis=1)
        steps = _on_paper((global_velocity @ view.ego_from_global[:3, :3].T)[:, :2]) * _VELOCITY_SECONDS
        axes.quiver(
            *starts.T, *steps.T, color=[colours[i] for i in moving], angles="xy", scale_units="xy", scale=1,
            width=0.0022, headwidth=5, headlength=5, zorder=3.5,
        )  # fmt: skip


def _write_numbers(axes: Axes, outlines: FloatArray, style: Style) -> None:
    """In the middle of large boxes, right above small ones."""
    for outline, number, colour in zip(outlines, style.numbers or (), style.colours, strict=True):
        place, is_large = outline.mean(axis=0), np.ptp(outline[:, 1]) > _ROOM_FOR_NUMBER
        height, side = (place[1], "center") if is_large else (outline[:, 1].max() + 0.3, "bottom")
        if np.abs(place).max() < RANGE - 1:
            axes.text(
                place[0], height, number, ha="center", va=side, fontsize=6, color=colour, fontweight="bold", zorder=5,
                path_effects=[withStroke(linewidth=1.5, foreground="white")],
            )  # fmt: skip


def _footprints(view: SampleView, boxes: GlobalBoxes) -> tuple[FloatArray, FloatArray]:
    """Bottom faces `[n, 4, 2]` and lines from centre to front `[n, 2, 2]`, in paper coordinates."""
    corners = _on_paper(transform(view.ego_from_global, boxes.corners())[..., :2])
    floor = corners[:, _FLOOR]
    headings = np.stack([floor.mean(axis=1), corners[:, [2, 3]].mean(axis=1)], axis=1)
    return floor, headings


def _on_paper(forward_left: FloatArray) -> FloatArray:
    """(x forward, y left) -> (abscissa y, ordinate x); the abscissa runs from left to right downwards in y."""
    return forward_left[..., ::-1]


def _counts(predictions: GlobalBoxes, truth: GlobalBoxes | None, counted: str) -> str:
    annotated = "" if truth is None else f" · {len(truth)} annotated"
    return f"{len(predictions)} {counted}{annotated}"


def _finish(axes: Axes, title: str, counts: str) -> None:
    axes.set_xlim(RANGE, -RANGE)
    axes.set_ylim(-RANGE, RANGE)
    axes.set_aspect("equal")
    axes.set_xlabel("y, left (m)", fontsize=8)
    axes.set_ylabel("x, forward (m)", fontsize=8)
    axes.tick_params(labelsize=7, width=0.6, length=3)
    axes.set_title(title, fontsize=9, loc="left", color="#20242b")
    axes.set_title(counts, fontsize=8, loc="right", color="#7d858f")
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color("#9aa1aa")


def _add_legend(figure: Figure, with_truth: bool) -> None:
    """All classes, whether present or not, so that the figures of a series are laid out alike."""

    def swatch(colour: str, name: str, face: str) -> Line2D:
        style: dict[str, Any] = {"marker": "s", "markersize": 6, "linestyle": "none"}
        return Line2D([], [], markerfacecolor=face, markeredgecolor=colour, label=name, **style)

    handles = [swatch(CLASS_COLOURS[name], PRETTY_NAMES[name], f"{CLASS_COLOURS[name]}30") for name in CLASSES]
    if with_truth:
        handles.append(swatch(TRUTH_INK, "ground truth", "#2b2f3618"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=int(figure.get_figwidth()), frameon=False, fontsize=7,
        handletextpad=0.2, columnspacing=1.2, borderpad=0.1,
    )  # fmt: skip
