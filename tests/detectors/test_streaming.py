"""Along a scene, remembered features give what all frames anew give."""

from types import SimpleNamespace

import pytest
import torch
from small_model import DATA, DATA_2, MODEL, MODEL_2, random_batch

from detectors import build_detector
from detectors.bevnext.model import BEVNeXt
from detectors.bevnext.streaming import FeatureStream

FRAMES = DATA_2.frames


@pytest.fixture(scope="module")
def detector() -> BEVNeXt:
    torch.manual_seed(0)
    model = build_detector(MODEL_2, DATA_2).eval()
    assert isinstance(model, BEVNeXt)
    return model


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Images of two scenes of four frames each, `[8, 6, 3, H, W]`."""
    return random_batch(8).images[:, 0]


def frames_of(row: int) -> list[int]:
    first = row // 4 * 4
    return [row - age if row - age >= first else row for age in range(FRAMES)]


def sample(rows: list[int], pictures: torch.Tensor, key_only: bool) -> SimpleNamespace:
    batch = random_batch(len(rows), data=DATA_2)
    batch.images = torch.stack([pictures[frames_of(row)[:1] if key_only else frames_of(row)] for row in rows])
    return batch


@pytest.mark.parametrize("batches", [[[0], [1], [2], [3], [4], [5]], [[0, 1, 2], [3], [4, 5, 6]]])
def test_results_are_those_of_all_frames_anew(detector, pictures, batches):
    stream = detector.stream()
    for rows in batches:
        ours = stream.detect(sample(rows, pictures, key_only=True), [frames_of(row) for row in rows])
        with torch.no_grad():
            plain = detector(sample(rows, pictures, key_only=False))
        for one, other in zip(ours.heatmaps + ours.boxes, plain.heatmaps + plain.boxes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_every_image_is_encoded_once_and_the_past_scene_is_forgotten(detector, pictures):
    encoded: list[int] = []
    hook = detector.img_neck.register_forward_hook(lambda _module, _args, out: encoded.append(len(out) // 6))
    stream = detector.stream()
    assert isinstance(stream, FeatureStream)
    for row in range(8):
        stream.detect(sample([row], pictures, key_only=True), [frames_of(row)])
        assert set(stream._features) == set(frames_of(row))
    hook.remove()
    assert encoded == [1] * 8


def test_a_run_that_begins_in_a_scene_is_led_in(detector, pictures):
    stream = detector.stream()
    stream.remember(sample([4, 5], pictures, key_only=True), [4, 5])
    ours = stream.detect(sample([6], pictures, key_only=True), [frames_of(6)])
    with torch.no_grad():
        plain = detector(sample([6], pictures, key_only=False))
    torch.testing.assert_close(ours.heatmaps, plain.heatmaps, rtol=1e-5, atol=1e-5)


def test_a_frame_that_was_not_given_is_an_error(detector, pictures):
    with pytest.raises(KeyError):
        detector.stream().detect(sample([6], pictures, key_only=True), [frames_of(6)])


def test_one_frame_has_nothing_to_remember():
    assert build_detector(MODEL, DATA).stream() is None
