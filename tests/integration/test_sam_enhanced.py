"""SAM 2's features in BEVNeXt: nothing at step 0, learnt after it; frozen weights are neither trained nor saved."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import UsageError
from configs.recipes import load_recipe
from configs.schema import EmaConfig, Recipe
from detectors import build_detector
from integration import SAMEnhancedBEVDetector
from integration.frozen import Frozen
from integration.sam2_package import NANO
from integration.sam2_weights import load_segmenter, save_segmenter
from integration.sam_enhanced import build_recipe_detector
from training.moving_average import MovingAverage

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

CAMERAS = 2
SAM = "sam.trunk"


def smoke(*overrides: str) -> Recipe:
    return load_recipe("synthetic/bevnext-smoke", ["data.cameras=[CAM_FRONT, CAM_BACK]", *overrides])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("sam2") / "nano.safetensors"
    save_segmenter(load_segmenter(NANO, None), path)
    return path


def enhanced(weights: Path | None, seed: int = 0, **options: object) -> SAMEnhancedBEVDetector:
    torch.manual_seed(seed)
    return SAMEnhancedBEVDetector(smoke(), weights, NANO, fusion_dim=16, **options)  # type: ignore[arg-type]


def canvas() -> Tensor:
    return torch.randint(0, 256, (CAMERAS, 3, 64, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def batch_of(*images: Tensor, whole: Tensor | None = None) -> Any:
    """Samples of two cameras that look ahead; `whole` of the same samples."""
    to_ego = torch.eye(4)
    to_ego[:3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    intrinsics = torch.eye(4)
    intrinsics[:3, :3] = torch.tensor([[60.0, 0, 64], [0, 60.0, 32], [0, 0, 1]])
    augmentation = torch.diag(torch.tensor([0.08, 0.08, 1.0, 1.0]))
    augmentation[:2, 3] = torch.tensor([-1.0, -6.0])
    count = len(images)
    return SimpleNamespace(
        images=torch.stack(images)[:, None],
        whole=whole,
        img_from_cam=intrinsics.expand(count, 1, CAMERAS, 4, 4),
        ego_from_cam=to_ego.expand(count, 1, CAMERAS, 4, 4),
        canvas_from_img=augmentation.expand(count, 1, CAMERAS, 4, 4),
        bev_from_ego=torch.eye(4).expand(count, 4, 4),
        global_from_ego=torch.eye(4, dtype=torch.float64).expand(count, 4, 4),
        walk=[],
    )


def wholes(samples: int) -> Tensor:
    random = torch.Generator().manual_seed(8)
    return torch.randint(0, 256, (samples, 1, CAMERAS, 3, 96, 160), dtype=torch.uint8, generator=random)


def views_of(detector: Any, images: Tensor) -> Any:
    return detector.views(batch_of(images), slice(0, 1))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("mode", ["shared", "native"])
@pytest.mark.parametrize("knowing", [True, False], ids=["trained", "random"])
def test_step_0_is_the_plain_detector_bit_for_bit(weights: Path, mode: str, training: bool, knowing: bool) -> None:
    """All raw outputs, and the batch-norm statistics that a training step leaves."""
    recipe = smoke("data.whole_size=[96, 160]")
    torch.manual_seed(0)
    plain = build_detector(recipe.model, recipe.data).train(training)
    torch.manual_seed(0)
    joined = SAMEnhancedBEVDetector(recipe, weights if knowing else None, NANO, fusion_dim=16, mode=mode)  # type: ignore[arg-type]
    joined.train(training)
    batch = batch_of(canvas(), canvas().flip(-1), whole=wholes(2))
    for seed in (1, 2):
        torch.manual_seed(seed)  # dropout
        expected = plain(batch)
        torch.manual_seed(seed)
        found = joined(batch)
        assert torch.equal(expected.depth, found.depth)
        assert torch.equal(expected.context, found.context)
        assert all(torch.equal(a, b) for a, b in zip(expected.heatmaps, found.heatmaps, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(expected.boxes, found.boxes, strict=True))
    after = joined.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in plain.state_dict().items())


def test_adapters_learn_and_sam2_does_not(weights: Path) -> None:
    joined = enhanced(weights).train()
    before = copy.deepcopy(joined.sam.trunk._held[0].state_dict())
    optimizer = torch.optim.SGD([p for p in joined.parameters() if p.requires_grad], lr=0.1)
    images, views = joined.normalise(canvas()), views_of(joined, canvas())
    first = joined.image_features(images, views)
    for _ in range(2):
        optimizer.zero_grad()
        joined.image_features(images, views).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None for p in joined.sam.adapters.parameters())
    assert not torch.equal(first, joined.image_features(images, views))
    after = joined.sam.trunk._held[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in joined.sam.trunk._held[0].modules())


def test_frozen_weights_are_not_saved_trained_or_copied(weights: Path) -> None:
    joined = enhanced(weights)
    names = set(joined.state_dict())
    assert {name for name in names if name.startswith(SAM)} == {f"{SAM}.sha256"}
    assert not any(name.startswith(SAM) for name, _ in joined.named_parameters())
    average = MovingAverage(joined, EmaConfig())
    average.update(1)
    assert average.detector.sam.trunk._held[0] is joined.sam.trunk._held[0]
    assert average.detector.sam.adapters["8"].gate is not joined.sam.adapters["8"].gate


def test_a_checkpoint_knows_the_frozen_weights_it_was_trained_beside(weights: Path) -> None:
    saved = enhanced(weights).state_dict()
    enhanced(weights, seed=1).load_state_dict(saved)
    with pytest.raises(UsageError, match="trained beside other frozen weights"):
        enhanced(None, seed=1).load_state_dict(saved)


def test_the_control_has_the_same_random_weights_every_time() -> None:
    enhanced(None, seed=1).load_state_dict(enhanced(None, seed=2).state_dict())


def test_frozen_networks_move_with_their_owner() -> None:
    owner = torch.nn.Sequential(Frozen(torch.nn.Linear(2, 2)))
    owner.double()
    assert owner(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_sam2_sees_right_colours_whatever_the_detector_sees(weights: Path) -> None:
    """BEVNeXt's images are BGR; SAM 2 gets what it gets for masks."""
    joined = enhanced(weights)
    segmenter = load_segmenter(NANO, weights, network_size=(64, 128))
    maps = joined.features.trunk_maps(views_of(joined, canvas())).maps
    with torch.no_grad():
        expected = segmenter.image_encoder.trunk(segmenter.normalise(canvas()))
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))


