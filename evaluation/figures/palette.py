"""Colours shared by all figures: mid-tone, so that they read on photographs and on white paper alike."""

from __future__ import annotations

from typing import Final

from configs.nuscenes import CLASSES

CLASS_COLOURS: Final = {
    "car": "#1e88ff",
    "truck": "#ff8c1a",
    "construction_vehicle": "#a8703a",
    "bus": "#35a83a",
    "trailer": "#9b6bea",
    "barrier": "#8796a5",
    "motorcycle": "#f0479f",
    "bicycle": "#10b8ac",
    "pedestrian": "#ee3b34",
    "traffic_cone": "#dcae00",
}
TRUTH_COLOUR: Final = "#ffffff"
"""Ground truth on photographs."""
TRUTH_INK: Final = "#2b2f36"
"""Ground truth on paper."""

PRETTY_NAMES: Final = {name: name.replace("_", " ") for name in CLASSES}


def rgb(hex_colour: str) -> tuple[int, int, int]:
    """`#1e88ff` -> `(30, 136, 255)`."""
    value = int(hex_colour.removeprefix("#"), 16)
    return value >> 16, value >> 8 & 255, value & 255
