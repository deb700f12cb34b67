"""What masks say about the scores of detections: one logistic regression per class, fitted on training scenes.

Average precision depends on the order of the scores alone, so the scores are calibrated by what was counted, not
changed by a rule made up. An object that no camera sees gets the class's mean in all that masks say: it is not
punished for being hidden.

Shape legend: K objects, P pairs of an object and a camera, F features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.errors import UsageError
from configs.nuscenes import CLASSES
from configs.replaced_file import replace_text
from integration.sam2_weights import digest

FEATURES: Final = ("score", "quality", "presence", "visible", "truncation", "occlusion", "depth", "views")
"""Log-odds of the score; of the object's best view: quality of the mask, log-odds of presence, share of the outline
that the mask fills, truncation, occlusion, logarithm of the depth; number of views."""
FORMAT: Final = "bevnext-sam2 score feedback 1"
FEWEST: Final = 20
"""True, and false, detections of a class; with fewer it takes the regression of all classes together."""
RIDGE: Final = 1.0
STEPS: Final = 50
_LIMIT: Final = 1e-4
_ALL: Final = "all"
_FIX: Final = "make it again with `bevnext-sam2 sam2 calibrate`"

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Regression:
    """Log-odds of a detection being true: `bias + sum(weights * (features - mean) / deviation)`."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def __call__(self, features: FloatArray) -> FloatArray:
        """Chances `[K]` of features `[K, F]`; missing ones (NaN) count as the mean."""
        standard = np.nan_to_num((features - np.array(self.mean)) / np.array(self.deviation))
        chances: FloatArray = _chance(standard @ np.array(self.weights) + self.bias)
        return chances


