"""`sam2 label --tracks`: objects are followed through the films of the cameras, by a SAM 2 with memory.

No trained memory of a small size exists, so a random one shows that the mechanism works: where objects enter, that
they are followed in both directions, and that they stay who they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from integration.labelling.films import FilmFollower, Sighting, entries_of, numbered_folder
from integration.labelling.frame_masks import FrameMasks
from integration.projection import CameraRig, project_boxes
from integration.sam2_package import NANO, construct_sam2, find_config
from integration.sam2_weights import load_segmenter, save_segmenter
from launcher.main import run
from scenes.index import SceneIndex, build_index, open_index
from scenes.synthetic import make_synthetic

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

SIDE, RASTER = 128, 32
CHANNELS, MEMORY = 64, 16
MODELING = "sam2.modeling"


def attention(**more: Any) -> dict[str, Any]:
    return {
        "_target_": f"{MODELING}.sam.transformer.RoPEAttention",
        "rope_theta": 10000.0,
        "feat_sizes": [8, 8],
        "embedding_dim": CHANNELS,
        "num_heads": 1,
        "downsample_rate": 1,
        "dropout": 0.1,
        **more,
    }


def positions(channels: int) -> dict[str, Any]:
    return {
        "_target_": f"{MODELING}.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": channels,
        "normalize": True,
        "scale": None,
        "temperature": 10000,
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano with the published memory, in small."""
    content = yaml.safe_load(find_config(NANO).read_text())
    content["model"] |= {
        "image_size": SIDE,
        "num_maskmem": 7,
        "memory_attention": {
            "_target_": f"{MODELING}.memory_attention.MemoryAttention",
            "d_model": CHANNELS,
            "pos_enc_at_input": True,
            "num_layers": 1,
            "layer": {
                "_target_": f"{MODELING}.memory_attention.MemoryAttentionLayer",
                "activation": "relu",
                "dim_feedforward": 64,
                "dropout": 0.1,
                "pos_enc_at_attn": False,
                "d_model": CHANNELS,
                "pos_enc_at_cross_attn_keys": True,
                "pos_enc_at_cross_attn_queries": False,
                "self_attention": attention(),
                "cross_attention": attention(rope_k_repeat=True, kv_in_dim=MEMORY),
            },
        },
        "memory_encoder": {
            "_target_": f"{MODELING}.memory_encoder.MemoryEncoder",
            "in_dim": CHANNELS,
            "out_dim": MEMORY,
            "position_encoding": positions(MEMORY),
            "mask_downsampler": {
                "_target_": f"{MODELING}.memory_encoder.MaskDownSampler",
                "embed_dim": CHANNELS,
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
            },
            "fuser": {
                "_target_": f"{MODELING}.memory_encoder.Fuser",
                "num_layers": 1,
                "layer": {
                    "_target_": f"{MODELING}.memory_encoder.CXBlock",
                    "dim": CHANNELS,
                    "kernel_size": 7,
                    "padding": 3,
                },
            },
        },
        "sigmoid_scale_for_mem_enc": 20.0,
        "sigmoid_bias_for_mem_enc": -10.0,
        "use_mask_input_as_output_without_sam": True,
        "no_obj_embed_spatial": True,
        "use_obj_ptrs_in_encoder": True,
        "add_tpos_enc_to_obj_ptrs": True,
        "proj_tpos_enc_in_obj_ptrs": True,
        "use_signed_tpos_enc_to_obj_ptrs": True,
        "only_obj_ptrs_in_the_past_for_eval": True,
        "fixed_no_obj_ptr": True,
        "use_mlp_for_obj_ptr_proj": True,
    }
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def weights(config: Path) -> Path:
    torch.manual_seed(0)
    path = config.with_name("small.pt")
    network = construct_sam2(config)
    last = network.sam_mask_decoder.pred_obj_score_head.layers[-1]  # type: ignore[union-attr]
    torch.nn.init.constant_(last.bias, 5.0)  # type: ignore[union-attr]  # the object is always there
    torch.save({"model": network.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def follower(config: Path, weights: Path) -> FilmFollower:
    return FilmFollower(str(config), weights, torch.device("cpu"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six images with names as data sets have them."""
    folder = tmp_path_factory.mktemp("film")
    images = np.random.default_rng(0).integers(0, 256, (6, 90, 160, 3), np.uint8)
    paths = [folder / f"n008__CAM_FRONT__{number}.jpg" for number in range(6)]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    return paths


def square(left: int) -> Tensor:
    mask = torch.zeros(RASTER, RASTER, dtype=torch.bool)
    mask[8:20, left : left + 10] = True
    return mask


def test_objects_are_followed_both_ways_and_stay_who_they_are(follower: FilmFollower, film: list[Path]) -> None:
    entries = {"car": [Sighting(3, 0)], "bus": [Sighting(1, 0), Sighting(5, 0)]}
    claims: list[dict[int, Tensor]] = [{0: square(4)} for _ in film]
    claims[3] = {0: square(18)}
    found = follower.film(film, claims, entries)
    assert set(found) == {(name, frame) for name in entries for frame in range(6)}
    for name, own in entries.items():
        for entry in own:
            mask, given = found[name, entry.frame] > 0, claims[entry.frame][0]
            assert float((mask & given).sum()) / float((mask | given).sum()) > 0.9
    claims[3] = {0: square(10)}  # another car: it is another one in the whole film, and the bus is the same
    other = follower.film(film, claims, entries)
    for frame in range(6):
        assert not torch.equal(found["car", frame], other["car", frame]), frame
        assert torch.equal(found["bus", frame], other["bus", frame]), frame


def test_links_are_numbered_and_go_away(film: list[Path]) -> None:
    with numbered_folder(film) as folder:
        assert sorted(path.name for path in folder.iterdir())[:2] == ["00000.jpg", "00001.jpg"]
        assert (folder / "00005.jpg").read_bytes() == film[5].read_bytes()
    assert not folder.exists()


def made_up(occlusion: float) -> FrameMasks:
    """One object ahead, hidden so much."""
    intrinsics = torch.tensor([[[100.0, 0, 80], [0, 100, 45], [0, 0, 1]]], dtype=torch.float64)
    forward = torch.tensor([[[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]], dtype=torch.float64)
    pairs = project_boxes(torch.tensor([[10.0, 0, 0, 4, 2, 2, 0]]), CameraRig(intrinsics, forward, (90, 160)))
    frame: Any = SimpleNamespace(image_size=(90, 160))
    boxes: Any = SimpleNamespace(instances=("car",))
    empty = torch.zeros(1)
    return FrameMasks(
        frame=frame,
        boxes=boxes,
        pairs=pairs,
        near=torch.ones(1, 90, 160, dtype=torch.bool),
        logits=torch.zeros(1, 90, 160),
        iou=empty,
        presence=empty,
        occlusion=torch.tensor([occlusion]),
        open_box=pairs.box.float(),
        from_film=torch.zeros(1, dtype=torch.bool),
    )


def test_an_object_enters_where_it_is_seen_best_and_again_where_its_mask_agrees() -> None:
    frames = [made_up(0.9 if number != 5 else 0.1) for number in range(12)]
    left, top, right, bottom = frames[0].pairs.box[0].round().int().tolist()
    whole = torch.zeros(90, 160, dtype=torch.bool)
    whole[top:bottom, left:right] = True
    part = whole.clone()
    part[:, (left + right) // 2 :] = False
    claims = [{0: whole} for _ in frames]
    sightings = [Sighting(number, 0) for number in range(12)]
    assert [entry.frame for entry in entries_of(sightings, frames, claims)] == [5, 1, 9]
    claims[9] = {0: part}
    assert [entry.frame for entry in entries_of(sightings, frames, claims)] == [5, 1]
    claims[5] = {0: torch.zeros_like(whole)}  # nothing to follow there
    assert entries_of(sightings, frames, claims)[0].frame == 0
    assert entries_of(sightings, frames, [{0: torch.zeros_like(whole)} for _ in frames]) == []


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    made = make_synthetic(
        tmp_path_factory.mktemp("tracks") / "synthetic",
        scenes=2,
        samples_per_scene=6,
        image_size=(90, 160),
        reach=15.0,
        lidar_sweeps=False,
        workers=1,
        progress=False,
    )
    build_index(made.root, made.version, progress=False)
    return open_index(made.root, made.version)


def test_the_command_follows_instances(index: SceneIndex, config: Path, weights: Path, tmp_path: Path) -> None:
    command = ["sam2", "label", "--data-root", str(index.dataroot), "--device", "cpu", "--config", str(config)]
    command += ["--weights", str(weights), "--split", "synthetic_val", "--min-iou", "0", "--min-quality", "0"]
    command += ["--min-agreement", "0", "--min-visible", "0.01"]
    assert run([*command, "--tracks", "--out", str(tmp_path / "films")]) == 0
    assert run([*command, "--out", str(tmp_path / "images")]) == 0
    films, images = (
        json.loads((tmp_path / name / "coco" / "instances.json").read_bytes())["annotations"]
        for name in ("films", "images")
    )
    assert any(one["from_film"] for one in films)
    assert not any(one["from_film"] for one in images)
    known = {(one["image_id"], one["instance"]): one["category_id"] for one in images}
    for one in films:
        assert known.get((one["image_id"], one["instance"]), one["category_id"]) == one["category_id"]


def test_weights_without_memory_are_refused(
    index: SceneIndex, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_segmenter(load_segmenter(config, None), tmp_path / "image.safetensors")
    command = ["sam2", "label", "--data-root", str(index.dataroot), "--device", "cpu", "--config", str(config)]
    command += ["--weights", str(tmp_path / "image.safetensors"), "--tracks", "--out", str(tmp_path / "labels")]
    assert run(command) == 2
    assert "without its memory" in capsys.readouterr().err
