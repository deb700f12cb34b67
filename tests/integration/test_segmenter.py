"""SAM 2 behind its small interface: equal to the published predictor, strict about weights and sizes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import UsageError
from configs.published_weights import published_files
from integration import sam2_package, sam2_weights
from integration.sam2_package import NANO, construct_sam2, find_config, known_configs
from integration.sam2_weights import digest, load_segmenter, save_segmenter
from integration.segmenter import NO_POINT, POSITIVE, Prompts, Segmenter, upsample
from launcher.main import run

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

PARAMETERS_OF_PUBLISHED = {  # millions, counted in version 2.1
    "sam2_hiera_t": 38.96,
    "sam2_hiera_s": 46.06,
    "sam2_hiera_b+": 80.85,
    "sam2_hiera_l": 224.45,
}


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return load_segmenter(NANO, None, network_size=(96, 160))


def pictures(count: int = 2, size: tuple[int, int] = (90, 160)) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def boxes(count: int) -> Prompts:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([160.0, 90.0])
    corners = corners.sort(dim=1).values
    return Prompts.of_boxes(torch.arange(count) % 2, corners.flatten(1))


def test_equals_the_published_predictor(tmp_path: Path) -> None:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    torch.manual_seed(0)
    smaller = tmp_path / "smaller.yaml"
    smaller.write_text(find_config(NANO).read_text().replace("image_size: 512", "image_size: 256"))
    network = construct_sam2(smaller).eval()
    predictor = SAM2ImagePredictor(network)
    predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]
    image = pictures(1)
    predictor.set_image(np.ascontiguousarray(image[0].permute(1, 2, 0).numpy()))
    prompts = boxes(3)
    expected = [
        predictor.predict(box=box.numpy(), multimask_output=False, return_logits=True)
        for box in prompts.points.flatten(1)
    ]
    segmenter = Segmenter(network, (256, 256))
    with torch.no_grad():
        found = segmenter.decode(
            segmenter.encode(image), Prompts(torch.zeros(3, dtype=torch.int64), prompts.points, prompts.labels)
        )
    for number, (masks, iou, low) in enumerate(expected):
        torch.testing.assert_close(found.logits[number], torch.from_numpy(low), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.iou[number], torch.from_numpy(iou), atol=1e-5, rtol=1e-4)
        full = upsample(found.logits[number : number + 1], (90, 160))[0]
        torch.testing.assert_close(full, torch.from_numpy(masks), atol=1e-3, rtol=1e-3)


def test_chunks_do_not_change_masks(segmenter: Segmenter) -> None:
    with torch.no_grad():
        features = segmenter.encode(pictures(), chunk=1)
        together = segmenter.decode(features, boxes(7), chunk=32)
        apart = segmenter.decode(features, boxes(7), chunk=2)
    assert together.logits.shape == (7, 1, 24, 40)
    torch.testing.assert_close(together.logits, apart.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.presence, apart.presence, atol=1e-5, rtol=1e-4)


def test_no_prompts_and_three_masks(segmenter: Segmenter) -> None:
    features = segmenter.encode(pictures())
    nothing = segmenter.decode(features, boxes(0))
    assert nothing.logits.shape == (0, 1, 24, 40)
    assert nothing.token.shape == (0, segmenter.channels)
    assert segmenter.decode(features, boxes(3), several=True).logits.shape == (3, 3, 24, 40)


def test_entries_without_meaning_are_like_the_published_padding(segmenter: Segmenter) -> None:
    features, plain = segmenter.encode(pictures()), boxes(2)
    padded = Prompts(
        plain.image,
        torch.cat([plain.points, torch.full((2, 1, 2), torch.nan)], 1).nan_to_num(),
        torch.cat([plain.labels, torch.full((2, 1), NO_POINT)], 1),
    )
    assert segmenter.decode(features, padded).logits.isfinite().all()


def test_gradients_reach_encoder_and_decoder(segmenter: Segmenter) -> None:
    outputs = segmenter.decode(segmenter.encode(pictures()), boxes(3))
    (outputs.logits.sum() + outputs.iou.sum() + outputs.presence.sum()).backward()
    reached = [name for name, parameter in segmenter.named_parameters() if parameter.grad is not None]
    segmenter.zero_grad()
    assert "image_encoder.trunk.patch_embed.proj.weight" in reached
    assert "sam_mask_decoder.conv_s0.weight" in reached


def test_mask_prompts_change_the_answer(segmenter: Segmenter) -> None:
    features, plain = segmenter.encode(pictures()), boxes(2)
    with torch.no_grad():
        first = segmenter.decode(features, plain)
        hinted = Prompts(plain.image, plain.points, plain.labels, torch.full((2, 1, 24, 40), 1e6))
        second = segmenter.decode(features, hinted)
        limited = Prompts(plain.image, plain.points, plain.labels, torch.full((2, 1, 24, 40), 32.0))
        third = segmenter.decode(features, limited)
    assert not torch.allclose(first.logits, second.logits)
    torch.testing.assert_close(second.logits, third.logits)


@pytest.mark.parametrize("size", [(240, 400), (0, 32), (900, 1600)])
def test_sizes_that_are_no_multiple_of_32_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="not a multiple of 32"):
        load_segmenter(NANO, None, network_size=size)


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8, dtype=torch.uint8)])
def test_images_of_another_kind_are_refused(segmenter: Segmenter, images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="not uint8"):
        segmenter.encode(images)


def test_points_that_are_no_numbers_are_refused(segmenter: Segmenter) -> None:
    prompts = Prompts(torch.zeros(1, dtype=torch.int64), torch.full((1, 1, 2), torch.nan), torch.full((1, 1), POSITIVE))
    with pytest.raises(UsageError, match="not a number"):
        segmenter.decode(segmenter.encode(pictures()), prompts)


def test_it_is_built_on_the_gpu_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package puts tables on the current GPU: another one's memory is not to be touched."""
    current: list[str] = []

    @contextmanager
    def made_current(device: torch.device) -> Iterator[None]:
        current.append(str(device))
        yield
        current.pop()

    class BuiltError(Exception):
        pass

    def build(config: str) -> None:
        raise BuiltError(config, *current)

    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setattr(sam2_weights, "construct_sam2", build)
    for device, expected in (("cuda:1", (NANO, "cuda:1")), ("cpu", (NANO,))):
        current.clear()
        with pytest.raises(BuiltError) as ended:
            load_segmenter(NANO, None, device=device)
        assert ended.value.args == expected