@dataclass(frozen=True, slots=True)
class ScoreFeedback:
    """The regressions of the classes, and of all together for those with too few examples."""

    classes: Mapping[str, Regression]
    sam2_sha256: str
    """Of the weights that the masks were made with (`sam2_weights.digest`)."""

    def scores(self, features: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
        """Calibrated scores `[K]`, 0 to 1."""
        found = np.zeros(len(labels))
        for label in np.unique(labels):
            regression = self.classes.get(CLASSES[label], self.classes[_ALL])
            found[labels == label] = regression(features[labels == label])
        return found

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        content = {
            "format": FORMAT,
            "features": FEATURES,
            "sam2_sha256": self.sam2_sha256,
            "classes": {name: asdict(regression) for name, regression in self.classes.items()},
        }
        replace_text(path, json.dumps(content, indent=1) + "\n")


def load_feedback(path: Path) -> ScoreFeedback:
    """What `save` wrote. Raises `UsageError` if there is none, or something else."""
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT or tuple(content["features"]) != FEATURES:
            raise ValueError("another format")  # noqa: TRY301
        classes = {
            name: Regression(
                _numbers(item["mean"]), _numbers(item["deviation"]), _numbers(item["weights"]), float(item["bias"])
            )
            for name, item in content["classes"].items()
        }
        if _ALL not in classes:
            raise ValueError(f"no regression of {_ALL!r} classes")  # noqa: TRY301
        return ScoreFeedback(classes, str(content["sam2_sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"score feedback {path} cannot be used: {error}", fix=_FIX) from error


def feedback_for(segmenter: nn.Module, path: Path) -> ScoreFeedback:
    """As `load_feedback`. Raises `UsageError` if it was made with masks of other weights than the segmenter's."""
    feedback = load_feedback(path)
    if feedback.sam2_sha256 != digest(segmenter).hex():
        raise UsageError(f"score feedback {path} was made with other weights of SAM 2", fix=_FIX)
    return feedback


def fused_scores(found: Mapping[str, Any], feedback: ScoreFeedback | None) -> Tensor:
    """`[K]`: calibrated scores of what `BEVSAMFusion.segment` found; without feedback the detector's as they are."""
    scores: Tensor = found["scores"]
    if feedback is None:
        return scores
    fused = feedback.scores(feedback_features(found), found["labels"].numpy())
    return torch.from_numpy(fused).to(scores)


def feedback_features(found: Mapping[str, Any]) -> FloatArray:
    """Features float64 `[K, F]` of what `BEVSAMFusion.segment` found; NaN in all but the first for objects without a
    view."""
    features = np.full((len(found["scores"]), len(FEATURES)), np.nan)
    features[:, 0] = _log_odds(_numpy(found["scores"]))
    owner, quality = found["pair_object"].numpy(), _numpy(found["mask_scores"])
    best_last = np.argsort(quality, kind="stable")
    views = np.bincount(owner, minlength=len(features)).astype(np.float64)
    columns = [
        quality,
        _log_odds(_numpy(found["object_presence"])),
        _numpy(found["visible_fraction"]),
        _numpy(found["truncation"]),
        _numpy(found["occlusion"]),
        np.log(np.maximum(_numpy(found["depth"]), 1.0)),
        views[owner],
    ]
    features[owner[best_last], 1:] = np.stack(columns, 1)[best_last]
    return features


def fit_feedback(
    features: FloatArray, labels: NDArray[np.int64], true: NDArray[np.bool_], sam2_sha256: str
) -> ScoreFeedback:
    """Fit the regressions.

    Args:
        features: `[K, F]` of the detections of many samples.
        labels: `[K]`: classes.
        true: `[K]`: the detection is a true one.

    Raises:
        UsageError: too few true or false detections in all.
    """
    if min(true.sum(), (~true).sum()) < FEWEST:
        raise UsageError(
            f"{int(true.sum())} true and {int((~true).sum())} false detections are too few to calibrate scores with",
            fix=f"give results of more samples, with low scores too: at least {FEWEST} of each are needed",
        )
    classes = {_ALL: _fit(features, true)}
    for number, name in enumerate(CLASSES):
        own = labels == number
        if min((true & own).sum(), (~true & own).sum()) >= FEWEST:
            classes[name] = _fit(features[own], true[own])
    return ScoreFeedback(classes, sam2_sha256)


def true_detections(
    centres: FloatArray,
    scores: FloatArray,
    labels: NDArray[np.int64],
    truth: FloatArray,
    true_labels: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """bool `[K]`: the detections of one sample that are true by the rule of nuScenes: by falling score, each takes the
    nearest object of its class that is left, within 2 m in the plane.

    Args:
        centres: `[K, 2]`
        truth: `[n, 2]`: centres of the annotated objects.
    """
    found, left = np.zeros(len(scores), np.bool_), np.ones(len(truth), np.bool_)
    for number in np.argsort(-scores, kind="stable"):
        near = np.linalg.norm(truth - centres[number], axis=1)
        near[~left | (true_labels != labels[number])] = np.inf
        if len(near) and near.min() < 2.0:
            found[number], left[near.argmin()] = True, False
    return found


def _fit(features: FloatArray, true: NDArray[np.bool_]) -> Regression:
    """Newton's method on the likelihood, with a little weight decay."""
    known = ~np.isnan(features)
    counts = np.maximum(known.sum(0), 1)
    mean = np.where(known, features, 0).sum(0) / counts
    deviation = np.sqrt(np.where(known, (features - mean) ** 2, 0).sum(0) / counts)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    standard = np.nan_to_num((features - mean) / deviation)
    design = np.concatenate([standard, np.ones((len(standard), 1))], 1)
    decay = RIDGE * np.eye(design.shape[1])
    decay[-1, -1] = 1e-6
    solution = np.zeros(design.shape[1])
    for _ in range(STEPS):
        chance = _chance(design @ solution)
        slope = design.T @ (chance - true) + decay @ solution
        step = np.linalg.solve((design * (chance * (1 - chance))[:, None]).T @ design + decay, slope)
        solution -= step
        if np.abs(step).max() < 1e-9:
            break
    return Regression(
        tuple(mean.tolist()), tuple(deviation.tolist()), tuple(solution[:-1].tolist()), float(solution[-1])
    )


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != len(FEATURES) or not np.isfinite(numbers).all():
        raise ValueError(f"{list(numbers)} are not {len(FEATURES)} finite numbers")
    return numbers


def _numpy(values: Tensor) -> FloatArray:
    return np.asarray(values.double().cpu().numpy(), np.float64)


def _log_odds(chance: FloatArray) -> FloatArray:
    kept = np.clip(chance, _LIMIT, 1 - _LIMIT)
    odds: FloatArray = np.log(kept / (1 - kept))
    return odds


def _chance(log_odds: FloatArray) -> FloatArray:
    chance: FloatArray = 1 / (1 + np.exp(-np.clip(log_odds, -50, 50)))
    return chance
