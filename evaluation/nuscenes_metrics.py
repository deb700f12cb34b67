"""The official nuScenes detection metrics, computed by the devkit's own `DetectionEval` (detection_cvpr_2019).

The devkit is imported here alone, and only when called.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

from configs.errors import DataError, UsageError
from configs.nuscenes import CLASSES, TABLES
from configs.replaced_file import replace_text
from evaluation.results import read_results

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from nuscenes import NuScenes

    from evaluation.global_boxes import GlobalBoxes

METRICS_FILE: Final = "metrics.json"
"""Name under which a `MetricsSummary` is kept."""
SUMMARY_FILE: Final = "metrics_summary.json"
DETAILS_FILE: Final = "metrics_details.json"
"""The devkit's own files: all scores, and the curves behind them by `class:distance`."""

TP_ERRORS: Final = {
    "trans_err": "mATE",
    "scale_err": "mASE",
    "orient_err": "mAOE",
    "vel_err": "mAVE",
    "attr_err": "mAAE",
}
"""True-positive errors: the devkit's key and the name papers use (m, 1 - IoU, rad, m/s, 1 - accuracy)."""

_VERSION_OF_SPLIT: Final = {
    "train": "trainval",
    "val": "trainval",
    "train_detect": "trainval",
    "train_track": "trainval",
    "mini_train": "mini",
    "mini_val": "mini",
    "test": "test",
}
"""How the version of the data set ends that an official split belongs to."""


class MetricsSummary(BaseModel):
    """The scores of one results file on one split, each in the benchmark's definition."""

    model_config = ConfigDict(frozen=True)

    nds: float
    mean_ap: float
    tp_errors: dict[str, float]
    """mATE, mASE, mAOE, mAVE, mAAE."""
    class_ap: dict[str, float]
    """AP of each class, averaged over the matching distances."""
    distance_ap: dict[str, dict[str, float]]
    """AP of each class at each matching distance in metres ("0.5", "1.0", "2.0", "4.0")."""
    class_tp_errors: dict[str, dict[str, float | None]]
    """ATE, ASE, AOE, AVE, AAE of each class; `None` where the benchmark leaves one out."""
    version: str
    split: str
    samples: int
    annotations: dict[str, int]
    """Annotations of each class that count (in range, with points)."""
    results: str
    """The results file that was scored."""

    def as_scalars(self) -> dict[str, float]:
        """`NDS`, `mAP`, the five errors and `AP/<class>`, for logs."""
        per_class = {f"AP/{name}": value for name, value in self.class_ap.items()}
        return {"NDS": self.nds, "mAP": self.mean_ap, **self.tp_errors, **per_class}


def evaluate_nuscenes(
    results_path: Path | str, dataroot: Path | str, version: str, split: str, out_dir: Path | str
) -> MetricsSummary:
    """Score a results file on an official split or on one of the data set's `splits.json`.

    Writes `metrics_summary.json` and `metrics_details.json` as the devkit does (the latter holds the curves).

    Raises:
        DataError: the data set, the split or its annotations are missing, the results file breaks the format, or it
            lacks samples of the split.
    """
    results_path, dataroot, out_dir = Path(results_path), Path(dataroot), Path(out_dir)
    predictions = read_results(results_path)
    nusc = _load_tables(dataroot, version)
    tokens = _split_tokens(nusc, split)
    _check_samples(results_path, predictions, tokens, split)
    scores, curves, annotations = _run_devkit(nusc, results_path, split, predictions)
    replace_text(out_dir / SUMMARY_FILE, json.dumps(scores, indent=2))
    replace_text(out_dir / DETAILS_FILE, json.dumps(curves))
    return MetricsSummary(
        nds=scores["nd_score"],
        mean_ap=scores["mean_ap"],
        tp_errors={TP_ERRORS[name]: value for name, value in scores["tp_errors"].items()},
        class_ap={name: scores["mean_dist_aps"][name] for name in CLASSES},
        distance_ap={name: {str(d): ap for d, ap in scores["label_aps"][name].items()} for name in CLASSES},
        class_tp_errors={name: _named_errors(scores["label_tp_errors"][name]) for name in CLASSES},
        version=version,
        split=split,
        samples=len(tokens),
        annotations=annotations,
        results=str(results_path),
    )