def test_saved_weights_come_back(segmenter: Segmenter, tmp_path: Path) -> None:
    save_segmenter(segmenter, tmp_path / "nano.safetensors")
    again = load_segmenter(NANO, tmp_path / "nano.safetensors")
    assert digest(again) == digest(segmenter)
    assert digest(load_segmenter(NANO, None)) != digest(segmenter)


def test_published_files_are_loaded_strictly(tmp_path: Path) -> None:
    network = construct_sam2("sam2_hiera_t")
    torch.save({"model": network.state_dict()}, tmp_path / "sam2_hiera_tiny.pt")
    loaded = load_segmenter("configs/sam2/sam2_hiera_t.yaml", tmp_path / "sam2_hiera_tiny.pt", network_size=(64, 96))
    assert digest(loaded) == digest(Segmenter(network))
    with pytest.raises(UsageError, match=r"does not fit .*sam2\.1_hiera_t: .* missing"):
        load_segmenter("sam2.1_hiera_t", tmp_path / "sam2_hiera_tiny.pt")
    with pytest.raises(UsageError, match="of another shape"):
        load_segmenter(NANO, tmp_path / "sam2_hiera_tiny.pt")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["sam2_", "sam2.1_"])
@pytest.mark.parametrize("size", ["t", "s", "b+", "l"])
def test_all_published_sizes_are_built(version: str, size: str) -> None:
    network = construct_sam2(f"{version}hiera_{size}")
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert abs(millions - PARAMETERS_OF_PUBLISHED[f"sam2_hiera_{size}"]) < 0.02
    assert network.sam_mask_decoder.dynamic_multimask_via_stability


def test_the_zoo_has_all_eight() -> None:
    files = {name: file for name, file in published_files().items() if file.fits == "segmenter"}
    assert {file.recipe for file in files.values()} == {f"sam2/{name}" for name in known_configs()} - {f"sam2/{NANO}"}
    assert files["sam2.1-hiera-tiny"].entries == len(construct_sam2("sam2.1_hiera_t").state_dict())
    assert files["sam2-hiera-base-plus"].address.endswith("/072824/sam2_hiera_base_plus.pt")


def test_a_published_name_is_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEVNEXT_SAM2_CHECKPOINTS", str(tmp_path))
    with pytest.raises(UsageError, match=r"checkpoints fetch sam2\.1-hiera-tiny"):
        load_segmenter("sam2.1_hiera_t", "sam2.1-hiera-tiny")
    torch.save({"model": construct_sam2("sam2.1_hiera_t").state_dict()}, tmp_path / "sam2.1_hiera_tiny.pt")
    assert run(["checkpoints", "convert", "sam2.1-hiera-tiny"]) == 0
    assert load_segmenter("sam2.1_hiera_t", "sam2.1-hiera-tiny", network_size=(64, 64)).channels == 256


def test_eight_published_configurations_and_ours_are_known() -> None:
    assert len(known_configs()) == 9
    assert find_config("sam2_hiera_l.yaml") == known_configs()["sam2_hiera_l"]
    with pytest.raises(UsageError, match="no SAM 2 configuration 'sam3'"):
        find_config("sam3")


def test_a_configuration_makes_classes_of_sam2_alone(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: {_target_: os.system, command: exit}")
    with pytest.raises(UsageError, match="does not describe a SAM 2"):
        construct_sam2(tmp_path / "bad.yaml")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sam2", None)
    monkeypatch.setattr(sam2_package, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed"):
        find_config("sam2_hiera_t")


def test_works_beside_a_program_that_uses_hydra() -> None:
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    assert construct_sam2(NANO) is not None