def test_image_features_without_their_views_are_refused(weights: Path) -> None:
    joined = enhanced(weights)
    with pytest.raises(UsageError, match="needs the views"):
        joined.image_features(joined.normalise(canvas()))


def test_features_by_the_names_of_the_first_version(weights: Path) -> None:
    joined = enhanced(weights)
    found = joined.extract_sam_features(canvas()[None])
    assert found["feature_shape"] == (4, 8)
    assert found["sam_features"] is found["pyramid"][16]
    levels = joined.img_backbone(joined.normalise(canvas()))
    assert all(torch.equal(a, b) for a, b in zip(levels, joined.fuse_features(levels, found["pyramid"]), strict=True))
    with pytest.raises(UsageError, match="not uint8"):
        joined.extract_sam_features(canvas().float())


def test_sam2_as_the_backbone_is_trained(weights: Path) -> None:
    torch.manual_seed(0)
    joined = SAMEnhancedBEVDetector(smoke("model.bgr_input=false"), weights, NANO, mode="backbone")
    joined.image_features(joined.normalise(canvas())).sum().backward()
    assert joined.img_backbone.conv1.weight.grad is not None
    assert joined.sam is None
    with pytest.raises(UsageError, match="bgr_input"):
        SAMEnhancedBEVDetector(smoke(), weights, NANO, mode="backbone")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sam2.config=sam2_hiera_nano"], "no weights of SAM 2 are named"),
        (["sam2.config=sam2_hiera_nano", "sam2.random=true", "sam2.weights=x.pt"], "beside sam2.weights"),
        (["sam2.weights=nowhere.pt", "sam2.config=sam2_hiera_nano"], "not found"),
        (["sam2.random=true", "sam2.config=sam2_hiera_nano", "sam2.adapter_channels=12"], "multiple of 8"),
        (["sam2.random=true", "sam2.config=sam2_hiera_nano", "data.image_size=[72, 128]"], "multiple of 32"),
        (["sam2.random=true", "sam2.config=sam2_hiera_nano", "sam2.strides=[4, 8]"], "no image features of stride 4"),
        (
            ["sam2.random=true", "sam2.config=sam2_hiera_nano", "sam2.mode=native", "data.whole_size=[90, 160]"],
            "multiple of 32",
        ),
    ],
)
def test_recipes_that_cannot_be_built_say_why(overrides: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build_recipe_detector(smoke(*overrides))


def test_a_recipe_without_the_section_gives_the_plain_detector() -> None:
    assert not isinstance(build_recipe_detector(smoke()), SAMEnhancedBEVDetector)


def test_the_fusion_recipe_is_stage_1_with_sam2() -> None:
    recipe = load_recipe("fusion_config")
    assert recipe.model == load_recipe("bevnext/bevnext-stage1").model
    assert recipe.sam2 is not None
    assert recipe.sam2.mode == "shared"


def test_the_whole_detector_runs(weights: Path) -> None:
    joined = enhanced(weights).eval()
    with torch.no_grad():
        assert len(joined.decode(joined(batch_of(canvas())))) == 1
