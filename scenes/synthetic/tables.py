"""The thirteen tables of nuScenes v1.0, written from the plan of every scene and what its key frames saw."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.nuscenes import CAMERAS, LIDAR, TABLES
from scenes.poses import quaternion_of
from scenes.synthetic.catalogue import ATTRIBUTES, CATEGORIES, VISIBILITY
from scenes.synthetic.labels import INSTANCES, grey_png
from scenes.synthetic.options import VERSION, SyntheticOptions, scene_name
from scenes.synthetic.render import ScenePlan, Sighting
from scenes.synthetic.rig import ego_pose_matrix
from scenes.synthetic.schedule import Shot, token
from scenes.synthetic.surfaces import map_mask
from scenes.synthetic.world import Actor

Floats = NDArray[np.float64]
Row = dict[str, Any]


@dataclass
class Tables:
    """Rows of all tables, filled scene by scene."""

    options: SyntheticOptions
    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})
    instances: dict[str, list[Row]] = field(default_factory=dict)
    """Per scene: number, category and instance of each object, for the labels."""

    def __post_init__(self) -> None:
        for name, description in CATEGORIES.items():
            self._add("category", token=token("category", name), name=name, description=description)
        for name, description in ATTRIBUTES.items():
            self._add("attribute", token=token("attribute", name), name=name, description=description)
        for level, (name, description) in VISIBILITY.items():
            self._add("visibility", token=level, level=name, description=description)
        for channel in (*CAMERAS, LIDAR):
            modality = "lidar" if channel == LIDAR else "camera"
            self._add("sensor", token=token("sensor", channel), channel=channel, modality=modality)

    def add_scene(self, scene_plan: ScenePlan, sightings: list[Sighting], root: Path) -> None:
        """All rows of one scene; writes its map."""
        plan, name = scene_plan.schedule, scene_name(scene_plan.schedule.scene)
        log, scene = self._token("log", name), self._token("scene", name)
        location = f"synthetic-{plan.scene:04d}"
        self._add("log", token=log, logfile=plan.logfile, vehicle="synth", date_captured=plan.date, location=location)
        filename = f"maps/{self._token('map', name)}.png"
        (root / filename).write_bytes(grey_png(map_mask(scene_plan.world.road)))
        self._add("map", token=self._token("map", name), log_tokens=[log], category="semantic_prior", filename=filename)
        samples = [self._token("sample", name, sample) for sample in range(len(plan.samples))]
        for (before, sample, after), timestamp in zip(_chain(samples), plan.samples, strict=True):
            self._add("sample", token=sample, timestamp=timestamp, prev=before, next=after, scene_token=scene)
        self._add(
            "scene", token=scene, log_token=log, nbr_samples=len(samples), first_sample_token=samples[0],
            last_sample_token=samples[-1], name=name, description=_description(scene_plan),
        )  # fmt: skip
        self._add_sensors(scene_plan, name)
        self._add_sample_data(scene_plan, name, samples)
        self._add_annotations(scene_plan, name, samples, sorted(sightings, key=lambda sighting: sighting.sample))

    def write(self, root: Path) -> None:
        """Write tables, splits and the numbers of the labels."""
        folder = root / VERSION
        for name, rows in self.rows.items():
            _write_json(folder / f"{name}.json", rows)
        _write_json(folder / "splits.json", self.options.splits())
        _write_json(root / INSTANCES, self.instances)

    def _add(self, table: str, **row: Any) -> None:
        self.rows[table].append(row)

    def _token(self, *scene_plan: object) -> str:
        return token(self.options.seed, self.options.samples_per_scene, *scene_plan)

    def _add_sensors(self, scene_plan: ScenePlan, name: str) -> None:
        for camera in scene_plan.rig.cameras:
            pose = camera.ego_from_cam
            self._add_calibration(name, camera.channel, pose, camera.intrinsic.tolist())
        self._add_calibration(name, LIDAR, scene_plan.rig.ego_from_lidar, [])

    def _add_calibration(self, name: str, channel: str, pose: Floats, intrinsic: list[list[float]]) -> None:
        self._add(
            "calibrated_sensor", token=self._token("calibrated_sensor", name, channel),
            sensor_token=token("sensor", channel), translation=pose[:3, 3].tolist(), rotation=_quaternion(pose),
            camera_intrinsic=intrinsic,
        )  # fmt: skip

    def _add_sample_data(self, scene_plan: ScenePlan, name: str, samples: list[str]) -> None:
        plan = scene_plan.schedule
        for channel in (*CAMERAS, LIDAR):
            shots = sorted((shot for shot in plan.shots if shot.channel == channel), key=lambda shot: shot.timestamp)
            tokens = [self._token("sample_data", shot.filename) for shot in shots]
            for shot, (before, this, after) in zip(shots, _chain(tokens), strict=True):
                pose = ego_pose_matrix(scene_plan.world.ego.pose(plan.seconds(shot.timestamp)))
                self._add(
                    "ego_pose", token=this, timestamp=shot.timestamp, rotation=_quaternion(pose),
                    translation=pose[:3, 3].tolist(),
                )  # fmt: skip
                self._add_shot(shot, this, before, after, name, samples[shot.sample])

    def _add_shot(self, shot: Shot, this: str, before: str, after: str, name: str, sample: str) -> None:
        height, width = (0, 0) if shot.channel == LIDAR else self.options.image_size
        self._add(
            "sample_data", token=this, sample_token=sample, ego_pose_token=this,
            calibrated_sensor_token=self._token("calibrated_sensor", name, shot.channel), timestamp=shot.timestamp,
            fileformat="pcd" if shot.channel == LIDAR else "jpg", is_key_frame=shot.is_key, height=height, width=width,
            filename=shot.filename, prev=before, next=after,
        )  # fmt: skip

    def _add_annotations(self, scene_plan: ScenePlan, name: str, samples: list[str], sightings: list[Sighting]) -> None:
        """An object is annotated in the key frames that have a LiDAR point on it, as in nuScenes.

        The devkit ignores ground truth without points: boxes that nobody can be asked to find would be in the way.
        """
        self.instances[name] = []
        for index, actor in enumerate(scene_plan.world.actors):
            hit = [sighting.sample for sighting in sightings if sighting.lidar_points[index] > 0]
            instance = self._token("instance", name, index) if hit else None
            self.instances[name].append({"number": index + 1, "category": actor.category, "instance_token": instance})
            if not hit:
                continue
            tokens = [self._token("sample_annotation", name, index, sample) for sample in hit]
            self._add(
                "instance", token=instance, category_token=token("category", actor.category),
                nbr_annotations=len(tokens), first_annotation_token=tokens[0], last_annotation_token=tokens[-1],
            )  # fmt: skip
            for sample, (before, this, after) in zip(hit, _chain(tokens), strict=True):
                t = scene_plan.schedule.seconds(scene_plan.schedule.samples[sample])
                self._add(
                    "sample_annotation", token=this, sample_token=samples[sample], instance_token=instance,
                    **_annotation(actor, t, sightings[sample], index), prev=before, next=after,
                )  # fmt: skip


def _annotation(actor: Actor, t: float, sighting: Sighting, index: int) -> Row:
    x, y, yaw = actor.trajectory.pose(t).tolist()
    length, width, height = actor.size_lwh.tolist()
    attribute = actor.attribute(t)
    return {
        "visibility_token": _visibility(int(sighting.drawn[index]), int(sighting.seen[index])),
        "attribute_tokens": [token("attribute", attribute)] if attribute else [],
        "translation": [x, y, height / 2],
        "size": [width, length, height],
        "rotation": [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))],
        "num_lidar_pts": int(sighting.lidar_points[index]),
        "num_radar_pts": 0,
    }


def _visibility(drawn: int, seen: int) -> str:
    """Visibility level: the share of the object's pixels, over all cameras, that nothing hides."""
    share = seen / drawn if drawn else 0.0
    return "4" if share >= 0.8 else "3" if share >= 0.6 else "2" if share >= 0.4 else "1"


def _description(scene_plan: ScenePlan) -> str:
    section = scene_plan.world.road.section
    lanes = f"{section.lanes_right}+{section.lanes_left} lanes"
    return f"Synthetic scene, {scene_plan.world.weather.name}, {lanes}, parked vehicles, work zones, side street"


def _quaternion(pose: Floats) -> list[float]:
    elements: list[float] = quaternion_of(pose[:3, :3]).tolist()
    return elements


def _chain(tokens: list[str]) -> list[tuple[str, str, str]]:
    """Each token with the one before and after it, '' at the ends."""
    return list(zip(["", *tokens[:-1]], tokens, [*tokens[1:], ""], strict=True))


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=0 if isinstance(content, list) else 1))
