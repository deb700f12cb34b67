"""`bench sam` measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.sam import sam
from configs.errors import UsageError

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

SMALL = ["--network-size", "96x64", "--images", "2", "--boxes", "3", "--repeats", "1"]


def test_images_boxes_memory_and_a_detector(tmp_path: Path) -> None:
    out = tmp_path / "results" / "sam.json"
    done = CliRunner().invoke(sam, [*SMALL, "--detector", "synthetic/bevnext-smoke", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "random, of the true shapes" in done.output
    result = json.loads(out.read_text())
    assert result["network_size"] == [64, 96]
    assert result["encode"]["seconds_per_image"] > 0
    assert result["decode"]["seconds_per_box"] > 0
    assert (result["encode"]["count"], result["decode"]["count"]) == (2, 3)
    assert result["memory"]["peak_mb"] > 0
    assert result["detector"]["plain_seconds"] > 0
    assert result["detector"]["enhanced_seconds"] > 0
    assert {"machine", "versions", "date"} <= result.keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cuda:99"], "cuda:99"),
        (["--network-size", "large"], "--network-size 'large' is not WIDTHxHEIGHT"),
        (["--network-size", "90x60"], "multiple"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(sam, [*SMALL, *arguments])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
