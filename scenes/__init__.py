"""Driving data: nuScenes tables to one index, index to samples.

`from scenes import open_index, SceneDataset`. Names are imported when they are first asked for, so that
`data --help` loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenes.dataset import SceneDataset
    from scenes.index import SceneIndex, build_index, open_index

__all__ = ["SceneDataset", "SceneIndex", "build_index", "open_index"]

_MODULES = {
    "SceneDataset": "scenes.dataset",
    "SceneIndex": "scenes.index",
    "build_index": "scenes.index",
    "open_index": "scenes.index",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
