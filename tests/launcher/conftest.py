"""A data set as the launcher sees it: folders and an index header, no tables and no images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

MakeRoot = Callable[..., Path]


@pytest.fixture
def make_root(tmp_path: Path) -> MakeRoot:
    def make(version: str = "v1.0-synthetic", name: str = "data", splits: dict[str, int] | None = None) -> Path:
        root = tmp_path / name
        (root / version).mkdir(parents=True)
        index = root / "index" / version
        index.mkdir(parents=True)
        samples = splits or {"synthetic_train": 24, "synthetic_val": 8}
        header = {
            "schema_version": 1,
            "version": version,
            "counts": {"scenes": 2, "samples": sum(samples.values()), "sample_data": 0, "annotations": 0},
            "splits": samples,
            "class_frames": {split: [count] * 5 + [0] * 5 for split, count in samples.items()},
            "fingerprint": {},
        }
        (index / "header.json").write_text(json.dumps(header))
        return root

    return make


@pytest.fixture
def root(make_root: MakeRoot) -> Path:
    """An indexed synthetic set of 24 samples to train on."""
    return make_root()


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that a command writes lands in the checkout."""
    folder = tmp_path / "somewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("BEVNEXT_SAM2_INDEX_DIR", raising=False)
    return folder
