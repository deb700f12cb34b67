"""A synthetic set that several files of tests look at; signal handlers as they were."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from configs.stop_signal import STOP_SIGNALS
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


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Trainings take over the stop signals of their process."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