def _load_tables(dataroot: Path, version: str) -> NuScenes:
    missing = [name for name in TABLES if not (dataroot / version / f"{name}.json").is_file()]
    if missing:
        raise DataError(
            f"{dataroot / version} is not a nuScenes data set: {missing[0]}.json is missing"
            + (f", and {len(missing) - 1} more tables" if len(missing) > 1 else ""),
            fix="check `--data-root` and `--version`, or run `bevnext-sam2 data check`",
        )
    from nuscenes import NuScenes

    try:
        return NuScenes(version=version, dataroot=str(dataroot), verbose=False)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"the tables in {dataroot / version} cannot be read: {error!r}", fix="run `bevnext-sam2 data check`"
        ) from error


def _split_tokens(nusc: NuScenes, split: str) -> set[str]:
    """Tokens of the samples of a split, by the devkit's rules."""
    from nuscenes.utils.splits import create_splits_scenes

    official = create_splits_scenes()
    custom = _custom_splits(Path(nusc.dataroot) / nusc.version / "splits.json")
    named = official.get(split, custom.get(split))
    if named is None or not nusc.version.endswith(_VERSION_OF_SPLIT.get(split, "")):
        known = [*custom, *(name for name, ending in _VERSION_OF_SPLIT.items() if nusc.version.endswith(ending))]
        raise UsageError(f"{nusc.version} has no split {split!r}", fix=f"choose one of: {', '.join(known) or 'none'}")
    scenes = {scene["token"] for scene in nusc.scene if scene["name"] in set(named)}
    tokens = {sample["token"] for sample in nusc.sample if sample["scene_token"] in scenes}
    if not tokens:
        raise DataError(
            f"none of the scenes of split {split!r} is in the tables of {nusc.version}",
            fix="run `bevnext-sam2 data check`, or name another split with `--split`",
        )
    return tokens


def _custom_splits(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    try:
        splits = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", fix="make it a map of split names to scene names") from error
    return dict(splits)


def _check_samples(path: Path, predictions: Collection[str], tokens: set[str], split: str) -> None:
    missing, foreign = sorted(tokens - set(predictions)), sorted(set(predictions) - tokens)
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(tokens)} samples of split {split!r} (first: {missing[0]})",
            fix="predict the whole split with `bevnext-sam2 eval`, or name the split the file was made for",
        )
    if foreign:
        raise DataError(
            f"{path} holds {len(foreign)} samples that are not in split {split!r} (first: {foreign[0]})",
            fix="name the split the file was made for with `--split`",
        )


def _run_devkit(
    nusc: NuScenes, results_path: Path, split: str, predictions: Mapping[str, GlobalBoxes]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """The devkit's summary, its curves, and how many annotations of each class counted."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    with tempfile.TemporaryDirectory() as scratch:
        scored = (
            results_path
            if any(len(boxes) for boxes in predictions.values())
            else _with_one_unmatchable_box(results_path, Path(scratch))
        )
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # the devkit's progress bar
                evaluation = DetectionEval(
                    nusc, config_factory("detection_cvpr_2019"), str(scored), split, scratch, verbose=False
                )
        except Exception as error:  # the devkit raises bare exceptions and assertions for unusable annotations
            raise DataError(
                f"the nuscenes-devkit cannot evaluate split {split!r} of {nusc.version}: {error}",
                fix="take a split that has annotations, or run `bevnext-sam2 data check`",
            ) from error
        metrics, curves = evaluation.evaluate()
    counts = Counter(box.detection_name for box in evaluation.gt_boxes.all)
    return {**metrics.serialize(), "meta": evaluation.meta}, curves.serialize(), {n: counts[n] for n in CLASSES}


def _with_one_unmatchable_box(results_path: Path, folder: Path) -> Path:
    """A copy of an empty results file with one box far out of range.

    `DetectionEval` fails on a file without any box, which an untrained detector may well write. Its distance filter
    removes this one, and the scores are those of no detections.
    """
    content = json.loads(results_path.read_bytes())
    token = next(iter(content["results"]))
    content["results"][token] = [
        {
            "sample_token": token,
            "translation": [1e9, 1e9, 0.0],
            "size": [1.0, 1.0, 1.0],
            "rotation": [1.0, 0.0, 0.0, 0.0],
            "velocity": [0.0, 0.0],
            "detection_name": "car",
            "detection_score": 0.0,
            "attribute_name": "",
        }
    ]
    path = folder / "results.json"
    path.write_text(json.dumps(content))
    return path


def _named_errors(errors: Mapping[str, float]) -> dict[str, float | None]:
    return {TP_ERRORS[name].removeprefix("m"): None if math.isnan(value) else value for name, value in errors.items()}
