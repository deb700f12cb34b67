"""A synthetic set of eight samples, indexed, made once per session."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scenes.index import build_index
from scenes.synthetic import make_synthetic
from training.stop_signal import STOP_SIGNALS


@pytest.fixture(scope="session")
def driving_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a set with one scene of four samples to train on, and one of four to validate on."""
    root = tmp_path_factory.mktemp("driving")
    make_synthetic(root, scenes=2, samples_per_scene=4, image_size=(90, 160), workers=1, progress=False)
    build_index(root, "v1.0-synthetic", progress=False)
    return root


@pytest.fixture(autouse=True)
def own_process_state() -> Iterator[None]:
    """A run takes over signals and threads of its process: give them back."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)
