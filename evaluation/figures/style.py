"""How the boxes of a picture are told apart: by class, or each object by its own colour and number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from configs.nuscenes import CLASSES
from evaluation.figures.palette import CLASS_COLOURS, PRETTY_NAMES
from evaluation.global_boxes import GlobalBoxes

OBJECT_COLOURS: Final = (
    *("#1e88ff", "#ff8c1a", "#35a83a", "#ee3b34", "#9b6bea", "#10b8ac", "#f0479f", "#dcae00"),
    *("#4fc3f7", "#a8703a", "#8bc34a", "#c2185b"),
)
"""Neighbours in this row are easy to tell apart on photographs and on paper."""


@dataclass(frozen=True, slots=True)
class Style:
    """Colour and label of n boxes."""

    colours: tuple[str, ...]
    """Hexadecimal."""
    labels: tuple[str, ...]
    numbers: tuple[str, ...] | None = None
    """What stands beside a box where there is room for a number only; `None`: colours are those of the classes."""


def by_class(boxes: GlobalBoxes) -> Style:
    """The colours of the classes; labels are class and score."""
    names = [CLASSES[label] for label in boxes.labels]
    return Style(tuple(CLASS_COLOURS[name] for name in names), _labels(boxes))


def by_object(boxes: GlobalBoxes) -> Style:
    """A colour and a number for each object, the same in all pictures of a sample; 12 colours in turn."""
    numbers = tuple(str(number) for number in range(1, len(boxes) + 1))
    colours = tuple(OBJECT_COLOURS[place % len(OBJECT_COLOURS)] for place in range(len(boxes)))
    labels = tuple(f"{number} {label}" for number, label in zip(numbers, _labels(boxes), strict=True))
    return Style(colours, labels, numbers)


def _labels(boxes: GlobalBoxes) -> tuple[str, ...]:
    """Class and score; an annotation, which is certain, has no score."""
    return tuple(
        PRETTY_NAMES[CLASSES[label]] + (f" {score:.2f}" if score < 1 else "")
        for label, score in zip(boxes.labels, boxes.scores, strict=True)
    )
