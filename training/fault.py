"""A step that must not be taken, and what the run does about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepFault:
    """A loss or gradient that is not finite on some process."""

    reason: str
    tokens: tuple[str, ...]
    """The samples of the micro-batches that cause it, of all processes."""
