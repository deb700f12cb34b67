"""`checkpoints list|fetch|convert|check` with files of the published names, shapes and wrappers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from file_server import Served, serve
from safetensors import safe_open
from safetensors.torch import load_file

from configs.errors import DataError
from configs.published_weights import digest, published_files, record_file, weights_path
from configs.recipes import load_recipe
from detectors import build_detector, load_backbone
from launcher.main import run

STATES = Path(__file__).parents[1] / "golden" / "bevnext"
META = {"mmcv_version": "1.6.0", "CLASSES": ("car", "truck"), "time": "now", "config": "model = dict()"}


def published_shapes(stage: int) -> dict[str, list[int]]:
    found = json.loads((STATES / f"bevnext_stage{stage}_state.json").read_text())
    assert isinstance(found, dict)
    return found


def state_of(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Entries that take no room: every element of one is the same number in memory."""
    return {name: torch.tensor(0.5, dtype=torch.float16).expand(shape) for name, shape in shapes.items()}


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def backbone_shapes() -> dict[str, list[int]]:
    prefix = "img_backbone."
    return {n.removeprefix(prefix): s for n, s in published_shapes(1).items() if n.startswith(prefix)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEVNEXT_SAM2_CHECKPOINTS", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "weights"


def test_the_zoo_is_whole() -> None:
    for name, file in published_files().items():
        if file.fits == "segmenter":
            continue  # tests/integration has them: they need the sam2 package
        frames = load_recipe(file.recipe).data.frames
        shapes = published_shapes(1 if frames == 1 else 2) if file.fits == "detector" else backbone_shapes()
        assert len(shapes) == file.entries, name
        assert file.address.startswith("https://"), name
        assert file.file_name.endswith(".pth"), name
    starts = (load_recipe(f"bevnext/{name}").model for name in ("bevnext-stage1", "bevnext-pers-pretrained-stage1"))
    assert {model.backbone.weights for model in starts} <= set(published_files())


def test_list_says_what_is_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    (folder / "bevnext_stage2.pth").write_bytes(b"")
    assert run(["checkpoints", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["bevnext-stage2"]["state"] == "fetched"
    assert rows["bevnext-stage2"]["metrics"] == {"NDS": 0.548, "mAP": 0.437}
    assert rows["bevnext-stage1"]["state"] == "not here"
    assert "sha256_prefix" not in rows["bevnext-stage1"]
    assert run(["checkpoints", "list"]) == 0
    assert "nuimages-cascade-rcnn-r50" in capsys.readouterr().out


def test_fetch_gets_verifies_converts_and_checks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = saved({"epoch": 2, "state_dict": state_of(published_shapes(1)), "updates": 14422, "meta": META})
    with serve(Served(content, cut_after=[1000])) as served:
        assert run(["checkpoints", "fetch", "bevnext-stage1", "--address", served.address]) == 0
        told = capsys.readouterr().out
        assert "recorded" in told
        assert "897 entries (left aside: epoch, updates, meta)" in told
        original, converted = folder / "bevnext_stage1.pth", folder / "bevnext-stage1.safetensors"
        assert original.read_bytes() == content
        assert record_file(original).read_text() == f"{digest(original)}  bevnext_stage1.pth\n"
        assert weights_path("bevnext-stage1") == converted
        with safe_open(converted, "pt") as file:
            assert set(file.keys()) == set(published_shapes(1))
            assert file.metadata()["source"] == "bevnext_stage1.pth"
            assert file.get_slice("img_neck.fpn_convs.0.conv.weight").get_shape() == [512, 512, 3, 3]
        written = converted.stat().st_mtime_ns
        asked = len(served.ranges)
        assert run(["checkpoints", "fetch", "bevnext-stage1", "--address", served.address]) == 0
        assert (len(served.ranges), converted.stat().st_mtime_ns) == (asked, written)
    assert "is here" in capsys.readouterr().out
    assert run(["checkpoints", "check", "bevnext-stage1"]) == 0
    assert run(["checkpoints", "check", str(original), "--config", "bevnext/bevnext-pers-pretrained-stage1"]) == 0
    original.unlink()
    converted.write_bytes(b"x" + converted.read_bytes()[1:])
    assert run(["checkpoints", "check", "bevnext-stage1"]) == 3
    assert "damaged or was replaced" in capsys.readouterr().err
    with pytest.raises(DataError, match="damaged or was replaced"):
        weights_path("bevnext-stage1")


def test_a_file_put_there_by_hand_is_converted_once_and_names_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "nuimages-cascade-rcnn-r50"
    assert run(["checkpoints", "convert", name]) == 2
    assert published_files()[name].file_name in capsys.readouterr().err
    folder.mkdir()
    state = {f"backbone.{n}": value for n, value in state_of(backbone_shapes()).items()}
    content = {"meta": META, "state_dict": state | {"neck.fpn_convs.0.conv.weight": torch.zeros(1)}, "optimizer": {}}
    path = folder / published_files()[name].file_name
    path.write_bytes(saved(content))
    assert run(["checkpoints", "convert", name]) == 3  # the publisher's name carries the digest of another file
    assert "its publisher's begins with 40963960" in capsys.readouterr().err
    file = published_files()[name].model_copy(update={"sha256_prefix": digest(path)[:8]})
    monkeypatch.setitem(published_files(), name, file)
    assert run(["checkpoints", "convert", name]) == 0
    converted = folder / f"{name}.safetensors"
    assert "neck.fpn_convs.0.conv.weight" in load_file(converted)
    detector = build_detector(load_recipe("bevnext/bevnext-stage1").model, load_recipe("bevnext/bevnext-stage1").data)
    load_backbone(detector, name)
    assert (detector.get_submodule("img_backbone.layer4.2.conv3").weight == 0.5).all()


@pytest.mark.parametrize(
    ("stage", "change", "told"),
    [
        (2, {}, "missing: "),  # of another stage
        (1, {"depth_emb.0.bias": None}, "1 missing: depth_emb.0.bias"),
        (1, {"depth_emb.9.bias": [3]}, "1 unexpected: depth_emb.9.bias"),
        (1, {"depth_emb.0.bias": [3]}, "depth_emb.0.bias (3 in the file, 118 here)"),
    ],
)
def test_what_does_not_fit_is_listed(
    folder: Path, capsys: pytest.CaptureFixture[str], stage: int, change: dict[str, list[int] | None], told: str
) -> None:
    changed = published_shapes(stage) | change
    folder.mkdir()
    content = {"state_dict": state_of({name: shape for name, shape in changed.items() if shape is not None})}
    (folder / "bevnext_stage1.pth").write_bytes(saved(content))
    assert run(["checkpoints", "convert", "bevnext-stage1"]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "bevnext/bevnext-stage1" in said
    assert not (folder / "bevnext-stage1.safetensors").exists()


def test_mistakes_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, told in (
        (["fetch", "bevnext-stage3"], 2, "did you mean bevnext-stage"),
        (["fetch", "bevnext-stage1", "bevnext-stage2", "--address", "http://127.0.0.1/x"], 2, "one file"),
        (["fetch", "bevnext-stage1", "--address", "mirror.org/bevnext_stage1.pth"], 2, "https://"),
        (["check", "bevnext-stage1"], 2, "checkpoints fetch bevnext-stage1"),
        (["check", "nowhere.pth"], 2, "nowhere.pth"),
        (["check", __file__], 2, "--config"),
        (["check", __file__, "--config", "bevnext/bevnext-stage1"], 2, "cannot read weights"),
    ):
        assert run(["checkpoints", *arguments]) == code, arguments
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "mine: {summary: x, adress: https://x.org/a.pth}",
            ["mine.adress: Extra inputs", "mine.address: Field required"],
        ),
        ("mine: 3", ["mine: Input should be a valid dictionary"]),
        ("- mine", ["holds no entries"]),
        ("mine: [", ["is not YAML"]),
    ],
)
def test_a_zoo_with_mistakes_is_named(
    content: str,
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("configs.published_weights.ZOO", tmp_path / "zoo.yaml")
    monkeypatch.setattr("checkpoints.commands.published_files", published_files.__wrapped__)
    (tmp_path / "zoo.yaml").write_text(content)
    assert run(["checkpoints", "list"]) == 2
    said = capsys.readouterr().err
    assert all(words in said for words in ["zoo.yaml", "fix:", *told])


def test_files_older_than_the_counters_of_batch_norm_fit(tmp_path: Path) -> None:
    shapes = {n: s for n, s in backbone_shapes().items() if not n.endswith("num_batches_tracked")}
    path = tmp_path / "old.pth"
    path.write_bytes(saved(state_of(shapes | {"fc.weight": [1000, 2048], "fc.bias": [1000]})))
    assert run(["checkpoints", "check", str(path), "--config", "bevnext/bevnext-stage1", "--backbone"]) == 0
