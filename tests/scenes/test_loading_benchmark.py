"""`bench loader` runs, and its result names no folder."""

from __future__ import annotations

import json

from click.testing import CliRunner

from benchmarks.loader import loader


def test_the_result_compares_both_paths_and_names_no_folder(index, tmp_path):
    out = tmp_path / "new" / "loader.json"
    cameras = index.frame(0).image_paths[0].parent
    options = ["--images", "2", "--samples", "2", "--workers", "0", "--images-dir", str(cameras), "--out", str(out)]
    run = CliRunner().invoke(loader, ["--data-root", str(index.dataroot), *options])
    assert run.exit_code == 0, run.output
    text = out.read_text()
    assert str(index.dataroot) not in text
    result = json.loads(text)
    assert [(case["source"], case["transforms"]) for case in result["images"]] == [
        (source, transforms)
        for source in ("v1.0-synthetic", "folder")
        for transforms in ("evaluation", "training", "training, flip, rotation")
    ]
    for case in result["images"]:
        assert case["ratio"] > 0
        assert case["largest_difference_grey_levels"] <= 2  # these small images are enlarged, where 16-bit weights tell
    assert result["samples"][0]["samples_per_second"] > 0


def test_a_folder_without_images_is_refused(index, tmp_path):
    run = CliRunner().invoke(loader, ["--data-root", str(index.dataroot), "--images-dir", str(tmp_path)])
    assert "no *.jpg" in str(run.exception)
