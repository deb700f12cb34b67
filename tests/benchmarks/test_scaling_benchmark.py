"""`bench scaling`: the arithmetic of its table, and real ranks on the smallest recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.scaling import scaling, speedup_apart, summary


def test_medians_over_all_blocks_against_one_rank_and_the_bare_loop() -> None:
    alone = {"samples": 10, "ours": [5.0, 5.0, 9.0], "bare": [4.0, 5.0, 9.0]}
    pair = {"samples": 20, "ours": [5.0, 5.25, 6.0], "bare": [5.0, 5.0, 5.0]}
    one, two = summary({1: [alone, alone], 2: [pair, pair]})
    assert one == {
        "ranks": 1,
        "samples_per_second": 2.0,
        "speedup": 1.0,
        "efficiency": 1.0,
        "bare_samples_per_second": 2.0,
        "overhead": 0.0,
        "undisturbed": {"ours": 1.0, "bare": 1.0},
    }
    assert (two["samples_per_second"], two["speedup"], two["efficiency"]) == (3.81, 1.905, 0.9524)
    assert two["overhead"] == 0.05
    assert two["undisturbed"] == {"ours": 2.0, "bare": 1.6}


def test_one_slow_core_costs_the_median_but_not_the_undisturbed_steps() -> None:
    alone = {"samples": 4, "ours": [1.0] * 20, "bare": [1.0] * 20}
    pair = {"samples": 8, "ours": [1.0] * 4 + [1.25] * 16, "bare": [1.0] * 20}
    _, two = summary({1: [alone], 2: [pair]})
    assert (two["speedup"], two["undisturbed"]["ours"]) == (1.6, 2.0)


def test_trainings_apart_against_one_that_is_alone() -> None:
    alone = [{"ours": [2.0, 2.0, 9.0]}, {"ours": [2.0]}]
    assert speedup_apart([{"ours": [2.0, 2.5]}, {"ours": [2.5, 9.0]}], 2, alone) == 1.6


@pytest.mark.slow
def test_real_ranks(tmp_path: Path) -> None:
    from scenes.index import build_index
    from scenes.synthetic import make_synthetic

    make_synthetic(tmp_path / "data", scenes=2, samples_per_scene=4, image_size=(90, 160), workers=1, progress=False)
    build_index(tmp_path / "data", "v1.0-synthetic", progress=False)
    size = ["--config", "synthetic/bevnext-smoke", "--ranks", "2", "--batch-size", "2"]
    size += ["--steps", "1", "--blocks", "2", "--passes", "1"]
    out = tmp_path / "scaling.json"
    done = CliRunner().invoke(scaling, ["--data-root", str(tmp_path / "data"), *size, "--out", str(out)])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert [line["ranks"] for line in result["ranks"]] == [1, 2]
    assert all(line["samples_per_second"] > 0 for line in result["ranks"])
    assert result["apart"]["trainings"] == 2
    assert result["apart"]["speedup"] > 0
    assert "speed-up" in done.output
