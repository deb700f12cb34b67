"""The sampler against a pretended NVML: every error of every function, lost GPUs, instances, old drivers, cost."""

from __future__ import annotations

from fake_nvml_library import scenario

from monitoring.fields import DEVICE


def test_every_error_of_every_function_is_an_answer() -> None:
    found = scenario("matrix")
    assert found["wrong"] == []
    assert found["functions"] >= 40
    assert found["codes"] >= 33
    assert found["cases"] == 2 * found["functions"] * found["codes"]
    assert found["alerted"] >= 80


def test_eight_gpus_one_of_them_divided() -> None:
    found = scenario("eight")
    assert found["backend"] == "NVML, driver 580.95.05"
    kinds = [kind for _, kind, _, _ in found["devices"]]
    assert (kinds.count("gpu"), kinds.count("instance")) == (8, 3)
    assert {parent for _, kind, _, parent in found["devices"] if kind == "instance"} == {"GPU-00000000"}
    assert found["temperatures"] == [61.0 + number for number in range(8)]
    assert "sm_activity" in found["instance"]["values"]  # utilisation is not there for instances, GPM is
    assert not set(found["instance"]["values"]) & set(found["instance"]["whole"])
    assert set(found["instance"]["whole"]) <= set(DEVICE)
    assert (found["alerts"], found["leaks"]) == (0, 0)


def test_a_gpu_that_is_pulled_out_is_an_alert_at_once_and_comes_back() -> None:
    found = scenario("unplug")
    assert found["first"] == ["gpu_lost"]
    assert found["said"] == [["GPU 3", "NVIDIA H200 is lost: NVML says 'GPU is lost'"]]
    assert found["values"] == {"xid_errors": 0.0}  # what the sampler itself has counted
    assert found["others"] > 30
    assert found["always"]
    assert found["still"] == 8
    assert (found["healed"], found["back"], found["leaks"]) == ([], [8, 64.0], 0)


def test_a_container_that_loses_its_gpus_is_an_alert_within_two_intervals() -> None:
    found = scenario("driver_gone")
    assert found["intervals"] <= 2
    assert found["always"]
    assert set(found["devices"]) == {2}  # not a blank
    assert any("worked before" in text and "Unknown Error" in text for text in found["text"])


def test_critical_errors_are_counted_and_named() -> None:
    found = scenario("xid")
    assert (found["before"], found["after"], found["last"]) == ([0.0, 0.0], [0.0, 1.0], [None, 79.0])
    assert found["alerts"] == [["GPU 1", "driver error XID 79"]]


def test_an_old_driver_answers_in_old_forms() -> None:
    found = scenario("old_driver")
    assert found["values"]["memory_used"] == 50e9
    assert found["values"]["clock_reasons"] == 4
    assert found["values"]["pcie_tx"] == 250e6
    assert found["missing"]["memory_reserved"] == "this driver counts it as used"
    assert found["missing"]["sm_activity"] == "Function Not Found"
    assert (set(found["values"]) | set(found["missing"])) - {"ranks"} == set(DEVICE)
    assert found["calls"] < 40  # what is not there is not asked for again and again


def test_processes_of_a_container_are_not_taken_for_ranks() -> None:
    found = scenario("ranks")
    assert found["machine"] == [True, 5, None]
    assert found["container"][:2] == found["no /proc"][:2] == [True, None]
    assert found["container"][2].startswith("not available: process ids are of the host")
    assert "No such file" in found["no /proc"][2]


def test_eight_gpus_once_a_second_cost_less_than_a_hundredth_of_a_core() -> None:
    assert min(scenario("cost")["seconds"] for _ in range(2)) < 0.01
