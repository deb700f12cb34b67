"""Official metrics, predictions in and out, figures and reports.

`from evaluation import evaluate_nuscenes` scores a results file. Names are imported when they are first asked for, so
that `eval --help` loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.evaluate import evaluate_detector
    from evaluation.nuscenes_metrics import MetricsSummary, evaluate_nuscenes
    from evaluation.trained import load_trained

__all__ = ["MetricsSummary", "evaluate_detector", "evaluate_nuscenes", "load_trained"]

_MODULES = {
    "MetricsSummary": "evaluation.nuscenes_metrics",
    "evaluate_detector": "evaluation.evaluate",
    "evaluate_nuscenes": "evaluation.nuscenes_metrics",
    "load_trained": "evaluation.trained",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
