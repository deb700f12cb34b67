"""One HTML page of a run: everything inside it, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from configs import run_directory
from configs.nuscenes import CLASSES
from configs.replaced_file import replace_text
from evaluation.figures.charts import draw_class_ap, draw_curve, draw_precision_recall, to_svg
from evaluation.figures.palette import CLASS_COLOURS, PRETTY_NAMES
from evaluation.nuscenes_metrics import TP_ERRORS
from evaluation.run_record import RunRecord, Scores, read_run
from monitoring.run_reader import RunReader

_TEMPLATE: Final = "report.html.j2"
_PICTURE_WIDTHS: Final = {".jpg": 1800, ".png": 1000}
"""Widest embedded camera sheet and view from above, pixels."""
_KINDS: Final = {"cameras": "the six cameras", "bev": "the same sample from above"}
_LARGEST_FILM: Final = 32 << 20
_PACKAGES: Final = ("torch", "torchvision", "numpy", "nuscenes-devkit", "pyarrow", "safetensors", "bevnext-sam2")


@dataclass(frozen=True, slots=True)
class _Media:
    """A picture or film inside the page."""

    name: str
    source: str
    """data: URL"""
    is_bev: bool = False


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the page of a run directory to `out`, by default `report.html` in it.

    Raises:
        UsageError: not a run directory.
        DataError: a file of the run is damaged.
    """
    record = read_run(run)
    return replace_text(out or run / run_directory.REPORT, render(record))


def render(record: RunRecord) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    latest = record.scores[-1] if record.scores else None
    return environment.get_template(_TEMPLATE).render(
        run=record,
        latest=latest,
        tiles=list(_tiles(record, latest)),
        curves=[_svg(figure) for figure in _curves(record)],
        verdicts=RunReader(record.directory).read().verdicts,
        **_score_charts(latest),
        classes=CLASSES,
        colours=CLASS_COLOURS,
        pretty=PRETTY_NAMES,
        error_names=list(TP_ERRORS.values()),
        pictures=[_picture(path) for path in record.pictures],
        films=[_Media(path.stem, _film(path)) for path in record.films if path.stat().st_size <= _LARGEST_FILM],
        plan=_plan_rows(record),
        environment=list(_environment(record)),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _tiles(record: RunRecord, latest: Scores | None) -> Iterable[tuple[str, str]]:
    """The numbers one looks for first."""
    if latest is not None:
        yield "NDS", f"{latest.summary.nds:.3f}"
        yield "mAP", f"{latest.summary.mean_ap:.3f}"
    if record.training:
        first, last = record.training[0], record.training[-1]
        of = f" / {record.plan.total_steps}" if record.plan else ""
        yield "steps", f"{last['step']}{of}"
        yield "epochs", f"{last['epoch']:.1f}"
        yield "last loss", f"{last['loss']:.3f}"
        yield "time", _duration(last["time"] - first["time"])
        yield "samples/s", f"{last['samples_per_second']:.1f}"
    if record.plan is not None:
        yield "devices", f"{record.plan.devices} × {record.plan.device_kind.upper()}"


def _curves(record: RunRecord) -> Iterable[Figure]:
    lines = record.training
    steps = [line["step"] for line in lines]
    if len(lines) > 1:
        yield draw_curve(steps, [line["loss"] for line in lines], "training loss", smooth=True, logarithmic=True)
        yield draw_curve(steps, [line["learning_rate"] for line in lines], "learning rate")
        yield draw_curve(steps, [line["grad_norm"] for line in lines], "gradient norm", smooth=True, logarithmic=True)
        yield draw_curve(steps, [line["samples_per_second"] for line in lines], "samples per second", smooth=True)
        yield draw_curve(steps, [100 * line["data_wait"] for line in lines], "time waiting for data (%)", smooth=True)
    if len(record.evaluations) > 1:
        at = [line["step"] for line in record.evaluations]
        for name in ("NDS", "mAP"):
            yield draw_curve(at, [line["metrics"][name] for line in record.evaluations], f"{name} on held-out scenes")


def _score_charts(latest: Scores | None) -> dict[str, Markup]:
    if latest is None:
        return {}
    precision_recall = draw_precision_recall(latest.details, latest.summary)
    return {"class_ap": _svg(draw_class_ap(latest.summary)), "precision_recall": _svg(precision_recall)}


def _svg(figure: Figure) -> Markup:
    return Markup(to_svg(figure))


def _plan_rows(record: RunRecord) -> list[tuple[str, str, str]]:
    """Name, value and origin of everything the plan decided."""
    if record.plan is None:
        return []
    values = record.plan.model_dump(exclude={"origins", "warnings"})
    return [(name.replace("_", " "), _text(value), record.plan.origins.get(name, "")) for name, value in values.items()]


def _environment(record: RunRecord) -> Iterable[tuple[str, str]]:
    yield "run directory", str(record.directory.resolve())
    yield "report written on", f"{platform.node()}, {platform.platform()}"
    yield "Python", sys.version.split()[0]
    for package in _PACKAGES:
        yield package, _package_version(package)
    if record.plan is not None:
        yield "devices of the run", ", ".join(record.plan.device_names)


def _package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _picture(path: Path) -> _Media:
    """The picture, not wider than a page needs."""
    with Image.open(path) as image:
        shown = image.convert("RGB")
    width = min(shown.width, _PICTURE_WIDTHS[path.suffix])
    shown = shown.resize((width, round(shown.height * width / shown.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=90, subsampling=0)
    name, _, kind = path.stem.rpartition("_")
    return _Media(f"{name}: {_KINDS.get(kind, kind)}", _data_url("image/jpeg", buffer.getvalue()), kind == "bev")


def _film(path: Path) -> str:
    return _data_url("video/mp4", path.read_bytes())


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _text(value: object) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
