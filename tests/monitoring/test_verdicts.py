"""What limits a run: known causes are named, healthy runs are left alone. Recorded traces were really caused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_traces import GPU_PLAN, HEALTHY, KNOWN, SLOW_LOADER, run

from monitoring.trace import trace_of
from monitoring.verdicts import Verdict, judge

RECORDED = sorted((Path(__file__).parent / "traces").glob("*.json"))


def without_missing(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures that are `None` are not there at all."""
    for line in lines:
        for device in line.get("devices", ()):
            device["values"] = {name: value for name, value in device["values"].items() if value is not None}
    return lines


def verdicts_of(arguments: dict[str, Any], plan: dict[str, Any]) -> list[Verdict]:
    return judge(trace_of(without_missing(run(**arguments)), {**GPU_PLAN, **plan}))


@pytest.mark.parametrize("name", KNOWN)
def test_known_causes_are_named_first_with_evidence_and_a_change(name: str) -> None:
    cause, arguments, plan = KNOWN[name]
    first = verdicts_of(arguments, plan)[0]
    assert first.cause == cause, first
    assert first.text
    assert first.change
    assert first.evidence
    assert 0.05 < first.share <= 1
    assert not first.healthy


@pytest.mark.parametrize("name", HEALTHY)
def test_no_alarm_on_healthy_runs(name: str) -> None:
    found = verdicts_of(*HEALTHY[name])
    assert [one.cause for one in found] == ["compute"], found
    assert found[0].healthy


def test_there_are_enough_of_both() -> None:
    assert len(KNOWN) + len(RECORDED) >= 20
    assert len(HEALTHY) >= 10


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_causes_that_were_really_caused(path: Path) -> None:
    recorded = json.loads(path.read_text())
    assert judge(trace_of(recorded["lines"], recorded["plan"]))[0].cause == recorded["cause"]


def test_a_slow_rank_says_which_and_why() -> None:
    (slow, *_) = verdicts_of(*KNOWN["one slow GPU of eight"][1:])
    assert slow.text == "rank 5 is slow: its computing is slower"
    assert "GPU-5 on node0" in slow.change
    (disk, *_) = verdicts_of(*KNOWN["one rank's disk"][1:])
    assert disk.text == "rank 2 is slow: it waits for data"


def test_workers_that_take_the_cores_are_told_so_once_and_with_their_number() -> None:
    (only,) = verdicts_of(*KNOWN["eight readers on two cores, and training waits behind them"][1:])
    assert only.text == "waits for a processor 50% of the time: its own loader workers take them"
    assert "workers keep 1.7 of 2 cores busy" in only.evidence
    assert "more processor cores" in only.change
    assert "--workers 2," in only.change
    (shared,) = verdicts_of(*KNOWN["readers keep up and leave no core to the training"][1:])
    assert "--workers 2," in shared.change
    beside = verdicts_of(*KNOWN["another job on the processors"][1:])[0]
    assert "end other work" in beside.change


def test_as_many_workers_as_cores_are_not_too_many() -> None:
    plan = {"workers": 4}
    (few,) = verdicts_of({"step": SLOW_LOADER, "loader": (0.6, 0.4), "host": {"cpu": 99.0, "cores": 4.0}}, plan)
    assert few.cause == "data: processors"
    assert "fewer workers will not help" in few.change


def test_several_causes_are_listed_by_cost() -> None:
    found = verdicts_of(*KNOWN["waits for data and for checkpoints"][1:])
    assert [one.cause for one in found][:1] == ["data: disk"]
    both = verdicts_of({"step": {"data_wait": 0.2, "checkpoint": 0.4}, "loader": (0.1, 0.0)}, {})
    assert [one.cause for one in both] == ["checkpoints", "data: disk"]


def test_nothing_is_said_too_early() -> None:
    for lines in ([], run(windows=0), run(windows=1)):
        (only,) = judge(trace_of(lines, {}))
        assert (only.cause, only.healthy) == ("too early", True)


def test_what_was_before_a_restart_does_not_count() -> None:
    slow, fast = run(step={"data_wait": 2.0}), run()
    for line in fast:
        line["step"] += 1000
        for one in line.get("ranks", ()):
            one["pid"] += 1000
    assert judge(trace_of([*slow, *fast], GPU_PLAN))[0].cause == "compute"


def test_lines_of_older_versions_are_passed_over() -> None:
    old = [{"event": "train", "step": 1, "loss": 1.0, "data_wait": 0.5}, {"event": "evaluate", "step": 1}]
    assert trace_of(old, {}).windows == ()


seconds = st.floats(0, 100)


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(
    st.lists(st.lists(st.tuples(seconds, seconds, seconds), min_size=2, max_size=2), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(["cpu", "iowait", "memory_used", "memory_total", "swap_used"]), st.floats(0, 1e12)),
    st.none() | st.floats(0, 1),
)
def test_any_figures_get_a_verdict(windows: Any, host: dict[str, float], loader: float | None) -> None:
    lines: list[dict[str, Any]] = [
        {
            "event": "train",
            "step": number,
            "ranks": [
                {
                    "rank": rank,
                    "seconds": dict(zip(("data_wait", "forward", "all_reduce"), one, strict=True)),
                    "loader_cpu": loader,
                }
                for rank, one in enumerate(ranks)
            ],
        }
        for number, ranks in enumerate(windows)
    ]
    lines.append({"event": "devices", "step": 100, "devices": [], "host": host})
    for verdict in judge(trace_of(lines, {})):
        assert verdict.text
        assert verdict.evidence
