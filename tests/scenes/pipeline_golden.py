"""The golden file of BEVNeXt's data pipeline: reading it, and drawing the inputs it was made from.

`BEVNEXT_SAM2_GOLDEN` names another folder of the same layout, `BEVNEXT_SAM2_GOLDEN_PREFIX` goes in front of every key
that a random stream is drawn from.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

FOLDER = Path(os.environ.get("BEVNEXT_SAM2_GOLDEN", Path(__file__).parents[1] / "golden" / "bevnext"))
PREFIX = os.environ.get("BEVNEXT_SAM2_GOLDEN_PREFIX", "")


def read_golden() -> dict[str, NDArray[Any]]:
    """The arrays of `pipeline_unit.npz`; skips the test where the folder lacks it."""
    path = FOLDER / "pipeline_unit.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with np.load(path, allow_pickle=False) as store:
        return dict(store)


def source_image() -> NDArray[np.uint8]:
    """uint8 `[900, 1600, 3]` of blocks in random colours."""
    colours = _stream("pipe/img").randint(0, 256, (90, 160, 3))
    return np.kron(colours, np.ones((10, 10, 1))).astype(np.uint8)


def lidar_points() -> NDArray[np.float32]:
    """`[20000, 3]`"""
    points = _stream("pipe/pts").random_sample((20000, 5)) * [120, 120, 8, 255, 1] - [60, 60, 4, 0, 0]
    return points.astype(np.float32)[:, :3]


def box_labels() -> NDArray[np.int64]:
    """`[40]`: labels of the boxes `bda/gt`"""
    stream = _stream("bda/gt/0")
    stream.random_sample((40, 9))
    labels = stream.randint(0, 10, 40)
    labels[1] = labels[0]
    return labels


def infos(golden: dict[str, NDArray[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Calibration and poses of the key frame and of the frame before it."""
    key, adjacent = json.loads(str(golden["infos_json"]))
    return key, adjacent


def _stream(key: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32((PREFIX + key).encode()))
