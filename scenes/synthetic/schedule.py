"""When each sensor fires, and which file holds what it saw.

As in nuScenes: key frames at 2 Hz, LiDAR sweeps at 20 Hz, cameras (on request) at 12 Hz, each camera shortly before
the end of the LiDAR sweep. What lies between two key frames belongs to the later one. Timestamps are microseconds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np

from configs.nuscenes import CAMERAS, LIDAR
from scenes.synthetic.options import SyntheticOptions
from scenes.synthetic.rig import TRIGGER_US

KEY_PERIOD_US = 500_000
LIDAR_PERIOD_US = 50_000
CAMERA_PERIOD_US = 83_333
FIRST_SCENE_US = 1_532_000_000_000_000
SCENE_STEP_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Shot:
    """One file of one sensor."""

    channel: str
    timestamp: int
    sample: int
    is_key: bool
    filename: str
    """Relative to the root of the set."""
    number: int
    """Position among the scene's shots: seeds its noise."""


@dataclass(frozen=True, slots=True)
class SceneSchedule:
    """All shots of a scene, and the timestamps of its samples."""

    scene: int
    logfile: str
    date: str
    samples: tuple[int, ...]
    shots: tuple[Shot, ...]

    def seconds(self, timestamp: int) -> float:
        """World time of a timestamp: seconds since the first sample."""
        return (timestamp - self.samples[0]) / 1e6

    @property
    def duration(self) -> float:
        return self.seconds(self.samples[-1])


def schedule(options: SyntheticOptions, scene: int) -> SceneSchedule:
    """The schedule of scene number `scene`."""
    rng = np.random.default_rng([options.seed, scene, 2])
    start = FIRST_SCENE_US + scene * SCENE_STEP_US + int(rng.integers(0, 600_000_000))
    captured = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=start)
    logfile = f"synth{options.seed}-{captured:%Y-%m-%d-%H-%M-%S}+0000"
    samples = tuple(
        start + k * KEY_PERIOD_US + int(rng.integers(-900, 900)) * (k > 0) for k in range(options.samples_per_scene)
    )
    shots: list[Shot] = []

    def shoot(channel: str, timestamp: int, sample: int, is_key: bool) -> None:
        folder, suffix = ("samples" if is_key else "sweeps"), (".pcd.bin" if channel == LIDAR else ".jpg")
        filename = f"{folder}/{channel}/{logfile}__{channel}__{timestamp}{suffix}"
        shots.append(Shot(channel, timestamp, sample, is_key, filename, len(shots)))

    for sample, moment in enumerate(samples):
        before = samples[sample - 1] if sample else moment
        for channel in (LIDAR, *CAMERAS):
            period = LIDAR_PERIOD_US if channel == LIDAR else CAMERA_PERIOD_US
            with_sweeps = options.lidar_sweeps if channel == LIDAR else options.camera_sweeps
            between = round(KEY_PERIOD_US / period) - 1 if with_sweeps else 0
            trigger = TRIGGER_US.get(channel, 0)
            for k in range(1, between + 1):
                if sample > 0:
                    timestamp = before + (moment - before) * k // (between + 1) + trigger
                    shoot(channel, timestamp + int(rng.integers(-300, 300)), sample, False)
            jitter = 0 if channel == LIDAR else int(rng.integers(-800, 800))
            shoot(channel, moment + trigger + jitter, sample, True)
    return SceneSchedule(scene, logfile, f"{captured:%Y-%m-%d}", samples, tuple(shots))


def token(*parts: object) -> str:
    """A 32-digit token that depends on nothing but its parts."""
    return hashlib.md5("/".join(str(part) for part in parts).encode(), usedforsecurity=False).hexdigest()
