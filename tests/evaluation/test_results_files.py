"""The results file: what is written comes back, what is wrong is named."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import BevnextError, DataError
from evaluation.global_boxes import GlobalBoxes
from evaluation.results import MAX_BOXES, read_results, write_results

TOKEN = "0" * 32


def boxes(count: int, seed: int = 0) -> GlobalBoxes:
    random = np.random.default_rng(seed)
    quaternions = random.normal(size=(count, 4))
    return GlobalBoxes(
        centres=random.normal(size=(count, 3)) * 100,
        sizes=random.uniform(0.5, 5, (count, 3)),
        rotations=quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True),
        velocities=random.normal(size=(count, 2)),
        labels=random.integers(0, 10, count),
        scores=np.sort(random.uniform(size=count))[::-1].copy(),
        attributes=("",) * count,
    )


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    found = boxes(7)
    path = write_results(tmp_path / "deep" / "results.json", {TOKEN: found, "f" * 32: boxes(0)})
    back = read_results(path)
    assert list(back) == [TOKEN, "f" * 32]
    assert len(back["f" * 32]) == 0
    for name in ("centres", "sizes", "rotations", "velocities", "labels", "scores"):
        np.testing.assert_array_equal(getattr(back[TOKEN], name), getattr(found, name))
    assert json.loads(path.read_text())["meta"]["use_camera"] is True


def test_the_best_500_boxes_are_kept(tmp_path: Path) -> None:
    found = boxes(MAX_BOXES + 20)
    shuffled = found.keep(np.random.default_rng(1).permutation(len(found)))
    back = read_results(write_results(tmp_path / "results.json", {TOKEN: shuffled}))[TOKEN]
    np.testing.assert_array_equal(np.sort(back.scores)[::-1], found.scores[:MAX_BOXES])
    kept = shuffled.scores >= found.scores[MAX_BOXES - 1]
    np.testing.assert_array_equal(back.scores, shuffled.scores[kept])  # in the order that was given


def test_unknown_velocities_are_written_as_zero(tmp_path: Path) -> None:
    found = boxes(1)
    found.velocities[:] = np.nan
    back = read_results(write_results(tmp_path / "results.json", {TOKEN: found}))[TOKEN]
    assert back.velocities.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"translation": [1.0, 2.0]}, "translation"),
        ({"translation": [1.0, 2.0, float("nan")]}, "translation"),
        ({"size": [1.0, 0.0, 1.0]}, "size"),
        ({"rotation": [0, 0, 0, 0]}, "rotation"),
        ({"velocity": None}, "velocity"),
        ({"detection_name": "van"}, "'van'"),
        ({"detection_score": "0.5"}, "detection_score"),
        ({"attribute_name": "flying"}, "'flying'"),
        ({"sample_token": "other"}, "'other'"),
    ],
)
def test_a_wrong_box_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    path = write_results(tmp_path / "results.json", {TOKEN: boxes(2)})
    content = json.loads(path.read_text())
    content["results"][TOKEN][1].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"{TOKEN}, box 1: .*{named}"):
        read_results(path)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = write_results(tmp_path / "results.json", {TOKEN: boxes(1)})
    content = json.loads(path.read_text())
    del content["results"][TOKEN][0]["velocity"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="lacks velocity"):
        read_results(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"results": {}}', '{"meta": {}, "results": {"a": 1}}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"results\.json"):
        read_results(path)
    with pytest.raises(DataError, match="does not exist"):
        read_results(tmp_path / "absent.json")


def test_more_than_500_boxes_are_refused(tmp_path: Path) -> None:
    path = write_results(tmp_path / "results.json", {TOKEN: boxes(1)})
    content = json.loads(path.read_text())
    content["results"][TOKEN] *= MAX_BOXES + 1
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="501 boxes"):
        read_results(path)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_results(tmp_path / "results.json", {TOKEN: boxes(2)})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BevnextError, match=r"results\.json: No space left on device"):
        write_results(path, {TOKEN: boxes(3)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
