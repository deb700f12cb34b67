"""The networks. `build_detector` makes one from a recipe, `load_published` reads published weights."""

from detectors.interface import CameraBatch, Detections, Detector
from detectors.zoo import build_detector, load_backbone, load_published

__all__ = ["CameraBatch", "Detections", "Detector", "build_detector", "load_backbone", "load_published"]
