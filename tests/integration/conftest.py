"""A synthetic set that several files of tests look at; signal handlers as they were."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from configs.stop_signal import STOP_SIGNALS
from scenes.index import SceneIndex, build_index, open_index
from scenes.synthetic import make_synthetic

MakeSet = Callable[[int, int, tuple[int, int]], SceneIndex]


@pytest.fixture(scope="session")
def make_set(tmp_path_factory: pytest.TempPathFactory) -> MakeSet:
    """Makes and indexes a synthetic set: scenes, samples of each, height and width of the images."""

    def make(scenes: int, samples: int, image_size: tuple[int, int]) -> SceneIndex:
        made = make_synthetic(
            tmp_path_factory.mktemp("set") / "synthetic",
            scenes=scenes,
            samples_per_scene=samples,
            image_size=image_size,
            reach=20.0,
            lidar_sweeps=False,
            workers=1,
            progress=False,
        )
        build_index(made.root, made.version, progress=False)
        return open_index(made.root, made.version)

    return make


@pytest.fixture(scope="session")
def town(make_set: MakeSet) -> SceneIndex:
    """Three samples of three scenes, two of `synthetic_train` and one of `synthetic_val`."""
    return make_set(3, 1, (396, 704))


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Trainings take over the stop signals of their process."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
