"""Reading published weights: true names and shapes, every container they come in, every way they may not fit."""

import pickle

import pytest
import torch
import torchvision
from goldens import published_state, weights
from safetensors.torch import save_file
from small_model import DATA, MODEL

from configs.errors import UsageError
from configs.schema import BEVNeXtConfig, DataConfig
from detectors import build_detector, load_backbone, load_published


@pytest.fixture(scope="module")
def state():
    return {name: torch.full(shape, 0.5) for name, shape in published_state().items()}


@pytest.fixture(scope="module")
def detector():
    return build_detector(BEVNeXtConfig(), DataConfig())


@pytest.fixture
def small_state():
    shapes = {name: tuple(value.shape) for name, value in build_detector(MODEL, DATA).state_dict().items()}
    return weights(shapes)


def test_a_published_ema_file_loads(tmp_path, detector, state):
    path = tmp_path / "epoch_2_ema.pth"
    meta = {"mmdet_version": "2.28.2", "CLASSES": ["car"], "time": "now", "epoch": 2}
    torch.save({"epoch": 2, "state_dict": state, "updates": 14422, "meta": meta}, path)
    load_published(detector, path)
    assert all((value == 0.5).all() for value in detector.state_dict().values() if value.is_floating_point())


@pytest.mark.parametrize("container", ["bare.pth", "old.pth", "wrapped.pth", "file.safetensors"])
def test_every_container_gives_the_same_weights(tmp_path, small_state, container):
    path = tmp_path / container
    if container == "bare.pth":
        torch.save(small_state, path)
    elif container == "old.pth":  # before torch 1.6, as torchvision's and mmdetection's files are
        torch.save({"state_dict": small_state}, path, _use_new_zipfile_serialization=False)
    elif container == "wrapped.pth":
        torch.save({"model": small_state, "optimizer": {"lr": 1.0}}, path)
    else:
        save_file(small_state, path)
    detector = build_detector(MODEL, DATA)
    load_published(detector, path)
    torch.testing.assert_close(dict(detector.state_dict()), small_state, rtol=0, atol=0)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path, small_state):
    path = tmp_path / "other.pth"
    del small_state["depth_emb.0.bias"]
    small_state["depth_emb.9.bias"] = torch.zeros(1)
    small_state["depth_emb.1.bias"] = torch.zeros(3)
    torch.save(small_state, path)
    detector = build_detector(MODEL, DATA)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        load_published(detector, path)
    message = str(caught.value)
    assert str(path) in message
    assert "1 missing: depth_emb.0.bias" in message
    assert "1 unexpected: depth_emb.9.bias" in message
    assert "depth_emb.1.bias (3 in the file, 10 here)" in message
    torch.testing.assert_close(dict(detector.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (
            published_state(2),
            ["img_bev_encoder_backbone.fusion_layer.bn1.bias", "img_bev_encoder_backbone.layers.0.0."],
        ),
        (
            {"pts_middle_encoder.conv_input.0.weight": (3, 3, 3, 5, 16)},
            ["missing: depth_emb.0.bias", "1 unexpected: pts_middle_encoder"],
        ),
    ],
    ids=["another stage", "another family"],
)
def test_weights_of_another_network_are_refused(tmp_path, detector, shapes, told):
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}}, path)
    with pytest.raises(UsageError, match="does not fit the detector") as caught:
        load_published(detector, path)
    assert all(words in str(caught.value) for words in told)
    assert "the recipe that these weights belong to" in str(caught.value)


class Malice:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_file_that_would_execute_code_is_refused(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "meta": Malice()}, path)
    with pytest.raises(UsageError, match=r"evil\.pth"):
        load_published(build_detector(MODEL, DATA), path)
    path.write_bytes(pickle.dumps(Malice(), protocol=2))
    with pytest.raises(UsageError, match=r"evil\.pth"):
        load_published(build_detector(MODEL, DATA), path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "empty.safetensors"])
def test_damaged_files_are_named(tmp_path, small_state, name):
    path = tmp_path / name
    torch.save(small_state, path) if name.endswith("pth") else save_file(small_state, path)
    path.write_bytes(path.read_bytes()[: 1000 if name.startswith("cut") else 0])
    with pytest.raises(UsageError, match=name):
        load_published(build_detector(MODEL, DATA), path)


def test_a_missing_file_and_a_file_without_weights(tmp_path):
    with pytest.raises(UsageError, match="not found"):
        load_published(build_detector(MODEL, DATA), tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "log.pth")
    with pytest.raises(UsageError, match="no state dict"):
        load_published(build_detector(MODEL, DATA), tmp_path / "log.pth")


def test_backbones_load_by_name(tmp_path, detector):
    published = torchvision.models.resnet50().state_dict()
    torch.save(published, tmp_path / "resnet50.pth")
    load_backbone(detector, tmp_path / "resnet50.pth")
    own = detector.get_submodule("img_backbone").state_dict()
    torch.testing.assert_close(own["layer4.2.conv3.weight"], published["layer4.2.conv3.weight"], rtol=0, atol=0)

    nuimages = {f"backbone.{name}": value + 1 for name, value in published.items() if not name.startswith("fc.")}
    torch.save({"meta": {}, "state_dict": nuimages | {"neck.x": torch.zeros(1)}}, tmp_path / "nuimages.pth")
    load_backbone(detector, tmp_path / "nuimages.pth")
    own = detector.get_submodule("img_backbone").state_dict()
    torch.testing.assert_close(own["conv1.weight"], published["conv1.weight"] + 1, rtol=0, atol=0)

    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(UsageError, match="does not fit the image backbone"):
        load_backbone(detector, tmp_path / "resnet18.pth")
