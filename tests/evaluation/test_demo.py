"""`demo` and `infer --masks` as a user meets them: what they make, and what they refuse."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_view import boxes_at, made_up_view
from PIL import Image
from safetensors.torch import save_file

from configs.mask_weights import MaskWeights
from configs.nuscenes import CAMERAS
from configs.recipes import load_recipe
from detectors import build_detector
from evaluation import demo_source
from evaluation.box_file import read_boxes
from evaluation.figures.masks import best_views, cut_out, draw_objects
from evaluation.figures.style import by_object
from evaluation.object_masks import ObjectMask, mask_maker, of_kept, read_masks, segment
from evaluation.results import read_results
from integration.rle import decode_masks, encode_masks
from integration.sam2_package import NANO
from integration.sam2_weights import load_segmenter, save_segmenter
from launcher.main import run as bevnext_sam2
from scenes.index import SceneIndex

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

WIDTH, HEIGHT = 161, 91
"""Odd, and of another shape than the detector's recipe."""
CHECKOUT = Path(__file__).parents[2]
BOX = {"class": "car", "x": 12, "y": 0, "z": 0.8, "length": 4, "width": 2, "height": 1.6, "yaw": 0.3}


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights as `sam2 train` leaves them, but untrained."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "sam2.safetensors"
    save_segmenter(load_segmenter(NANO, None, network_size=(64, 96), wants_outline=True), path)
    return str(path)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name an untrained detector for the images of `synthetic_index`."""
    recipe = load_recipe("synthetic/bevnext-smoke")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "weights.safetensors"
    save_file(build_detector(recipe.model, recipe.data).state_dict(), path)
    named = ["--config", "synthetic/bevnext-smoke", "--checkpoint", str(path), "--set", "data.source_size=[90,160]"]
    return [*named, "--device", "cpu", "--workers", "0"]


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    """Six images and their calibration in a folder."""
    folder, view = tmp_path / "rig", made_up_view()
    folder.mkdir()
    scale = np.diag([WIDTH / 320, HEIGHT / 180, 1.0])
    matrices = {}
    for number, camera in enumerate(CAMERAS):
        Image.effect_noise((WIDTH, HEIGHT), 60).convert("RGB").save(folder / f"{camera}.png")
        matrices[camera] = {
            "intrinsics": (scale @ view.intrinsics[number]).tolist(),
            "ego_from_cam": np.linalg.inv(view.cam_from_global[number]).tolist(),
        }
    (folder / "calibration.json").write_text(json.dumps(matrices))
    (tmp_path / "boxes.json").write_text(json.dumps([BOX, {**BOX, "class": "bus", "x": -15, "score": 0.5}]))
    return folder


def test_a_held_out_sample_with_annotated_boxes(
    synthetic_index: SceneIndex, nano: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data-root", str(synthetic_index.dataroot), "--device", "cpu"]
    assert bevnext_sam2(["demo", *data, "--sam2-weights", nano, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "the annotated ones (no detector is named" in said
    assert "nano; by default trained on the synthetic set alone" in said
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {f"001_{name}" for name in ("cameras.jpg", "bev.png", "bev.pdf", "objects.jpg")}
    assert names == {*pictures, "masks.json", "results_nusc.json", "objects"}
    token = synthetic_index.token(int(synthetic_index.rows_in("synthetic_val")[0]))
    boxes, masks = read_results(tmp_path / "results_nusc.json")[token], read_masks(tmp_path / "masks.json")[token]
    assert masks
    assert all(mask.box < len(boxes) and mask.segmentation["size"] == [90, 160] for mask in masks)
    for file in (tmp_path / "objects").iterdir():
        assert np.array(Image.open(file))[..., 3].any()


def test_a_scene_with_a_detector(
    synthetic_index: SceneIndex, nano: str, detector: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data-root", str(synthetic_index.dataroot), "--scene", "scene-0001", "--score-threshold", "0"]
    assert bevnext_sam2(["demo", *detector, *data, "--sam2-weights", nano, "--out", str(tmp_path)]) == 0
    assert "of score 0 or more, found by" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*_cameras.jpg")) == ["001_cameras.jpg", "002_cameras.jpg"]


def test_images_in_a_folder_of_odd_size(
    rig: Path, nano: str, detector: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--images", str(rig), "--sam2-weights", nano]
    boxes = ["--boxes", str(tmp_path / "boxes.json"), "--device", "cpu"]
    assert bevnext_sam2(["demo", *given, *boxes, "--out", str(tmp_path / "a")]) == 0
    assert "use published weights" in capsys.readouterr().out
    written = json.loads((tmp_path / "a/boxes.json").read_text())
    assert [(one["class"], one["x"], one["score"]) for one in written] == [("car", 12.0, 1.0), ("bus", -15.0, 0.5)]
    masks = read_masks(tmp_path / "a/masks.json")["rig"]
    assert {(mask.box, mask.camera) for mask in masks} == {(0, "CAM_FRONT"), (1, "CAM_BACK")}
    assert masks[0].segmentation["size"] == [HEIGHT, WIDTH]
    assert len(read_boxes(tmp_path / "a/boxes.json")) == 2  # what it writes it can read
    found = [*given, *detector, "--score-threshold", "0.05", "--out", str(tmp_path / "b")]
    assert bevnext_sam2(["demo", *found]) == 0
    assert (tmp_path / "b/001_bev.pdf").is_file()


def test_infer_adds_masks(synthetic_index: SceneIndex, nano: str, detector: list[str], tmp_path: Path) -> None:
    line = ["infer", *detector, "--data-root", str(synthetic_index.dataroot), "--scene", "scene-0001"]
    line += ["--score-threshold", "0.05", "--sam2-weights", nano, "--out", str(tmp_path)]
    assert bevnext_sam2(line) == 0
    assert (tmp_path / "scene-0001.mp4").is_file()
    masks, boxes = read_masks(tmp_path / "masks.json"), read_results(tmp_path / "results_nusc.json")
    assert masks.keys() == boxes.keys()
    for token, found in masks.items():
        assert all(boxes[token].scores[mask.box] >= 0.05 for mask in found)
    meta = json.loads((tmp_path / "masks.json").read_text())["meta"]
    assert meta == {"boxes": "results_nusc.json", "sam2_config": NANO, "sam2_weights": nano}


def test_nothing_named_makes_the_synthetic_set_and_the_weights(
    nano: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from integration.masks.commands import train

    small = ("--scenes", "2", "--samples", "1", "--image-size", "160x90", "--reach", "20", "--no-lidar-sweeps")
    trained: list[list[str]] = []

    def pretended(arguments: list[str], **options: Any) -> None:
        trained.append(arguments)
        out = Path(arguments[arguments.index("--out") + 1])
        out.mkdir(parents=True)
        (out / "sam2.safetensors").write_bytes(Path(nano).read_bytes())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_source, "SYNTHETIC_SIZE", small)
    monkeypatch.setattr(train, "main", pretended)
    assert bevnext_sam2(["demo", "--device", "cpu"]) == 2
    assert not (tmp_path / "data").exists()  # refused before anything was made
    assert bevnext_sam2(["demo", "--device", "cpu", "--make-weights"]) == 0
    said = capsys.readouterr().out
    assert "the synthetic set is made first" in said
    assert len(trained) == 1
    assert len([*(tmp_path / "outputs/demo").glob("*/001_cameras.jpg")]) == 1
    assert bevnext_sam2(["demo", "--device", "cpu", "--make-weights"]) == 0
    assert len(trained) == 1


# --- programs that are started by their file ------------------------------------------------------------------------


def exit_code_of(program: str, *arguments: str) -> object:
    """Of `python PROGRAM ARGUMENTS`, in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", [program, *arguments])
        runpy.run_path(str(CHECKOUT / program), run_name="__main__")
    return ended.value.code


