"""SAM 2 on whole images: its maps lie where the augmented pixels are, and serve the masks as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.errors import UsageError
from configs.plan import sample_bytes
from configs.recipes import load_recipe
from configs.schema import DataConfig
from detectors.image_hook import CameraViews
from detectors.interface import CameraBatch, Detections, Detector, Targets
from integration import BEVSAMFusion, SAMEnhancedBEVDetector
from integration.projection import CameraRig
from integration.sam2_package import NANO
from integration.sam2_weights import load_segmenter, save_segmenter
from integration.sam_enhanced import features_for, trunk_of
from integration.sam_features import TrunkMaps, sample_at_cells
from scenes.augment import ImageTransform
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex
from scenes.loader import evaluation_batches
from scenes.loading import ImageLoader
from scenes.order import SampleKey
from scenes.sample import Batch, collate

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

SOURCE = (90, 160)
CANVAS = (64, 128)
WHOLE = (96, 160)
TRANSFORMS = {
    "resized": ImageTransform(0.8, (72, 128), (0, 8, 128, 72)),
    "cropped": ImageTransform(1.0, SOURCE, (20, 26, 148, 90)),
    "flipped": ImageTransform(0.9, (81, 144), (9, 17, 137, 81), flip=True),
    "turned": ImageTransform(0.9, (81, 144), (9, 17, 137, 81), flip=True, rotate_degrees=5.0),
    "beyond": ImageTransform(0.7, (63, 112), (-8, -1, 120, 63), rotate_degrees=-5.0),
}
CONFIG = DataConfig(
    version="v1.0-synthetic", source_size=(396, 704), image_size=(96, 256), whole_size=(160, 288), class_balanced=False
)


def picture() -> Tensor:
    """uint8 `[90, 160, 3]`: smooth, and different everywhere."""
    v, u = torch.meshgrid(torch.arange(90.0), torch.arange(160.0), indexing="ij")
    return torch.stack([60 + u, 40 + 2 * v, 128 + 60 * torch.sin(u / 12) * torch.cos(v / 9)], -1).to(torch.uint8)


def augmented(transform: ImageTransform) -> Tensor:
    """float32 `[3, 64, 128]`"""
    canvas = torch.zeros(*CANVAS, 3, dtype=torch.uint8)
    transform.apply(picture().clone(), ImageLoader(), canvas)
    return canvas.permute(2, 0, 1).float()


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_pixels_of_the_whole_image_fall_on_the_same_pixels_of_the_canvas(transform: ImageTransform) -> None:
    """The picture is its own map: sampled at cells of one pixel it is the loader's augmented picture."""
    whole = torch.zeros(*WHOLE, 3, dtype=torch.uint8)
    ImageLoader().resize(picture(), whole)
    matrix = torch.from_numpy(transform.canvas_from_img()).float()[None]
    sampled = sample_at_cells(whole.permute(2, 0, 1).float()[None], matrix, 1, CANVAS, SOURCE)[0]
    there = augmented(transform)
    covered = (there.sum(0) > 0) & (sampled.sum(0) > 0)
    inside = -nn.functional.max_pool2d(-covered[None].float(), 7, 1, 3)[0] > 0  # away from edges, which are blended
    assert inside.float().mean() > 0.5
    assert (sampled - there).abs()[:, inside].mean() < 1.0  # a pixel's shift would be 1.7


