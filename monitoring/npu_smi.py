"""Ascend NPUs through `npu-smi info`. Parsed from recorded output; no such hardware was here to try it on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from monitoring.fields import DEVICE
from monitoring.samples import Alert, DeviceSample, Missing, Process, Readings
from monitoring.training_processes import foreign_ids, rank_of

SECONDS: Final = 5.0
"""An answer that takes longer is none."""
MEBIBYTE: Final = 2**20
_UNTOLD: Final = Missing("npu-smi info does not tell")
_COLUMNS: Final = 3
_PROCESS_COLUMNS: Final = 4


def run_npu_smi() -> str | Missing:
    """What `npu-smi info` prints."""
    try:
        done = subprocess.run(["npu-smi", "info"], capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        return Missing("there is no npu-smi here")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Missing(f"npu-smi info: {error}")
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or "no words"
        return Missing(f"npu-smi info ended with {done.returncode}: {words}")
    return done.stdout


class NpuSmiDevices:
    """Implements `monitoring.sampler.Devices`.

    Args:
        run: gives the text of `npu-smi info`.
    """

    backend = "npu-smi (untested on hardware)"

    def __init__(self, run: Callable[[], str | Missing] = run_npu_smi) -> None:
        self.problem: str | None = None
        self._run = run
        self._known: tuple[DeviceSample, ...] = ()

    def sample(self, now: float) -> tuple[DeviceSample, ...]:  # noqa: ARG002  (the interface)
        text = self._run()
        found = text if isinstance(text, Missing) else parse_info(text)
        self.problem = found.reason if isinstance(found, Missing) else None
        if isinstance(found, Missing):
            gone = dict.fromkeys((*DEVICE, "processes"), found.reason)
            return tuple(
                one.model_copy(update={"values": {}, "missing": gone, "processes": None}) for one in self._known
            )
        self._known = found
        return found

    def alerts(self) -> list[Alert]:
        if self.problem is None or not self._known:
            return []
        return [Alert(kind="gpu_lost", subject="NPUs", text=f"npu-smi worked before, now: {self.problem}")]

    def close(self) -> None:
        """Nothing to give back."""


def parse_info(text: str) -> tuple[DeviceSample, ...] | Missing:
    """The devices in the table of `npu-smi info`, two lines each, and the processes below it."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if "|" in line]
    pairs = _device_rows(rows)
    if not pairs:
        return Missing("npu-smi info has no table of devices")
    processes = list(_processes(rows))
    return tuple(_device(upper, lower, processes) for upper, lower in pairs)


def _device_rows(rows: list[list[str]]) -> list[tuple[list[str], list[str]]]:
    """Two lines of each device: `0 910B3 | OK | 95.4 40 0 / 0` and `0 | 0000:C1:00.0 | 3 0 / 0 3400 / 65536`."""
    wide = [row for row in rows if len(row) == _COLUMNS]
    return [
        (upper, lower)
        for upper, lower in pairwise(wide)
        if re.fullmatch(r"\d+\s+\S*[A-Za-z]\S*", upper[0]) and re.search(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:", lower[1])
    ]


def _device(upper: list[str], lower: list[str], processes: list[tuple[int, Process]]) -> DeviceSample:
    number, name = upper[0].split(maxsplit=1)
    health, state = upper[1], upper[2].split()
    use = re.findall(r"\d+(?:\.\d+)?|-|NA", lower[2].replace("/", " "))
    readings = Readings()
    for figure in DEVICE:
        readings.put(figure, _UNTOLD)
    _put(readings, "power", state, 0)
    _put(readings, "temperature", state, 1)
    _put(readings, "utilisation", use, 0)
    # the last pair is the memory of the chip (HBM where there is such, else DDR)
    _put(readings, "memory_used", use, len(use) - 2, MEBIBYTE)
    _put(readings, "memory_total", use, len(use) - 1, MEBIBYTE)
    if foreign := foreign_ids():
        readings.put("ranks", foreign)
    own = [process for device, process in processes if device == int(number)]
    return DeviceSample(
        index=int(number),
        uuid=lower[1],
        name=f"Ascend {name}" if health == "OK" else f"Ascend {name} ({health})",
        kind="npu",
        values=readings.values,
        missing=readings.missing,
        processes=tuple(own),
    )


def _put(readings: Readings, name: str, words: list[str], place: int, unit: int = 1) -> None:
    word = words[place] if 0 <= place < len(words) else ""
    known = re.fullmatch(r"\d+(\.\d+)?", word) is not None
    readings.put(name, DEVICE[name].checked(float(word) * unit) if known else Missing(f"npu-smi says {word!r}"))


def _processes(rows: list[list[str]]) -> Iterator[tuple[int, Process]]:
    """Lines such as `0 0 | 12345 | python | 3120`: device and chip, process, name, MiB."""
    for row in rows:
        device = row[0].split()
        if len(row) == _PROCESS_COLUMNS and len(device) == 2 and all(word.isdigit() for word in (*device, row[1])):
            memory = int(row[3]) * MEBIBYTE if row[3].isdigit() else None
            yield int(device[0]), Process(pid=int(row[1]), rank=rank_of(int(row[1])), memory_bytes=memory)
