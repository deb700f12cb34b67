"""The weights that a recipe starts from: of the same network, of another stage, or of the image backbone alone."""

from __future__ import annotations

from configs.schema import BEVNeXtConfig
from detectors.hand_over import hand_over
from detectors.zoo import load_backbone, load_published

from .state import TrainingState


def load_start_weights(state: TrainingState, model: BEVNeXtConfig) -> list[str]:
    """Put the weights that the recipe names, if any, into detector and average; returns what was done, to be printed.

    Raises:
        UsageError: no such file, or one that does not fit.
        DataError: published weights that are not as they were fetched.
    """
    if model.weights is not None:
        load_published(state.detector, model.weights)
        told = [f"weights from {model.weights}"]
    elif model.hand_over is not None:
        told = hand_over(state.detector, model.hand_over).lines()
    elif model.backbone.weights is not None:
        load_backbone(state.detector, model.backbone.weights)
        told = [f"image backbone from {model.backbone.weights}"]
    else:
        return []
    if state.average:  # as published, it begins with what was loaded
        state.average.detector.load_state_dict(state.detector.state_dict())
    return told
