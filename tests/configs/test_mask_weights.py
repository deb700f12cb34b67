"""Which weights of SAM 2 are taken when none, or only a name, are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import UsageError
from configs.mask_weights import NANO_WEIGHTS, choose_mask_weights, config_of
from configs.published_weights import FOLDER_VARIABLE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "fetched"))
    (tmp_path / "fetched").mkdir()
    return tmp_path


def test_published_ones_come_before_ours(folder: Path) -> None:
    with pytest.raises(UsageError, match="never made up") as refused:
        choose_mask_weights(None, None)
    assert "checkpoints fetch sam2.1-hiera-tiny" in refused.value.fix
    assert "sam2 train" in refused.value.fix
    NANO_WEIGHTS.parent.mkdir(parents=True)
    NANO_WEIGHTS.touch()
    nano = choose_mask_weights(None, None)
    assert (nano.weights, nano.is_nano) == (str(NANO_WEIGHTS), True)
    for name, config in (("sam2-hiera-tiny", "sam2_hiera_t"), ("sam2.1-hiera-small", "sam2.1_hiera_s")):
        (folder / "fetched" / f"{name}.safetensors").touch()
        assert choose_mask_weights(None, None).config == config
    assert choose_mask_weights("mine.safetensors", None).is_nano
    assert choose_mask_weights("mine.safetensors", "sam2.1_hiera_l").config == "sam2.1_hiera_l"


@pytest.mark.parametrize(
    ("weights", "config"),
    [
        ("sam2.1-hiera-large", "sam2.1_hiera_l"),
        ("/some/where/sam2_hiera_base_plus.pt", "sam2_hiera_b+"),
        ("checkpoints/sam2.1-hiera-tiny.safetensors", "sam2.1_hiera_t"),
        ("outputs/sam2-nano/sam2.safetensors", "sam2_hiera_nano"),
        ("torchvision-resnet50", "sam2_hiera_nano"),
    ],
)
def test_weights_know_their_configuration(weights: str, config: str) -> None:
    assert config_of(weights) == config
