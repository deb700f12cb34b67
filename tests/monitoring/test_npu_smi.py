"""The table of `npu-smi info`, as recorded in its manuals; there was no such device to ask."""

from __future__ import annotations

from monitoring.fields import DEVICE
from monitoring.npu_smi import NpuSmiDevices, parse_info, run_npu_smi
from monitoring.samples import Missing

TWO = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.0                   Version: 24.1.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 95.4        40                0    / 0             |
| 0                         | 0000:C1:00.0  | 37          0    / 0          3400 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | Warning       | NA          41                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          3350 / 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 4194300       | python                   | 3120                    |
+===========================+===============+====================================================+
| No running processes found in NPU 1                                                            |
+===========================+===============+====================================================+
"""


def test_devices_and_processes() -> None:
    found = parse_info(TWO)
    assert not isinstance(found, Missing)
    first, second = found
    assert (first.index, first.name, first.kind, first.uuid) == (0, "Ascend 910B3", "npu", "0000:C1:00.0")
    assert first.values == {
        "power": 95.4,
        "temperature": 40.0,
        "utilisation": 37.0,
        "memory_used": 3400 * 2**20,
        "memory_total": 65536 * 2**20,
    }
    assert (set(first.values) | set(first.missing)) - {"ranks"} == set(DEVICE)
    assert [(one.pid, one.rank, one.memory_bytes) for one in first.processes or ()] == [(4194300, None, 3120 * 2**20)]
    assert second.name == "Ascend 910B3 (Warning)"
    assert second.missing["power"] == "npu-smi says 'NA'"
    assert second.values["utilisation"] == 0.0
    assert second.processes == ()


def test_any_piece_of_the_text_is_an_answer() -> None:
    for length in range(0, len(TWO), 7):
        found = parse_info(TWO[:length])
        assert isinstance(found, Missing) or all(set(DEVICE) <= set(one.values) | set(one.missing) for one in found)


def test_a_program_that_stops_to_answer_is_an_alert() -> None:
    answers: list[str | Missing] = [TWO, Missing("it hangs"), TWO]
    devices = NpuSmiDevices(lambda: answers.pop(0))
    assert len(devices.sample(0.0)) == 2
    gone = devices.sample(1.0)
    assert [one.values for one in gone] == [{}, {}]
    assert gone[0].missing["power"] == "it hangs"
    assert [alert.text for alert in devices.alerts()] == ["npu-smi worked before, now: it hangs"]
    assert devices.sample(2.0)[0].values["power"] == 95.4
    assert devices.alerts() == []


def test_a_machine_without_the_program() -> None:
    assert run_npu_smi() == Missing("there is no npu-smi here")
    devices = NpuSmiDevices()
    assert devices.sample(0.0) == ()
    assert (devices.problem, devices.alerts()) == ("there is no npu-smi here", [])
