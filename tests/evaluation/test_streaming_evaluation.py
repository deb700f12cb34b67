"""Evaluation along scenes gives what sample by sample gives, and reads each image once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from configs.recipes import load_recipe, with_version
from configs.schema import StreamingConfig
from detectors import build_detector
from detectors.interface import Detector
from evaluation.predict import predict
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex
from scenes.streams import along_scenes

CPU = torch.device("cpu")
RECIPE = with_version(load_recipe("synthetic/bevnext-smoke-stage2", ["model.head.score_threshold=0.0"]), "v1.0-mini")
SCENE = 7
"""Samples of each of the three scenes."""


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    made = build_detector(RECIPE.model, RECIPE.data)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "heatmap" in name and name.endswith("bias"):
                parameter.zero_()
    return made


@pytest.mark.parametrize(("rows", "batch_size"), [([5, 6, 7, 8], 1), ([12, 3, 4, 6], 2)])
def test_results_are_those_of_every_sample_alone(
    small_index: SceneIndex, detector: Detector, rows: Sequence[int], batch_size: int
) -> None:
    along, alone = (
        predict(detector, small_index, rows, RECIPE.data, device=CPU, batch_size=size, streaming=streaming)
        for size, streaming in ((batch_size, True), (1, False))
    )
    assert along is not None and alone is not None
    assert list(along) == list(alone) == [small_index.token(row) for row in rows]
    for token, expected in alone.items():
        np.testing.assert_allclose(along[token].scores, expected.scores, atol=1e-5)
        if batch_size == 1:  # in another batch the last bit differs, and boxes of random weights are a matter of it
            np.testing.assert_allclose(along[token].centres, expected.centres, atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_carried_maps_do_not_depend_on_where_a_run_begins(
    small_index: SceneIndex, detector: Detector, batch_size: int
) -> None:
    """A network that was trained on carried maps gets them, and is led in where the samples begin within a scene."""
    data = RECIPE.data.model_copy(update={"streaming": StreamingConfig()})
    carrying = build_detector(RECIPE.model, data)
    carrying.load_state_dict(detector.state_dict())
    whole, late = (
        predict(carrying, small_index, rows, data, device=CPU, batch_size=batch_size) for rows in (range(4, 10), [8, 9])
    )
    window = predict(detector, small_index, [8, 9], RECIPE.data, device=CPU)
    assert whole is not None and late is not None and window is not None
    for token, found in late.items():
        if batch_size == 1:  # the same operations
            np.testing.assert_array_equal(found.scores, whole[token].scores)
        np.testing.assert_allclose(found.scores, whole[token].scores, atol=1e-5)
        assert not np.array_equal(found.scores, window[token].scores)


def stretches(
    index: SceneIndex, rows: Sequence[int], batch_size: int = 1, **ranks: int
) -> list[tuple[list[int], bool]]:
    dataset = SceneDataset(index, rows, RECIPE.data, training=False)
    return [(list(one.rows), one.wanted) for one in along_scenes(dataset, rows, batch_size, **ranks)]


def test_scenes_are_walked_in_order_and_led_in_once(small_index: SceneIndex) -> None:
    assert stretches(small_index, [0, 1, 2]) == [([0], True), ([1], True), ([2], True)]
    assert stretches(small_index, [4, 5], 2) == [([2, 3], False), ([4, 5], True)]
    assert stretches(small_index, [6, 7]) == [([4], False), ([5], False), ([6], True), ([7], True)]
    assert stretches(small_index, [2, 6], 2) == [([0, 1], False), ([4, 5], False), ([2, 6], True)]


def test_scenes_are_dealt_whole(small_index: SceneIndex) -> None:
    rows = range(3 * SCENE)
    both = [stretches(small_index, rows, 2, rank=rank, world=2) for rank in (0, 1)]
    whole = stretches(small_index, rows, 2)
    assert both[0] + both[1] == whole[:4] + whole[8:] + whole[4:8]
    assert all(row // SCENE == 1 for own, _ in both[1] for row in own)


def test_images_of_earlier_frames_are_left_out(small_index: SceneIndex) -> None:
    dataset = SceneDataset(small_index, [3], RECIPE.data, training=False, key_images_only=True)
    every = SceneDataset(small_index, [3], RECIPE.data, training=False)[0]
    assert dataset[0].images.shape[0] == 1
    assert torch.equal(dataset[0].images, every.images[:1])
    assert torch.equal(dataset[0].ego_from_cam, every.ego_from_cam)
