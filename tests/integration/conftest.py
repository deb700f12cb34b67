"""A synthetic set that several files of tests look at."""

from __future__ import annotations

import pytest

from scenes.index import SceneIndex, build_index, open_index
from scenes.synthetic import make_synthetic


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    """Three samples of three scenes, two of `synthetic_train` and one of `synthetic_val`."""
    made = make_synthetic(
        tmp_path_factory.mktemp("town") / "synthetic",
        scenes=3,
        samples_per_scene=1,
        image_size=(396, 704),
        reach=20.0,
        lidar_sweeps=False,
        workers=1,
        progress=False,
    )
    build_index(made.root, made.version, progress=False)
    return open_index(made.root, made.version)
