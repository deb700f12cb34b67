"""A small synthetic set and its index."""

from __future__ import annotations

import pytest

from scenes.index import SceneIndex, build_index, open_index
from scenes.synthetic import make_synthetic

VERSION = "v1.0-synthetic"


@pytest.fixture(scope="session")
def index(tmp_path_factory) -> SceneIndex:
    """Two scenes of three key frames, images of 180 x 320."""
    root = tmp_path_factory.mktemp("synthetic") / "set"
    make_synthetic(root, scenes=2, samples_per_scene=3, image_size=(180, 320), workers=1, progress=False)
    build_index(root, VERSION, progress=False)
    return open_index(root, VERSION)