def test_cells_of_every_stride_read_their_own_place() -> None:
    """A map that holds each cell's place in the image gives the place of each cell of the canvas."""
    transform = TRANSFORMS["turned"]
    matrix = torch.from_numpy(transform.canvas_from_img()).float()
    rows, columns = 20, 32
    v, u = torch.meshgrid(
        (torch.arange(rows) + 0.5) / rows * 90, (torch.arange(columns) + 0.5) / columns * 160, indexing="ij"
    )
    for stride in (8, 16, 32):
        size = (CANVAS[0] // stride, CANVAS[1] // stride)
        found = sample_at_cells(torch.stack([u, v])[None], matrix[None], stride, size, SOURCE)[0]
        for row in range(size[0]):
            for column in range(size[1]):
                place = torch.tensor([(column + 0.5) * stride, (row + 0.5) * stride, 0.0, 1.0])
                expected = torch.linalg.solve(matrix, place)[:2]
                if 3 < expected[0] < 157 and 3 < expected[1] < 87:
                    torch.testing.assert_close(found[:, row, column], expected, atol=1e-2, rtol=0)


def test_beyond_the_image_there_is_nothing() -> None:
    matrix = torch.eye(4)[None]
    matrix[:, 0, 3] = 64.0  # the image begins in the middle of the canvas
    found = sample_at_cells(torch.ones(1, 1, 10, 20), matrix, 8, (8, 16), SOURCE)
    assert bool((found[..., :8].abs() < 1e-5).all())
    assert bool((found[..., 8:] > 0).all())


# --- the loader ----------------------------------------------------------------------------------------------------


def samples(index: SceneIndex, training: bool, **changes: Any) -> SceneDataset:
    return SceneDataset(index, np.arange(len(index)), CONFIG.model_copy(update=changes), training)


def test_whole_images_travel_beside_the_others_and_change_none(town: SceneIndex) -> None:
    first, again = (samples(town, True)[SampleKey(0, epoch, 0)] for epoch in (0, 1))
    without = samples(town, True, whole_size=None)[SampleKey(0, 0, 0)]
    assert first.whole is not None
    assert again.whole is not None
    assert first.whole.shape == (1, 6, 3, 160, 288)
    assert first.whole.dtype == torch.uint8
    assert torch.equal(first.whole, again.whole)  # never augmented
    assert not torch.equal(first.images, again.images)
    assert torch.equal(first.images, without.images)
    assert without.whole is None
    assert collate([without]).whole is None


def test_whole_images_are_what_sam2_makes_of_the_files(town: SceneIndex) -> None:
    sample = samples(town, False)[0]
    assert sample.whole is not None
    frame = town.frame(sample.row)
    image = ImageLoader().read(frame.image_paths[0], frame.image_size).permute(2, 0, 1)[None]
    segmenter = load_segmenter(NANO, None, network_size=(160, 288))
    difference = segmenter.normalise(image) - segmenter.normalise(sample.whole[0, :1])
    assert difference.abs().max() < 1.01 / 255 / 0.224  # a rounded grey level


def test_batches_hold_whole_images_and_move_them(town: SceneIndex) -> None:
    (batch,) = evaluation_batches(samples(town, False), batch_size=3)
    assert batch.whole is not None
    assert batch.whole.shape == (3, 1, 6, 3, 160, 288)
    moved = batch.to("meta")
    assert moved.whole is not None
    assert moved.whole.device.type == "meta"
    assert batch.whole.flatten(0, 2).is_contiguous(memory_format=torch.channels_last)


def test_the_plan_counts_their_bytes(town: SceneIndex) -> None:
    with_whole, without = (
        load_recipe("synthetic/bevnext-smoke", [f"data.whole_size={size}"]) for size in ("[160, 288]", "null")
    )
    sample = samples(town, False)[0]
    assert sample.whole is not None
    assert sample_bytes(with_whole) - sample_bytes(without) == sample.whole.nbytes


# --- masks from the detector's maps --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("sam2") / "nano.safetensors"
    save_segmenter(load_segmenter(NANO, None), path)
    return path


def native(weights: Path | None, *overrides: str) -> SAMEnhancedBEVDetector:
    recipe = load_recipe(
        "synthetic/bevnext-smoke",
        ["data.source_size=[396, 704]", "data.whole_size=[160, 288]", "data.image_size=[64, 128]", *overrides],
    )
    return SAMEnhancedBEVDetector(recipe, weights, NANO, fusion_dim=16, mode="native").eval()


def key_frame(index: SceneIndex, detector: SAMEnhancedBEVDetector) -> tuple[Batch, TrunkMaps]:
    """A batch, and the maps that the detector made of it on its way to boxes."""
    batch = collate([samples(index, False, image_size=(64, 128), depth_stride=8)[0]])
    with torch.no_grad(), detector.features.keeping() as kept:
        detector(batch)
    (maps,) = kept
    return batch, maps


def rig_and_boxes(index: SceneIndex, batch: Batch) -> tuple[CameraRig, dict[str, Tensor]]:
    rig = CameraRig(
        batch.img_from_cam[0, 0, :, :3, :3].double(), torch.linalg.inv(batch.ego_from_cam[0, 0].double()), (396, 704)
    )
    boxes = batch.boxes[0]
    return rig, {"boxes_3d": boxes, "scores": torch.linspace(0.9, 0.2, len(boxes)), "labels": batch.labels[0]}


def test_masks_from_the_detectors_features_are_those_of_an_encoding_of_their_own(
    town: SceneIndex, weights: Path
) -> None:
    detector = native(weights)
    batch, maps = key_frame(town, detector)
    fusion = BEVSAMFusion(weights, NANO, "cpu", network_size=(160, 288))
    rig, found = rig_and_boxes(town, batch)
    assert batch.whole is not None
    own = fusion.segment(batch.whole[0, 0], found, rig)
    shared = fusion.segment(batch.whole[0, 0], found, rig, fusion.features_of(maps))
    assert len(own["masks"]) > 3
    assert bool(own["masks"].any())
    for name, value in own.items():
        assert torch.equal(value, shared[name]), name


def test_maps_of_one_sample_of_a_batch(town: SceneIndex, weights: Path) -> None:
    detector = native(weights)
    _, maps = key_frame(town, detector)
    assert torch.equal(maps.of_images(slice(2, 4)).maps[1], maps.maps[1][2:4])
    assert maps.of_images(slice(2, 4)).sha256 == maps.sha256


def test_maps_of_another_sam2_or_another_size_are_refused(town: SceneIndex, weights: Path) -> None:
    _, maps = key_frame(town, native(weights))
    other = BEVSAMFusion(None, NANO, "cpu", network_size=(160, 288))
    with pytest.raises(UsageError, match="other weights"):
        other.features_of(maps)
    larger = BEVSAMFusion(weights, NANO, "cpu", network_size=(192, 288))
    with pytest.raises(UsageError, match=r"network_size=\(160, 288\)") as raised:
        larger.features_of(maps)
    assert "whole_size" in str(raised.value)


def test_a_batch_without_whole_images_is_refused(town: SceneIndex, weights: Path) -> None:
    batch = collate([samples(town, False, image_size=(64, 128), whole_size=None)[0]])
    with pytest.raises(UsageError, match="no whole images"):
        native(weights)(batch)


def test_a_native_recipe_without_whole_images_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.whole_size is null"):
        load_recipe("synthetic/bevnext-smoke", ["sam2.mode=native", "sam2.random=true"])


# --- other families ------------------------------------------------------------------------------------------------


class FourLevels(Detector):
    """A family with a feature pyramid of four levels of 256 channels, as SparseBEV has; it knows its hook alone."""

    def __init__(self) -> None:
        super().__init__()
        self.img_backbone = nn.ModuleList(nn.Conv2d(3, 256, stride, stride) for stride in self.image_channels)

    @property
    def image_channels(self) -> dict[int, int]:
        return dict.fromkeys((4, 8, 16, 32), 256)

    def forward(self, batch: CameraBatch) -> dict[int, Tensor]:
        images = batch.images.flatten(0, 2).float() / 255
        levels = {stride: level(images) for stride, level in zip(self.image_channels, self.img_backbone, strict=True)}
        return levels if self.sam is None else self.sam(levels, CameraViews.of_frames(batch, slice(None)))

    def targets(self, batch: CameraBatch) -> Targets:
        raise NotImplementedError

    def loss(self, outputs: Any, targets: Any, normaliser: Tensor | None = None) -> dict[str, Tensor]:
        raise NotImplementedError

    def decode(self, outputs: Any) -> list[Detections]:
        raise NotImplementedError


@pytest.mark.parametrize("mode", ["shared", "native"])
def test_any_family_with_the_hook_takes_the_features(town: SceneIndex, weights: Path, mode: Any) -> None:
    recipe = load_recipe("synthetic/bevnext-smoke", ["data.source_size=[396, 704]", "data.whole_size=[160, 288]"])
    detector = FourLevels()
    batch = collate([samples(town, False, image_size=(64, 128))[0]])
    plain = detector(batch)
    detector.sam = features_for(
        detector, recipe, trunk_of(recipe, weights, NANO, mode), 16, mode, (4, 8, 16, 32), False
    )
    found = detector(batch)
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[stride], plain[stride]) for stride in plain)
    torch.stack([level.square().mean() for level in found.values()]).sum().backward()
    assert all(p.grad is not None for p in detector.sam.adapters.parameters())  # type: ignore[union-attr]


def test_a_family_without_the_hook_says_so(weights: Path) -> None:
    class NoImages(FourLevels):
        @property
        def image_channels(self) -> dict[int, int]:
            return {}

    recipe = load_recipe("synthetic/bevnext-smoke")
    with pytest.raises(UsageError, match="no image features of stride 8") as raised:
        features_for(NoImages(), recipe, trunk_of(recipe, weights, NANO, "shared"), 16, "shared", (8,), False)
    assert "leave the section sam2 out" in str(raised.value)
