"""Painter's algorithm without mistakes: far things first, decided by planes that separate them.

Two disjoint boxes have a separating plane along one of their axes; the one on the camera's side of it cannot be hidden
by the other. These relations give a partial order, and any order that respects it draws every occlusion exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOUCH = 1e-3
"""Metres that touching boxes may overlap."""


def box_order(lower: Floats, upper: Floats, camera: Floats) -> NDArray[np.int64]:
    """Drawing order of axis-aligned boxes `[n, 3]` seen from `camera` `[3]`."""
    if len(lower) == 1:
        return np.zeros(1, dtype=np.int64)
    above = lower[None, :, :] >= upper[:, None, :] - TOUCH  # [i, j, axis]: j lies beyond i along the axis
    beside_upper = camera >= upper - TOUCH
    beside_lower = camera <= lower + TOUCH
    # i cannot hide j when the camera is on j's side of a plane between them
    harmless = ((above & beside_upper[:, None, :]) | (above.transpose(1, 0, 2) & beside_lower[:, None, :])).any(axis=2)
    # (beside_upper[i]: camera beyond i's upper face, so on j's side when j lies beyond i)
    distance = ((np.clip(camera, lower, upper) - camera) ** 2).sum(axis=1)
    return sort_back_to_front(harmless, distance)


def upright_order(
    centre: Floats, axes: Floats, half: Floats, low: Floats, high: Floats, camera: Floats, meet: Bools
) -> NDArray[np.int64]:
    """Drawing order of upright boxes.

    `centre` `[n, 2]`, `axes` `[n, 2, 2]` unit vectors along and across, `half` `[n, 2]`, `low` and `high` `[n]`
    heights, `camera` `[3]`, `meet` `[n, n]` whether two boxes share pixels at all.
    """
    position = np.einsum("iak,jk->iaj", axes, centre) - np.einsum("iak,ik->ia", axes, centre)[:, :, None]
    reach = (np.abs(np.einsum("iak,jbk->iajb", axes, axes)) * half[None, None]).sum(axis=3)
    above = position - reach >= half[:, :, None] - TOUCH  # [owner i, axis, j]
    below = position + reach <= -half[:, :, None] + TOUCH
    eye = np.einsum("iak,iak->ia", axes, camera[None, None, :2] - centre[:, None, :])
    eye_above, eye_below = eye >= half - TOUCH, eye <= -half + TOUCH
    harmless = ((above & eye_above[:, :, None]) | (below & eye_below[:, :, None])).any(axis=1)
    # j cannot hide i when the camera is on i's side of a plane along i's axes: it has not passed j's near face
    eye_before_j = eye[:, :, None] <= position - reach + TOUCH
    eye_beyond_j = eye[:, :, None] >= position + reach - TOUCH
    harmless |= ((above & eye_before_j) | (below & eye_beyond_j)).any(axis=1).T
    over = low[None, :] >= high[:, None] - TOUCH  # j above i
    harmless |= over & (camera[2] >= high - TOUCH)[:, None]
    harmless |= over.T & (camera[2] <= low + TOUCH)[:, None]
    distance = np.hypot(*(centre - camera[:2]).T)
    return sort_back_to_front(harmless | ~meet, distance)


def sort_back_to_front(harmless: Bools, distance: Floats) -> NDArray[np.int64]:
    """Order in which i comes before j unless i may hide j; `harmless[i, j]` says that i cannot hide j.

    Whoever waits for another waits for all that the other waits for, so the number of those sorts them. Where boxes
    interlock (each may hide the other) the farther one comes first, and so does the farthest of a cycle.
    """
    waits = ~harmless & (harmless.T | (distance[:, None] < distance[None, :]))  # i waits for j to be drawn
    np.fill_diagonal(waits, False)
    before = waits.astype(np.float32)
    for _ in range(len(distance).bit_length()):  # all that must come before i, through others too
        before = ((before + before @ before) > 0).astype(np.float32)
    return np.asarray(np.lexsort((-distance, before.sum(axis=1))), np.int64)