def test_inference_on_a_folder(
    rig: Path,
    nano: str,
    detector: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["tools/inference.py", *detector[:-2], "--input", str(rig)]
    masked = [*line, "--sam2-weights", nano]
    alone, nothing, out = (tmp_path / name for name in ("alone", "nothing", "out"))
    assert exit_code_of(*line, "--score-threshold", "0.05", "--output", str(alone)) == 0
    assert [path.name for path in alone.iterdir()] == ["boxes.json"]
    assert len(read_boxes(alone / "boxes.json")) > 0
    assert exit_code_of(*masked, "--score-threshold", "1", "--output", str(nothing)) == 0
    assert json.loads((nothing / "boxes.json").read_text()) == []
    assert (nothing / "001_objects.jpg").is_file()
    # An untrained detector's boxes are seen by no camera.
    monkeypatch.setattr("evaluation.camera_folder.detect", lambda *given: boxes_at([(12.0, 0.0)]))
    assert exit_code_of(*masked, "--output", str(out)) == 0
    (mask,) = read_masks(out / "masks.json")["rig"]
    assert (mask.box, mask.camera, mask.segmentation["size"]) == (0, "CAM_FRONT", [HEIGHT, WIDTH])
    assert {"boxes.json", "001_cameras.jpg", "001_bev.png", "001_objects.jpg"} <= {one.name for one in out.iterdir()}
    capsys.readouterr()
    assert exit_code_of(*line, "--sam2-weights", "nowhere.pt", "--output", str(tmp_path / "none")) == 2
    assert "nowhere.pt" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_example(
    synthetic_index: SceneIndex, nano: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["examples/demo_fusion.py", "--data-root", str(synthetic_index.dataroot), "--weights", nano]
    assert exit_code_of(*line, "--out", str(tmp_path)) == 0
    assert "nano; by default trained on the synthetic set alone" in capsys.readouterr().out
    token = synthetic_index.token(0)
    assert len(read_results(tmp_path / "results_nusc.json")[token]) > 0
    assert read_masks(tmp_path / "masks.json").keys() == {token}
    assert (tmp_path / "001_cameras.jpg").is_file()
    assert exit_code_of(*line, "--row", "4") == 2
    assert "--row 4" in capsys.readouterr().err


# --- what is refused -----------------------------------------------------------------------------------------------


def spoil(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """The calibration with something changed."""

    def apply(rig: Path) -> None:
        content = json.loads((rig / "calibration.json").read_text())
        change(content)
        (rig / "calibration.json").write_text(json.dumps(content))

    return apply


def front(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    return spoil(
        lambda content: content["CAM_FRONT"].update({name: change(np.array(content["CAM_FRONT"][name])).tolist()})
    )


def boxes_with(**changed: object) -> Callable[[Path], object]:
    return lambda rig: (rig.parent / "boxes.json").write_text(json.dumps([BOX | changed]))


SPOILT = {
    "there is no calibration": lambda rig: (rig / "calibration.json").unlink(),
    "is not there": lambda rig: (rig / "calibration.json").unlink(),
    "no camera is called CAM_TOP": spoil(lambda content: content.update(CAM_TOP=content["CAM_FRONT"])),
    "cannot be used": spoil(lambda content: content["CAM_BACK"].pop("intrinsics")),
    "no numbers": front("intrinsics", lambda matrix: matrix * np.nan),
    "another image size": front("intrinsics", lambda matrix: np.diag([9.0, 9.0, 1.0]) @ matrix),
    "is to be in metres": front("ego_from_cam", lambda matrix: matrix + np.array([[0, 0, 0, 1500.0]] + [[0] * 4] * 3)),
    "is inverted": front("ego_from_cam", np.linalg.inv),
    "no rotation": front("ego_from_cam", lambda matrix: np.diag([2.0, 2, 2, 1]) @ matrix),
    "holds no image of CAM_BACK": lambda rig: (rig / "CAM_BACK.png").unlink(),
    "several sizes": lambda rig: Image.new("RGB", (50, 40)).save(rig / "CAM_BACK.png"),
    "cannot be read": lambda rig: (rig / "CAM_BACK.png").write_text("not a picture"),
    "box 0: x is nan": boxes_with(x=float("nan")),
    "length is 0": boxes_with(length=0),
    "class 'tank'": boxes_with(**{"class": "tank"}),
}


@pytest.mark.parametrize("said", SPOILT)
def test_a_folder_that_cannot_be_right(
    said: str, rig: Path, nano: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SPOILT[said](rig)
    boxes = ["--boxes", str(tmp_path / "boxes.json"), "--sam2-weights", nano, "--device", "cpu"]
    assert bevnext_sam2(["demo", "--images", str(rig), *boxes, "--out", str(tmp_path / "out")]) == 3
    error = capsys.readouterr().err
    assert said in error
    assert "fix:" in error
    assert not (tmp_path / "out").exists()


LINES = {
    "sam2 train": [],
    "weights file not found": ["--sam2-weights", "nowhere.pt"],
    "no SAM 2 configuration": ["--sam2-weights", "WEIGHTS", "--sam2-config", "sam9"],
    "does not fit the SAM 2 configuration sam2.1_hiera_t": [
        "--sam2-weights",
        "WEIGHTS",
        "--sam2-config",
        "sam2.1_hiera_t",
    ],
    "nothing says where the objects are": ["--images", "rig", "--sam2-weights", "WEIGHTS"],
    "no such folder": ["--images", "nowhere", "--boxes", "b.json", "--sam2-weights", "WEIGHTS"],
    "belong to --images": ["--boxes", "b.json"],
    "no data set": ["--images", "rig", "--boxes", "b.json", "--scene", "x"],
    "both given": ["--scene", "x", "--sample", "y"],
    "no detector is named": ["--config", "synthetic/bevnext-smoke"],
    "has no sample": ["--sample", "f" * 32, "--sam2-weights", "WEIGHTS", "--data-root", "DATA"],
}


@pytest.mark.parametrize("said", LINES)
def test_lines_that_are_refused(
    said: str,
    nano: str,
    synthetic_index: SceneIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"WEIGHTS": nano, "DATA": str(synthetic_index.dataroot)}
    assert bevnext_sam2(["demo", "--device", "cpu", *(places.get(word, word) for word in LINES[said])]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_a_detectors_weights_are_no_masks(nano: str, detector: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bevnext_sam2(["demo", "--device", "cpu", "--sam2-weights", detector[3]]) == 2
    assert "does not fit the SAM 2 configuration" in capsys.readouterr().err


def test_thousands_of_boxes_are_bounded(nano: str) -> None:
    ring = np.random.default_rng(0).uniform(5, 40, (2000, 2)) * np.random.default_rng(1).choice((-1, 1), (2000, 2))
    masks = segment(mask_maker(MaskWeights(nano, NANO), "cpu"), made_up_view(), boxes_at([tuple(at) for at in ring]))
    assert 0 < len({mask.box for mask in masks}) <= 64
    assert len(masks) <= 6 * 24


# --- pieces --------------------------------------------------------------------------------------------------------


def made_up_mask(box: int, camera: str = "CAM_FRONT") -> ObjectMask:
    pixels = torch.zeros(1, 180, 320, dtype=torch.bool)
    pixels[0, 60:100, 100 : 140 + 10 * box] = True
    numbers = dict.fromkeys(("quality", "presence", "occlusion", "truncation", "visible_fraction"), 0.5)
    return ObjectMask(box, camera, (90.0, 50.0, 150.0, 110.0), encode_masks(pixels)[0], **numbers)


def test_masks_follow_their_boxes_when_some_are_left_out() -> None:
    masks = [made_up_mask(box) for box in (0, 2, 3)]
    assert [mask.box for mask in of_kept(masks, np.array([True, True, False, True]))] == [0, 2]


def test_an_object_is_shown_where_most_of_it_is_seen() -> None:
    view, boxes = made_up_view(), boxes_at([(12.0, 0.0), (15.0, 1.0)])
    small, large = made_up_mask(0), made_up_mask(1, "CAM_BACK")
    best = best_views([small, large])
    assert {box: mask.camera for box, mask in best.items()} == {0: "CAM_FRONT", 1: "CAM_BACK"}
    alone = cut_out(view, small)
    assert alone.shape == (40, 40, 4)
    assert (alone[..., 3] == 255).all()
    sheet = draw_objects(view, [small, large], by_object(boxes))
    assert sheet.shape[1] == 2 * draw_objects(view, [small], by_object(boxes)).shape[1]
    assert draw_objects(view, [], by_object(boxes)).size


def test_masks_are_kept_as_they_are(tmp_path: Path) -> None:
    mask = made_up_mask(0)
    assert decode_masks([mask.segmentation], (180, 320)).sum() == 40 * 40
