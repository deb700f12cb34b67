"""Renders one block of samples of one scene to files, and reports what the annotations need to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from configs.nuscenes import LIDAR
from scenes.synthetic import shadows
from scenes.synthetic.ground import paint_ground
from scenes.synthetic.labels import mask_path, point_label_path, write_mask, write_point_labels
from scenes.synthetic.layout import lay_out
from scenes.synthetic.lidar import Scanner, Sweep
from scenes.synthetic.options import SyntheticOptions
from scenes.synthetic.picture import take_picture
from scenes.synthetic.rig import FULL_SIZE, Rig, ego_pose_matrix, mount
from scenes.synthetic.schedule import SceneSchedule, Shot, schedule
from scenes.synthetic.stage import Stage
from scenes.synthetic.textures import panorama
from scenes.synthetic.view import look
from scenes.synthetic.world import World

Floats = NDArray[np.float64]

BLOCK = 10
"""Samples rendered by one worker in one go; part of the recipe of a set, whatever the number of workers."""
GROUND_STEP = 0.05
JPEG_QUALITY = 80
"""That of nuScenes' own camera images, so that decoding ours costs what decoding theirs does."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a key frame saw of each actor of the scene (arrays over `World.actors`)."""

    sample: int
    lidar_points: NDArray[np.int64]
    drawn: NDArray[np.int64]
    """Pixels over all cameras if nothing stood in between."""
    seen: NDArray[np.int64]
    """Pixels over all cameras."""


@dataclass(frozen=True)
class ScenePlan:
    """What the tables need of a scene."""

    schedule: SceneSchedule
    world: World
    rig: Rig


@dataclass(frozen=True)
class SceneParts(ScenePlan):
    """All of a scene that does not depend on the block."""

    panorama: NDArray[np.uint8]
    shade: shadows.Shade

    def without_shapes(self) -> ScenePlan:
        """The plan alone, light enough to be handed from one process to another."""
        actors = tuple(replace(actor, models=()) for actor in self.world.actors)
        world = replace(self.world, actors=actors, blocks=(), crowns=(), props=())
        return ScenePlan(self.schedule, world, self.rig)


@dataclass(frozen=True)
class RenderedBlock:
    """What came of one block of samples; its files are written."""

    plan: ScenePlan
    sightings: list[Sighting]


@lru_cache(maxsize=2)
def scene_parts(options: SyntheticOptions, scene: int) -> SceneParts:
    """Plan of a scene: the same in every process."""
    plan = schedule(options, scene)
    world = lay_out(options.seed, scene, plan.duration, options.reach)
    weather = world.weather
    sky = panorama(
        np.random.default_rng(world.sky_seed),
        weather.zenith.astype(np.float32),
        weather.horizon.astype(np.float32),
        weather.clouds,
        float(np.arctan2(weather.sun[1], weather.sun[0])),
    )
    rig = mount(np.random.default_rng([options.seed, scene, 3]), options.image_size)
    return SceneParts(plan, world, rig, sky, shadows.at_rest(world))


def blocks(options: SyntheticOptions) -> list[tuple[int, int]]:
    """All `(scene, first sample)` pieces of work of a set."""
    return [(scene, first) for scene in range(options.scenes) for first in range(0, options.samples_per_scene, BLOCK)]


def render_block(
    options: SyntheticOptions, root: Path, scene: int, first: int, stopped: Callable[[], bool]
) -> RenderedBlock:
    """Write all files of the samples `first` to `first + BLOCK - 1`; `stopped` is asked between samples."""
    parts = scene_parts(options, scene)
    plan, world = parts.schedule, parts.world
    members = range(first, min(first + BLOCK, options.samples_per_scene))
    moments = np.array([plan.seconds(plan.samples[sample]) for sample in members])
    step = GROUND_STEP * max(1.0, FULL_SIZE[1] / options.image_size[1])
    ground = paint_ground(world, world.ego.pose(moments)[:, :2], min(step, 0.25), parts.shade)
    stage = Stage(world, ground, parts.panorama)
    scanner = Scanner(world, ground, parts.rig.ego_from_lidar)
    sightings = []
    for sample in members:
        if stopped():
            break
        sightings.append(_render_sample(options, root, parts, stage, scanner, sample))
    return RenderedBlock(parts.without_shapes(), sightings)


def _render_sample(
    options: SyntheticOptions, root: Path, parts: SceneParts, stage: Stage, scanner: Scanner, sample: int
) -> Sighting:
    plan, world = parts.schedule, parts.world
    mounts = {camera.channel: camera for camera in parts.rig.cameras}
    drawn, seen = np.zeros(len(world.actors), dtype=np.int64), np.zeros(len(world.actors), dtype=np.int64)
    points = np.zeros(len(world.actors), dtype=np.int64)
    for shot in plan.shots:
        if shot.sample != sample:
            continue
        t = plan.seconds(shot.timestamp)
        rng = np.random.default_rng([options.seed, plan.scene, 4, shot.number])
        ego = ego_pose_matrix(world.ego.pose(t))
        if shot.channel == LIDAR:
            sweep = scanner.scan(t, ego, rng)
            _write_sweep(root, shot, sweep)
            if shot.is_key:
                points = points_in_boxes(world, stage.actor_poses(t), sweep, ego @ parts.rig.ego_from_lidar)
            continue
        camera = mounts[shot.channel]
        view = look(camera.intrinsic, ego @ camera.ego_from_cam, camera.image_size)
        picture = take_picture(stage, view, t, rng)
        jpeg = simplejpeg.encode_jpeg(picture.image, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")
        (root / shot.filename).write_bytes(jpeg)
        write_mask(root / mask_path(shot.filename), picture)
        if shot.is_key and picture.actors:
            drawn[list(picture.actors)] += picture.drawn
            seen[list(picture.actors)] += picture.seen
    return Sighting(sample, points, drawn, seen)


def _write_sweep(root: Path, shot: Shot, sweep: Sweep) -> None:
    sweep.points.tofile(root / shot.filename)
    if shot.is_key:
        write_point_labels(root / point_label_path(shot.filename), sweep)


def points_in_boxes(world: World, poses: Floats, sweep: Sweep, global_from_lidar: Floats) -> NDArray[np.int64]:
    """Number of LiDAR points inside the box of each actor at `poses` (borders included, as the devkit counts)."""
    xyz = np.einsum("nk,jk->nj", sweep.points[:, :3].astype(np.float64), global_from_lidar[:3, :3])
    xyz += global_from_lidar[:3, 3]
    xyz = xyz[np.argsort(xyz[:, 0], kind="stable")]
    counts = np.zeros(len(world.actors), dtype=np.int64)
    for index, (actor, (x, y, yaw)) in enumerate(zip(world.actors, poses.tolist(), strict=True)):
        length, width, height = actor.size_lwh
        reach = float(np.hypot(length, width)) / 2
        start, end = np.searchsorted(xyz[:, 0], [x - reach, x + reach])
        offset = xyz[start:end] - [x, y, height / 2]
        along = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
        across = offset[:, 1] * np.cos(yaw) - offset[:, 0] * np.sin(yaw)
        inside = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2) & (np.abs(offset[:, 2]) <= height / 2)
        counts[index] = int(inside.sum())
    return counts


def quiet_worker() -> None:
    """OpenCV works on one thread: the processes are the parallelism."""
    cv2.setNumThreads(1)
