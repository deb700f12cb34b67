"""nuImages tables: read as the devkit reads them, turned into prompts, trained on and measured."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from pycocotools import mask as coco

from configs.errors import DataError, UsageError
from configs.nuscenes import CAMERAS, CLASSES
from integration.labelling.nuimages import write_nuimages
from integration.labelling.records import LabelledImage, LabelledObject, SceneLabels
from integration.masks.nuimages import OBJECTS, NuImages, find_tables
from integration.masks.nuimages_examples import NuImagesExamples
from integration.masks.simulated_prompts import POINTS, WIDENING, simulate_prompts
from integration.rle import encode_masks
from integration.segmenter import NO_POINT, POSITIVE
from launcher.main import run
from scenes.index import SceneIndex

SIZE = (96, 160)
VERSION = "v1.0-train"
# category, mask (left, top, right, bottom), amodal box; three images, the last of which shows nothing
IMAGES: list[list[tuple[str, tuple[int, int, int, int], list[int]]]] = [
    [
        ("vehicle.car", (20, 30, 60, 70), [15, 28, 90, 75]),
        ("human.pedestrian.adult", (100, 20, 120, 80), [98, 18, 122, 84]),
    ],
    [("animal", (40, 40, 80, 60), [40, 40, 80, 60])],
    [],
]


def token(*parts: object) -> str:
    return hashlib.md5(repr(parts).encode()).hexdigest()


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray[Any, Any]:
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return mask


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(records, indent=1))


def make_tables(root: Path, version: str = VERSION) -> Path:
    """Small tables with every field of the schema; each image has a sweep beside it, which no annotation is for."""
    folder = root / version
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    samples, data, objects = [], [], []
    for number, shown in enumerate(IMAGES):
        for kind in ("samples", "sweeps"):
            name = f"{kind}/CAM_FRONT/{number}.jpg"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 255, (*SIZE, 3), np.uint8)
            (root / name).write_bytes(simplejpeg.encode_jpeg(pixels))
            data.append(
                {
                    "token": token("data", kind, number),
                    "sample_token": token("sample", number),
                    "ego_pose_token": token("pose"),
                    "calibrated_sensor_token": token("calibration"),
                    "filename": name,
                    "fileformat": "jpg",
                    "width": SIZE[1],
                    "height": SIZE[0],
                    "timestamp": number,
                    "is_key_frame": kind == "samples",
                    "prev": "",
                    "next": "",
                }
            )
        key = token("data", "samples", number)
        samples.append(
            {"token": token("sample", number), "timestamp": number, "log_token": token("log"), "key_camera_token": key}
        )
        for place, (category, mask, box) in enumerate(shown):
            packed = coco.encode(rectangle(*mask))
            objects.append(
                {
                    "token": token("object", number, place),
                    "sample_data_token": key,
                    "category_token": token("category", category),
                    "attribute_tokens": [],
                    "bbox": box,
                    "mask": {"size": packed["size"], "counts": base64.b64encode(packed["counts"]).decode()},
                }
            )
    categories = sorted({category for shown in IMAGES for category, _, _ in shown})
    tables: dict[str, list[dict[str, Any]]] = {
        "category": [{"token": token("category", name), "name": name, "description": ""} for name in categories],
        "sample": samples,
        "sample_data": data,
        "object_ann": objects[::-1],  # any order
        "attribute": [],
        "surface_ann": [],
        "log": [
            {"token": token("log"), "logfile": "made", "vehicle": "", "date_captured": "2020-01-01", "location": ""}
        ],
        "sensor": [{"token": token("sensor"), "channel": "CAM_FRONT", "modality": "camera"}],
        "calibrated_sensor": [
            {
                "token": token("calibration"),
                "sensor_token": token("sensor"),
                "translation": [0.0, 0, 0],
                "rotation": [1.0, 0, 0, 0],
                "camera_intrinsic": np.eye(3).tolist(),
                "camera_distortion": [0.0] * 5,
            }
        ],
        "ego_pose": [
            {
                "token": token("pose"),
                "translation": [0.0, 0, 0],
                "rotation": [1.0, 0, 0, 0],
                "timestamp": 0,
                "rotation_rate": [0.0, 0, 0],
                "acceleration": [0.0, 0, 0],
                "speed": 0.0,
            }
        ],
    }
    for name, records in tables.items():
        write(folder / f"{name}.json", records)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("nuimages"))


def test_key_frames_with_their_masks_boxes_and_classes(root: Path) -> None:
    tables = NuImages(root, VERSION)
    assert len(tables) == 3
    for number, shown in enumerate(IMAGES):
        found = tables[number]
        assert found.path == root / f"samples/CAM_FRONT/{number}.jpg"
        assert found.size == SIZE
        assert found.masks.shape == (len(shown), *SIZE)
        expected = {
            (tuple(box), CLASSES.index("car") if category == "vehicle.car" else -1): rectangle(*mask)
            for category, mask, box in shown
            if category != "human.pedestrian.adult"
        }
        for box, label, mask in zip(found.boxes.tolist(), found.labels.tolist(), found.masks.numpy(), strict=True):
            if label == CLASSES.index("pedestrian"):
                assert box == [98, 18, 122, 84]
                continue
            np.testing.assert_array_equal(mask, expected[tuple(box), label])


def test_masks_are_those_that_the_devkit_reads(root: Path) -> None:
    from nuimages.nuimages import NuImages as Devkit
    from nuimages.utils.utils import mask_decode

    devkit = Devkit(version=VERSION, dataroot=str(root), verbose=False)
    tables = NuImages(root, VERSION)
    for number in range(len(tables)):
        name = f"samples/CAM_FRONT/{number}.jpg"
        key = next(record["token"] for record in devkit.sample_data if record["filename"] == name)
        theirs = [mask_decode(one["mask"]) for one in devkit.object_ann if one["sample_data_token"] == key]
        ours = tables[number].masks.numpy()
        np.testing.assert_array_equal(ours, np.array(theirs, bool).reshape(-1, *SIZE))


def test_labels_of_our_own_are_read(town: SceneIndex, tmp_path: Path) -> None:
    """What `sam2 label` writes: masks come back pixel by pixel."""
    frame, camera = town.frame(0), CAMERAS.index("CAM_FRONT")
    height, width = frame.image_size
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[0, 100:150, 200:300] = True
    labelled = LabelledObject(
        instance=frame.annotations.instance_tokens[0],
        label=0,
        category="vehicle.car",
        attribute="",
        score=1.0,
        segment=1,
        mask=encode_masks(mask)[0],
        area=5000,
        mask_box=(200, 100, 100, 50),
        outline_box=(190.2, 95.6, 320.4, 160.0),
        **dict.fromkeys(("iou", "agreement", "visible", "quality", "occlusion", "truncation", "presence"), 0.5),
        from_film=False,
    )
    name = frame.image_paths[camera].relative_to(town.dataroot).as_posix()
    image = LabelledImage(0, "CAM_FRONT", frame.token, frame.timestamp_us, name, height, width, (labelled,))
    scene = SceneLabels(frame.scene_token, town.scene_of(0).name, (image,), {})
    write_nuimages(tmp_path, town.version, lambda: iter([scene]), town)
    tables = NuImages(tmp_path, find_tables(tmp_path, None, "v1.0-train"))
    example = NuImagesExamples(tables)[0]
    assert len(tables) == 1
    assert torch.equal(example.masks, mask)
    assert example.boxes.tolist() == [[190, 96, 320, 160]]
    assert example.labels.tolist() == [0]
    assert example.image.shape == (3, height, width)


def test_an_object_without_a_mask_is_left_out(tmp_path: Path) -> None:
    made = make_tables(tmp_path)
    path = made / VERSION / OBJECTS
    records = json.loads(path.read_text())
    records[0]["mask"] = None
    write(path, records)
    assert sum(len(NuImages(made, VERSION)[number].labels) for number in range(3)) == 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda record: record.update(category_token="0" * 32), "does not fit the schema"),
        (lambda record: record.pop("bbox"), "does not fit the schema"),
        (lambda record: record["mask"].update(counts="not base64!"), "does not fit the schema"),
        (lambda record: record["mask"].update(size=[4, 4]), "not of the image's size"),
        (lambda record: record["mask"].update(counts=base64.b64encode(b"\x7f\x01").decode()), "damaged"),
    ],
)
def test_records_that_do_not_fit_are_named(tmp_path: Path, change: Any, match: str) -> None:
    made = make_tables(tmp_path)
    path = made / VERSION / OBJECTS
    records = json.loads(path.read_text())
    change(records[0])
    write(path, records)
    with pytest.raises(DataError, match=match):
        [NuImages(made, VERSION)[number] for number in range(3)]


def test_tables_that_are_cut_off_or_missing(tmp_path: Path) -> None:
    made = make_tables(tmp_path)
    path = made / VERSION / OBJECTS
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match="not valid JSON"):
        NuImages(made, VERSION)
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        NuImages(made, VERSION)


def test_which_tables_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no nuImages tables"):
        find_tables(tmp_path, None, "v1.0-train")
    make_tables(tmp_path, "v1.0-mini")
    assert find_tables(tmp_path, None, "v1.0-train") == "v1.0-mini"
    make_tables(tmp_path, "v1.0-val")
    assert find_tables(tmp_path, None, "v1.0-val") == "v1.0-val"
    with pytest.raises(UsageError, match="several sets"):
        find_tables(tmp_path, None, "v1.0-train")
    with pytest.raises(UsageError, match=r"no tables v1\.0-test"):
        find_tables(tmp_path, "v1.0-test", "v1.0-train")


def prompts_of_many(count: int = 3000) -> Any:
    masks = torch.zeros(1, *SIZE, dtype=torch.bool)
    masks[0, 40:60, 60:100] = True
    amodal = torch.tensor([[50.0, 30, 120, 70]]).expand(count, 4)
    generator = torch.Generator().manual_seed(3)
    return simulate_prompts(masks.expand(count, *SIZE), amodal, masks[0], generator)


def test_simulated_prompts_follow_their_distribution() -> None:
    found = prompts_of_many()
    real = found.masks.flatten(1).any(1)
    assert 0.88 < float(real.float().mean()) < 0.95  # some large boxes find no free place
    given = (found.boxes == torch.tensor([50.0, 30, 120, 70])).all(1)
    assert float(given[real].float().mean()) == pytest.approx(0.25, abs=0.03)
    boxes = found.boxes[real & ~given]
    width = boxes[:, 2] - boxes[:, 0]
    assert width.min() > 40 * (1 + 2 * WIDENING[0]) - 1
    assert float(width.median()) == pytest.approx(40 * (1 + 2 * WIDENING[5]), abs=6)
    centre = (boxes[:, 0] + boxes[:, 2]) / 2 - 80
    assert abs(float(centre.median())) < 2
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= torch.tensor([160.0, 96])).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_points_lie_on_objects_but_for_a_few() -> None:
    found = prompts_of_many()
    real = found.masks.flatten(1).any(1)
    some = (found.point_labels == POSITIVE).any(1)
    assert float(some.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert found.point_labels.shape == (len(real), POINTS)
    points = found.points[real][found.point_labels[real] == POSITIVE].long()
    on_object = (points[:, 0] >= 60) & (points[:, 0] < 100) & (points[:, 1] >= 40) & (points[:, 1] < 60)
    assert 0.94 < float(on_object.float().mean()) < 0.999
    assert (found.point_labels[~some] == NO_POINT).all()


def test_empty_prompts_lie_where_nothing_is() -> None:
    found = prompts_of_many()
    occupied = torch.zeros(SIZE)
    occupied[40:60, 60:100] = 1
    for box in found.boxes[~found.masks.flatten(1).any(1)].round().long():
        left, top, right, bottom = box.tolist()
        assert occupied[top:bottom, left:right].mean() <= 0.02


def test_equal_generators_give_equal_examples(root: Path) -> None:
    examples = NuImagesExamples(NuImages(root, VERSION), largest=1)
    example = examples[0]
    assert example.outline is None
    assert example.occlusion.max() > 0.5  # the car's box reaches far beyond what is seen of it
    first, second = (examples.varied(example, torch.Generator().manual_seed(5)) for _ in range(2))
    assert len(first.boxes) == 1
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.masks, second.masks)
    mirrored = example.mirrored()
    torch.testing.assert_close(mirrored.mirrored().boxes, example.boxes)


def test_mirrored_points_stay_on_their_objects(root: Path) -> None:
    examples = NuImagesExamples(NuImages(root, VERSION))
    for seed in range(30):
        example = examples.varied(examples[0], torch.Generator().manual_seed(seed)).mirrored()
        for points, labels, mask in zip(example.points, example.point_labels, example.masks, strict=True):
            u, v = points[labels == POSITIVE].round().long().T
            inside = mask[v.clamp(0, 95), u.clamp(0, 159)]
            assert not mask.any() or inside.float().mean() > 0.3 or len(inside) == 0


def test_train_and_eval_from_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    out = tmp_path / "boxes"
    data = ["--data", "nuimages", "--data-root", str(root), "--device", "cpu"]
    options = ["--steps", "2", "--images", "2", "--network-size", "160x96", "--workers", "0", "--out", str(out)]
    assert run(["sam2", "train", *data, *options]) == 0
    assert "nuImages tables, 3 images" in capsys.readouterr().out
    weights = str(out / "sam2.safetensors")
    assert run(["sam2", "eval", *data, "--weights", weights, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["all"]) == {"SAM 2", "box filled"}
    assert summary["all"]["box filled"]["objects"] == 3
    assert summary["open"]["box filled"]["iou"] == 1.0
    assert run(["sam2", "eval", *data, "--weights", weights, "--metric", "lidar"]) == 2
