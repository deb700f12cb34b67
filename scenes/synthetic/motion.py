"""How things move: a speed that swells and ebbs, along and across the road."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.road import Road

Floats = NDArray[np.float64]

STILL = 0.05
"""Slower than this (m/s) an actor keeps its own heading instead of that of its motion."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Distance covered since t = 0 at speed `mean + swing * sin(rate * t + phase)`; m/s, rad/s."""

    mean: float = 0.0
    swing: float = 0.0
    rate: float = 0.5
    phase: float = 0.0

    def distance(self, t: Floats | float) -> Floats:
        """Metres covered at time `t` in seconds."""
        ebb = np.cos(self.phase) - np.cos(self.rate * np.asarray(t) + self.phase)
        return np.asarray(self.mean * np.asarray(t) + self.swing / self.rate * ebb)

    def speed(self, t: Floats | float) -> Floats:
        """Speed at time `t`, m/s."""
        return np.asarray(self.mean + self.swing * np.sin(self.rate * np.asarray(t) + self.phase))


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A path along (`s`) or across (`d`) the road; `turn` is the heading relative to the road where it stands still."""

    road: Road
    s: float
    d: float
    turn: float = 0.0
    along: Pace = Pace()
    along_sign: int = 1
    across: Pace = Pace()
    across_sign: int = 1

    def pose(self, t: Floats | float) -> Floats:
        """Global `[..., 3]`: x, y, yaw at time `t` in seconds."""
        s = self.s + self.along_sign * self.along.distance(t)
        d = self.d + self.across_sign * self.across.distance(t)
        forward = self.along_sign * self.along.speed(t)
        sideways = self.across_sign * self.across.speed(t)
        moving = np.hypot(forward, sideways) > STILL
        relative = np.where(moving, np.arctan2(sideways, forward), self.turn)
        yaw = self.road.heading_at(s) + relative
        return np.concatenate([self.road.at(s, d), yaw[..., None]], axis=-1)

    @property
    def is_still(self) -> bool:
        return self.along.mean == 0 and self.across.mean == 0

    def velocity(self, t: float, half_step: float = 0.05) -> Floats:
        """Global vx, vy at time `t`, m/s, by a central difference."""
        before, after = self.pose(t - half_step), self.pose(t + half_step)
        velocity: Floats = (after - before)[:2] / (2 * half_step)
        return velocity


class Fleet:
    """Many trajectories on one road, evaluated together."""

    def __init__(self, trajectories: Sequence[Trajectory]) -> None:
        self._trajectories = trajectories
        self._still = np.array([path.is_still for path in trajectories], dtype=bool)
        self._resting = np.array([path.pose(0.0) for path in trajectories]).reshape(-1, 3)
        moving = [path for path in trajectories if not path.is_still]
        self._road = moving[0].road if moving else None
        self._start = np.array([[path.s, path.d] for path in moving]).reshape(-1, 2)
        self._sign = np.array([[path.along_sign, path.across_sign] for path in moving]).reshape(-1, 2)
        paces = [[path.along, path.across] for path in moving]
        self._mean, self._swing, self._rate, self._phase = (
            np.array([[getattr(pace, name) for pace in pair] for pair in paces]).reshape(-1, 2)
            for name in ("mean", "swing", "rate", "phase")
        )

    def poses(self, t: float) -> Floats:
        """x, y, yaw `[n, 3]` at time `t`, equal to each trajectory's `pose`."""
        poses = self._resting.copy()
        if self._road is None:
            return poses
        ebb = np.cos(self._phase) - np.cos(self._rate * t + self._phase)
        covered = self._sign * (self._mean * t + self._swing / self._rate * ebb)
        speed = self._sign * (self._mean + self._swing * np.sin(self._rate * t + self._phase))
        s, d = (self._start + covered).T
        poses[~self._still, :2] = self._road.at(s, d)
        poses[~self._still, 2] = self._road.heading_at(s) + np.arctan2(speed[:, 1], speed[:, 0])
        return poses


def overlap(a: Floats, a_half: Floats, b: Floats, b_half: Floats, gap: float) -> NDArray[np.bool_]:
    """Whether rectangles come closer than about `gap` metres (separating axis test).

    `a` `[..., 3]` and `b` `[..., 3]` are x, y, yaw; halves `[..., 2]` are half length and half width; all broadcast.
    """
    centre = b[..., :2] - a[..., :2]
    axes_a, axes_b = _axes(a[..., 2]), _axes(b[..., 2])
    apart = np.zeros(np.broadcast_shapes(a.shape[:-1], b.shape[:-1]), dtype=bool)
    for axes in (axes_a, axes_b):
        for k in range(2):
            axis = axes[..., k, :]
            reach = gap + (np.abs((axes_a * axis[..., None, :]).sum(-1)) * a_half).sum(-1)
            reach = reach + (np.abs((axes_b * axis[..., None, :]).sum(-1)) * b_half).sum(-1)
            apart |= np.abs((centre * axis).sum(-1)) > reach
    return ~apart


def _axes(yaw: Floats) -> Floats:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)
