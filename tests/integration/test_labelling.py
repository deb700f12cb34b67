"""`sam2 label`: masks for a whole data set from its boxes, in files that other programs read."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch
from nuimages.nuimages import NuImages
from nuimages.utils.utils import mask_decode
from pycocotools.coco import COCO

from configs.nuscenes import CLASSES
from integration.labelling.options import Thresholds
from integration.labelling.quality import KEPT, Quality
from integration.masks.nuimages import NuImages as OwnTables
from integration.projection import CameraRig, project_boxes
from integration.rays import open_bounds
from integration.sam2_package import NANO
from integration.sam2_weights import load_segmenter, save_segmenter
from launcher.main import run
from scenes.index import SceneIndex, build_index, open_index

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

SIZE = (96, 160)
SPLIT = "synthetic_train"
EVERYTHING = ["--min-quality", "0", "--min-iou", "0", "--min-agreement", "0.2", "--min-visible", "0"]


@pytest.fixture(scope="module")
def index(make_set: Callable[[int, int, tuple[int, int]], SceneIndex]) -> SceneIndex:
    return make_set(3, 2, (180, 320))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones of the kind that starts from the outlines of boxes, so that masks are near the objects."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "sam2.safetensors"
    save_segmenter(load_segmenter(NANO, None, network_size=SIZE, wants_outline=True), path)
    return path


Label = Callable[..., int]


@pytest.fixture(scope="module")
def label(index: SceneIndex, weights: Path) -> Label:
    def call(out: Path, *options: str) -> int:
        return run(["sam2", "label", *_arguments(index, weights, out), *options])

    return call


def _arguments(index: SceneIndex, weights: Path, out: Path) -> list[str]:
    root = str(index.dataroot)
    return ["--data-root", root, "--split", SPLIT, "--weights", str(weights), "--device", "cpu", "--out", str(out)]


@pytest.fixture(scope="module")
def labelled(label: Label, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labelled") / "labels"
    with redirect_stdout(io.StringIO()) as said:
        assert label(out, *EVERYTHING) == 0
    assert "the synthetic driving set of this project" in said.getvalue()
    assert "index.html" in said.getvalue()
    return out


def files(folder: Path) -> dict[str, bytes]:
    """Relative name to content, of all files but links and what a kill left half written."""
    found = (path for path in folder.rglob("[!.]*") if path.is_file() and "nuimages/samples" not in path.as_posix())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def test_coco_reads_the_masks(labelled: Path, index: SceneIndex) -> None:
    with redirect_stdout(io.StringIO()):
        coco = COCO(labelled / "coco" / "instances.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    rows = index.rows_in(SPLIT)
    assert len(coco.imgs) == 6 * len(rows)
    assert len(coco.anns) > 20
    for image in coco.imgs.values():
        assert (index.dataroot / image["file_name"]).is_file()
        total = np.zeros((image["height"], image["width"]), int)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(annotation)
            total += mask
            assert mask.sum() == annotation["area"] > 0
            rows_of, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows_of.min())
            assert (left + width, top + height) == (columns.max() + 1, rows_of.max() + 1)
            assert 0 <= annotation["quality"] <= 1
        assert total.max() <= 1  # no pixel belongs to two


def test_objects_are_the_annotated_instances(labelled: Path, index: SceneIndex) -> None:
    content = read(labelled / "coco" / "instances.json")
    images = {image["id"]: image for image in content["images"]}
    for annotation in content["annotations"]:
        annotations = index.frame(index.row_of(images[annotation["image_id"]]["sample_token"])).annotations
        place = annotations.instance_tokens.tolist().index(annotation["instance"])
        assert annotations.labels[place] == annotation["category_id"] - 1


def test_panoptic_images_hold_the_same_masks(labelled: Path) -> None:
    with redirect_stdout(io.StringIO()):
        coco = COCO(labelled / "coco" / "instances.json")
    panoptic = read(labelled / "coco" / "panoptic.json")
    assert len(panoptic["annotations"]) == len(coco.imgs)
    segments_of: dict[str, set[int]] = {}
    for entry in panoptic["annotations"]:
        picture = cv2.imread(str(labelled / "coco" / "panoptic" / entry["file_name"]))[..., ::-1].astype(int)
        ids = picture[..., 0] + 256 * picture[..., 1] + 65536 * picture[..., 2]
        annotations = coco.loadAnns(coco.getAnnIds(entry["image_id"]))
        assert len(annotations) == len(entry["segments_info"])
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in entry["segments_info"]}
        for annotation, segment in zip(annotations, entry["segments_info"], strict=True):
            assert np.array_equal(coco.annToMask(annotation) > 0, ids == segment["id"])
            assert segment["category_id"] == annotation["category_id"]
            assert segment["area"] == annotation["area"]
            segments_of.setdefault(annotation["instance"], set()).add(segment["id"])
    assert all(len(ids) == 1 for ids in segments_of.values())  # one colour for an object wherever it is seen


def test_the_nuimages_devkit_reads_the_tables(labelled: Path, index: SceneIndex) -> None:
    tables = NuImages(f"v1.0-{SPLIT}", str(labelled / "nuimages"), lazy=False)
    instances = read(labelled / "coco" / "instances.json")
    assert tables.surface_ann == []
    assert len(tables.object_ann) == len(instances["annotations"])
    for found, annotation in zip(tables.object_ann, instances["annotations"], strict=True):
        sample_data = tables.get("sample_data", found["sample_data_token"])
        sample = tables.get("sample", sample_data["sample_token"])
        assert sample["key_camera_token"] == sample_data["token"]
        assert tables.get("log", sample["log_token"])["logfile"]
        pose = tables.get("ego_pose", sample_data["ego_pose_token"])
        assert pose["timestamp"] == sample_data["timestamp"]
        assert tables.shortcut("sample_data", "sensor", sample_data["token"])["channel"] in sample_data["filename"]
        assert (labelled / "nuimages" / sample_data["filename"]).is_file()
        assert tables.get("category", found["category_token"])["name"].count(".") >= 1
        for token in found["attribute_tokens"]:
            assert tables.get("attribute", token)["name"]
        mask = mask_decode(found["mask"])
        assert mask.shape == (sample_data["height"], sample_data["width"])
        assert mask.sum() == annotation["area"]
        left, top, right, bottom = found["bbox"]
        assert 0 <= left < right <= sample_data["width"]
        assert 0 <= top < bottom <= sample_data["height"]
    for name in tables.table_names:
        tokens = [record["token"] for record in getattr(tables, name)]
        assert len(set(tokens)) == len(tokens), name


def test_they_train_another_sam_2(labelled: Path) -> None:
    tables = OwnTables(labelled / "nuimages", f"v1.0-{SPLIT}")
    content = read(labelled / "coco" / "instances.json")
    assert len(tables) == len(content["images"])
    for number, image in enumerate(content["images"]):
        own = tables[number]
        expected = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        assert own.path == labelled / "nuimages" / image["file_name"]
        assert own.path.is_file()
        assert own.masks.flatten(1).sum(1).tolist() == [one["area"] for one in expected]
        assert (own.labels + 1).tolist() == [one["category_id"] for one in expected]


def test_calibrations_and_poses_are_those_of_the_data(labelled: Path, index: SceneIndex) -> None:
    tables = NuImages(f"v1.0-{SPLIT}", str(labelled / "nuimages"))
    frame = index.frame(int(index.rows_in(SPLIT)[0]))
    for number, path in enumerate(frame.image_paths):
        name = path.relative_to(index.dataroot).as_posix()
        sample_data = next(one for one in tables.sample_data if one["filename"] == name)
        calibration = tables.get("calibrated_sensor", sample_data["calibrated_sensor_token"])
        np.testing.assert_allclose(calibration["camera_intrinsic"], frame.intrinsics[number])
        np.testing.assert_allclose(calibration["translation"], frame.ego_from_cam[number, :3, 3])
        pose = tables.get("ego_pose", sample_data["ego_pose_token"])
        np.testing.assert_allclose(pose["translation"], frame.global_from_ego_cam[number, :3, 3])


def test_the_page_holds_its_pictures(labelled: Path) -> None:
    page = (labelled / "index.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') >= 6
    assert "http" not in page
    assert "expected IoU" in page


def test_two_workers_write_the_same_bytes(label: Label, labelled: Path, tmp_path: Path) -> None:
    assert label(tmp_path / "labels", *EVERYTHING, "--workers", "2") == 0
    assert files(tmp_path / "labels") == files(labelled)


def test_a_killed_run_leaves_no_worker_behind_and_goes_on_where_it_was(
    index: SceneIndex, weights: Path, label: Label, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    arguments = ["sam2", "label", *_arguments(index, weights, out), *EVERYTHING, "--workers", "2"]
    process = psutil.Popen([sys.executable, "-m", "launcher", *arguments], stdout=subprocess.PIPE)
    while process.poll() is None and not list(out.glob("scenes/*.json")):
        time.sleep(0.01)
    workers = process.children(recursive=True)
    process.kill()
    process.wait()
    assert psutil.wait_procs(workers, timeout=120)[1] == []
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("scenes/*.json")}
    assert done
    assert label(out, *EVERYTHING) == 0
    assert f"{len(done)} scenes are labelled already" in capsys.readouterr().out
    assert {name: (out / "scenes" / name).stat().st_mtime_ns for name in done} == done
    assert files(out) == files(labelled)


def test_a_damaged_file_of_a_scene_is_named_before_the_others_are_labelled(
    label: Label, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    shutil.copytree(labelled, out, symlinks=True)
    missing, damaged, *_ = sorted(out.glob("scenes/*.json"))
    missing.unlink()
    whole = damaged.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"[]", b'{"images": [1]}', bytes(len(whole))):
        damaged.write_bytes(content)
        assert label(out, *EVERYTHING) == 3
        said = capsys.readouterr().err
        assert f"{damaged} is damaged" in said
        assert "remove it and start the same command again" in said
        assert "Traceback" not in said
        assert not missing.exists()
    damaged.unlink()
    assert label(out, *EVERYTHING) == 0
    assert files(out) == files(labelled)


def test_labels_of_other_options_are_refused(label: Label, labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(labelled)
    assert label(labelled, *EVERYTHING, "--min-visible", "0.5") == 2
    assert "thresholds" in capsys.readouterr().err
    assert files(labelled) == before


def test_a_folder_of_other_things_is_refused(label: Label, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("")
    assert label(tmp_path) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--split", "night"], 2, "no split 'night'"),
        (["--weights", "nowhere.pt"], 2, "nowhere.pt"),
        (["--tracks"], 2, "no memory"),
        (["--results", "nowhere.json"], 3, "nowhere.json"),
        (["--network-size", "big"], 2, "WIDTHxHEIGHT"),
        (["--network-size", "100x100"], 2, "multiple of 32"),
        (["--config", "sam2.1_hiera_t"], 2, "does not fit"),
        (["--version", "v9"], 3, "v9"),
    ],
)
def test_bad_options_are_explained(
    label: Label, tmp_path: Path, options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(tmp_path / "labels", *options) == code
    error = capsys.readouterr().err
    assert message in error
    assert "fix:" in error
    assert not (tmp_path / "labels").exists()


def results_of(index: SceneIndex, path: Path, tracked: bool, score: float = 0.9) -> Path:
    """The annotations as a results file; samples of the second scene are empty."""
    first = index.scene_of(int(index.rows_in(SPLIT)[0]))
    kind = "tracking" if tracked else "detection"
    results: dict[str, list[dict[str, Any]]] = {}
    for row in index.rows_in(SPLIT).tolist():
        frame = index.frame(row)
        own = frame.annotations.select(frame.annotations.labels >= 0)
        results[frame.token] = [
            {
                "sample_token": frame.token,
                "translation": own.translation[number].tolist(),
                "size": own.size[number].tolist(),
                "rotation": own.rotation[number].tolist(),
                "velocity": np.nan_to_num(own.velocity[number]).tolist(),
                f"{kind}_name": CLASSES[own.labels[number]],
                f"{kind}_score": score,
                "attribute_name": str(own.attributes[number]),
                **({"tracking_id": f"track {own.instance_tokens[number]}"} if tracked else {}),
            }
            for number in range(len(own) if frame.scene_token == first.token else 0)
        ]
    path.write_text(json.dumps({"meta": {}, "results": results}))
    return path


def test_boxes_of_a_results_file_and_scenes_without_any(
    index: SceneIndex, label: Label, labelled: Path, tmp_path: Path
) -> None:
    """Equal boxes give equal masks, and a scene without boxes has its images without masks."""
    out = tmp_path / "labels"
    assert label(out, *EVERYTHING, "--results", str(results_of(index, tmp_path / "r.json", tracked=True))) == 0
    ours, theirs = (read(folder / "coco" / "instances.json") for folder in (out, labelled))
    assert ours["images"] == theirs["images"]
    first = index.scene_of(int(index.rows_in(SPLIT)[0])).name
    images = {image["id"] for image in theirs["images"] if image["scene"] == first}
    expected = [one for one in theirs["annotations"] if one["image_id"] in images]
    assert {one["image_id"] for one in ours["annotations"]} <= images
    assert [one["segmentation"] for one in ours["annotations"]] == [one["segmentation"] for one in expected]
    assert [one["instance"] for one in ours["annotations"]] == [f"track {one['instance']}" for one in expected]
    assert {one["score"] for one in ours["annotations"]} == {0.9}
    pictures = [one for one in read(out / "coco" / "panoptic.json")["annotations"] if one["image_id"] not in images]
    assert pictures
    assert not cv2.imread(str(out / "coco" / "panoptic" / pictures[0]["file_name"])).any()


def test_results_without_boxes_tracks_or_samples_are_refused(
    index: SceneIndex, label: Label, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faint = results_of(index, tmp_path / "faint.json", tracked=False, score=0.1)
    assert label(tmp_path / "labels", "--results", str(faint)) == 3
    assert "no boxes with a score of 0.3" in capsys.readouterr().err
    assert label(tmp_path / "labels", "--results", str(faint), "--min-score", "0", "--tracks") == 2
    assert "tracking_id" in capsys.readouterr().err
    content = read(faint)
    first = next(iter(content["results"]))
    content["results"][first][0]["size"] = [1, float("nan"), 1]
    faint.write_text(json.dumps(content))
    assert label(tmp_path / "labels", "--results", str(faint)) == 3
    assert "box 0: size must be 3 finite numbers" in capsys.readouterr().err
    content["results"].pop(first)
    faint.write_text(json.dumps(content))
    assert label(tmp_path / "labels", "--results", str(faint)) == 3
    assert "lacks 1 of" in capsys.readouterr().err
    assert not (tmp_path / "labels").exists()


def test_nothing_good_enough_is_no_error(label: Label, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    assert label(out, "--min-quality", "1") == 0
    assert read(out / "coco" / "instances.json")["annotations"] == []
    assert "No image has a mask" in (out / "index.html").read_text()


def test_a_damaged_image_ends_the_run_and_keeps_what_is_done(
    index: SceneIndex, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "synthetic"
    shutil.copytree(index.dataroot, root)
    build_index(root, index.version, progress=False)
    last = open_index(root, index.version).frame(int(index.rows_in(SPLIT)[-1]))
    last.image_paths[0].write_bytes(b"")
    out = tmp_path / "labels"
    options = ["--data-root", str(root), "--split", SPLIT, "--weights", str(weights), "--device", "cpu"]
    assert run(["sam2", "label", *options, "--out", str(out), "--workers", "2"]) == 3
    assert last.image_paths[0].name in capsys.readouterr().err
    assert not (out / "coco" / "instances.json").exists()
    assert len(list(out.glob("scenes/*.json"))) < 3


def test_bounds_of_a_box_as_far_as_no_nearer_one_covers_it() -> None:
    intrinsics = torch.tensor([[[100.0, 0, 80], [0, 100, 45], [0, 0, 1]]], dtype=torch.float64)
    forward = torch.tensor([[[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]], dtype=torch.float64)
    rig = CameraRig(intrinsics, forward, (90, 160))
    far = [20.0, 0, 0, 2, 4, 2, 0]
    right_half = [10.0, -1.5, 0, 2, 3, 8, 0]
    pairs = project_boxes(torch.tensor([far, right_half]), rig)
    whole, middle = pairs.box[0], 80.0
    alone = open_bounds(pairs.select(torch.tensor([0])), rig.cam_from_pixel)[0]
    torch.testing.assert_close(alone, whole, atol=0.5, rtol=0)
    covered, nearer = open_bounds(pairs, rig.cam_from_pixel)
    torch.testing.assert_close(nearer, pairs.box[1], atol=2.0, rtol=0)
    torch.testing.assert_close(covered[:2], whole[:2], atol=0.5, rtol=0)
    assert covered[2] == pytest.approx(middle, abs=1)
    hidden = project_boxes(torch.tensor([far, [10.0, 0, 0, 2, 8, 8, 0]]), rig)
    assert open_bounds(hidden, rig.cam_from_pixel)[0].tolist() == [0, 0, 0, 0]


def test_the_first_figure_that_is_too_low_is_the_reason() -> None:
    thresholds = Thresholds(quality=0.5, iou=0.3, agreement=0.3, visible=0.1)
    assert Quality(iou=0.9, agreement=0.8, visible=0.5).verdict(thresholds) == KEPT
    assert Quality(iou=0.9, agreement=0.8, visible=0.0).verdict(thresholds) == "visible"
    assert Quality(iou=0.2, agreement=0.1, visible=0.5).verdict(thresholds) == "iou"
    assert Quality(iou=0.9, agreement=0.1, visible=0.5).verdict(thresholds) == "agreement"
    assert Quality(iou=0.4, agreement=0.5, visible=0.5).verdict(thresholds) == "quality"
    assert Quality(iou=0.9, agreement=0.0, visible=0.0).verdict(Thresholds(0, 0, 0, 0)) == "visible"
