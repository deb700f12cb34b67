"""Class-balanced grouping and sampling (CBGS, arXiv 1908.09492), as the published recipes count it."""

from __future__ import annotations

from collections.abc import Sequence


def resampled_counts(frames_with_class: Sequence[int]) -> list[int]:
    """How many frames an epoch draws, with replacement, for each class; their sum is the length of the epoch.

    Every class that occurs gets the same share of the sum over classes of the frames that show it (one tenth for ten
    classes); int() truncates as in the published code. A class that never occurs gets none.
    """
    total, share = sum(frames_with_class), 1.0 / len(frames_with_class)
    return [int(frames * (share / (frames / total))) if frames else 0 for frames in frames_with_class]
