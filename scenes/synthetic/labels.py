"""Exact labels beside the nuScenes tables: which object every pixel and every LiDAR point belongs to.

An object's number is its place among the scene's objects, from 1; `labels/instances.json` maps it to its instance.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.lidar import Sweep
from scenes.synthetic.picture import Picture

LABELS = "labels"
INSTANCES = f"{LABELS}/instances.json"


def mask_path(filename: str) -> str:
    """Where the mask of an image lies: `samples/CAM/x.jpg` -> `labels/samples/CAM/x.png`."""
    return f"{LABELS}/{filename.removesuffix('.jpg')}.png"


def point_label_path(filename: str) -> str:
    """Where the point labels of a sweep lie: `samples/LIDAR_TOP/x.pcd.bin` -> `labels/samples/LIDAR_TOP/x.npy`."""
    return f"{LABELS}/{filename.removesuffix('.pcd.bin')}.npy"


def write_mask(path: Path, picture: Picture) -> None:
    """16-bit grey PNG `[H, W]` of object numbers, 0 where there is none."""
    number_of_local = np.zeros(256, dtype=np.uint16)
    number_of_local[1 : len(picture.actors) + 1] = np.array(picture.actors, dtype=np.int64) + 1
    big_endian = np.asarray(cv2.LUT(picture.numbers, number_of_local.byteswap()), np.uint16).view(">u2")
    path.write_bytes(grey_png(big_endian))


def write_point_labels(path: Path, sweep: Sweep) -> None:
    """NPY, uint16 `[n, 2]`: nuScenes-lidarseg number and object number of each point."""
    np.save(path, np.stack([sweep.semantics.astype(np.uint16), (sweep.actors + 1).astype(np.uint16)], axis=1))


def grey_png(image: NDArray[np.generic]) -> bytes:
    """PNG of a grey image, uint8 or big-endian uint16 `[H, W]`, without row filters: flat areas pack best that way."""
    height, width = image.shape
    raw = np.zeros((height, 1 + width * image.dtype.itemsize), dtype=np.uint8)
    raw[:, 1:] = image.view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 8 * image.dtype.itemsize, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw.tobytes(), 1)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
