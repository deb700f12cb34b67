"""Data for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.nuscenes_tables import small_sizes, write_tables
from scenes.index import SceneIndex, build_index, open_index
from scenes.synthetic import make_synthetic

VERSION = "v1.0-mini"


@pytest.fixture(scope="session")
def small_index(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    """v1.0-mini with three scenes of seven samples: boxes of all classes near the vehicle, noise for sensors."""
    root = tmp_path_factory.mktemp("nuscenes")
    write_tables(root, VERSION, small_sizes(["scene-0103", "scene-0916", "scene-0061"], samples=7, instances=70))
    move_boxes_near_the_vehicle(root / VERSION / "sample_annotation.json")
    for record in json.loads((root / VERSION / "map.json").read_text()):
        (root / record["filename"]).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(root / record["filename"])
    build_index(root, VERSION, progress=False)
    index = open_index(root, VERSION)
    for row in range(len(index)):
        write_sensor_files(index, row)
    return index


def move_boxes_near_the_vehicle(table: Path) -> None:
    """Around the vehicle's way from (410, 1179) to (425, 1179), where the metrics count them."""
    records = json.loads(table.read_text())
    for record in records:
        x, y, z = record["translation"]
        record["translation"] = [417 + 0.2 * (x - 400), 1179 + 0.2 * (y - 400), 0.01 * z]
    table.write_text(json.dumps(records))


def write_sensor_files(index: SceneIndex, row: int) -> None:
    frame = index.frame(row)
    height, width = frame.image_size
    for number, path in enumerate(frame.image_paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.effect_noise((width // 8, height // 8), 20 + 5 * number)
        noise.resize((width, height)).convert("RGB").save(path)
    frame.lidar.path.parent.mkdir(parents=True, exist_ok=True)
    np.random.default_rng(row).uniform(-40, 40, (300, 5)).astype(np.float32).tofile(frame.lidar.path)


@pytest.fixture(scope="session")
def synthetic_index(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    """The project's synthetic set in small: one scene to train on and one held out, two samples each."""
    made = make_synthetic(
        tmp_path_factory.mktemp("data") / "synthetic",
        scenes=2,
        samples_per_scene=2,
        image_size=(90, 160),
        workers=1,
        progress=False,
    )
    build_index(made.root, made.version, progress=False)
    return open_index(made.root, made.version)
