"""A view as lines of text: everything one looks for first fits into 80 columns and 24 lines with eight GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from textwrap import wrap
from typing import Final, TypeVar

from rich.text import Text

from monitoring.fields import clock_reasons
from monitoring.samples import DeviceSample, HostSample, MachineSample
from monitoring.verdicts import SLOW_RANK
from monitoring.view import RunView, View

GOOD, WARN, BAD, SOFT, BOLD = "green", "yellow", "red bold", "bright_black", "bold"
GIB: Final = 2**30
ABSENT: Final = "–"
_STATE_STYLE: Final = {"training": GOOD, "done": GOOD, "starting": SOFT, "stopped": WARN}
_PHASE_STYLE: Final = {
    "data_wait": "red", "host_to_device": "magenta", "forward": "green", "backward": "bright_green",
    "all_reduce": "yellow", "optimizer": "cyan", "checkpoint": "blue", "evaluation": "white", "other": "bright_black",
}  # fmt: skip
_SHORT: Final = {"host_to_device": "copy", "data_wait": "data", "all_reduce": "exchange", "checkpoint": "save"}
_NOT_OWN: Final = ("all_reduce", "checkpoint", "evaluation")
_BLOCKS: Final = "█"
_DETAILED_RUNS: Final = 2
"""More runs than these get one line and their verdict each."""
_Key = TypeVar("_Key", int, str)


def draw(view: View, width: int, height: int) -> Text:
    """The screen; what does not fit at the bottom is left out and counted."""
    lines = list(_lines(view, width))
    if len(lines) > height:
        hidden = len(lines) - height + 1
        lines = [*lines[: height - 1], Text(f"{hidden} more lines: a larger window, or --once, shows them", style=SOFT)]
    return Text("\n").join([_cut(line, width) for line in lines])


def _lines(view: View, width: int) -> Iterator[Text]:
    when = datetime.fromtimestamp(view.time).strftime("%Y-%m-%d %H:%M:%S")
    place = view.machine.host.name if view.machine else ""
    source = "" if view.source == "this machine" else f" via {view.source}"
    backend = view.machine.backend if view.machine else ""
    yield Text.assemble(("monitor", BOLD), f"  {place}{source}  {when}  ", (backend, SOFT))
    for alert in view.alerts():
        yield Text.assemble(("! ", BAD), (f"{alert.subject}: {alert.text}", BAD))
    if view.machine is not None:
        yield from _machine(view.machine, width)
    for run in view.runs:
        yield Text("─" * width, style=SOFT)
        yield from _run(run, width, brief=len(view.runs) > _DETAILED_RUNS)
    if not view.runs and view.problem is None:
        yield Text("no run here yet: name its directory, or its exporter as http://HOST:9400", style=SOFT)


# --- the machine -----------------------------------------------------------------------------------------------------


def _machine(machine: MachineSample, width: int) -> Iterator[Text]:
    if machine.devices:
        yield Text("GPU  SM%  TC%       memory GiB      W  limit   °C   MHz  held by", style=SOFT)
        for device in machine.devices:
            yield _device(device)
    elif machine.problem:
        for line in wrap(f"no accelerators: {machine.problem}", max(20, width)):
            yield Text(line, style=SOFT)
    yield _host(machine.host)


def _device(device: DeviceSample) -> Text:
    values = device.values
    sm = values.get("sm_activity", values.get("utilisation"))
    mark = "*" if sm is not None and "sm_activity" not in values else ""
    used, total = values.get("memory_used"), values.get("memory_total")
    memory = f"{_gib(used)} / {_gib(total)}"
    full = used / total if used is not None and total else 0.0
    hot = values.get("temperature", 0.0) >= values.get("slowdown_temperature", 1000.0) - 3
    clock, top = values.get("sm_clock"), values.get("sm_clock_max")
    slow = clock is not None and top is not None and clock < 0.85 * top and (sm or 0) > 50
    reasons = clock_reasons(values["clock_reasons"]) if "clock_reasons" in values else []
    held = ", ".join(reason for reason in reasons if reason != "idle")
    number = f"{device.index:>3}" if device.kind != "instance" else "  └"
    line = Text.assemble(
        f"{number} ",
        (f"{_whole(sm):>4}{mark or ' '}", _share_style(sm)),
        f"{_whole(values.get('tensor_activity')):>4}",
        (f"{memory:>17}", BAD if full > 0.97 else ""),
        f"{_whole(values.get('power')):>7}{_whole(values.get('power_limit')):>7}",
        (f"{_whole(values.get('temperature')):>5}", BAD if hot else ""),
        (f"{_whole(clock):>6}", WARN if slow else ""),
        (f"  {held}", WARN if slow or hot else SOFT),
    )
    if device.kind == "instance":
        line.append(f" {device.name.split('MIG')[-1].strip()}", style=SOFT)
    errors = values.get("ecc_uncorrected", 0) + values.get("remap_failed", 0)
    if errors or values.get("xid_errors", 0):
        line.append("  hardware errors", style=BAD)
    return line


def _host(host: HostSample) -> Text:
    values = host.values
    parts = [("cpu", _percent(values.get("cpu"))), ("iowait", _percent(values.get("iowait")))]
    if "container_cpu" in values:  # what the machine around it does says little
        parts = [("cpu of quota", _percent(values["container_cpu"]))]
    for label, name in (("mem", "memory"), ("shm", "shared_memory"), ("disk", "disk")):
        used, total = values.get(f"{name}_used"), values.get(f"{name}_total")
        share = _percent(100 * used / total) if used is not None and total else ABSENT
        parts.append((label, f"{share} of {_gib(total)} GiB"))
    return Text("  ").join([Text.assemble((f"{label} ", SOFT), text) for label, text in parts])


# --- a run -----------------------------------------------------------------------------------------------------------


def _run(run: RunView, width: int, brief: bool) -> Iterator[Text]:
    style = _STATE_STYLE.get(run.state, BAD)
    yield Text.assemble((run.name, BOLD), ("  " + (run.recipe or ""), SOFT), "  ", (run.state_text, style))
    if run.step is None:
        return
    yield _progress(run, width)
    if not brief:
        yield _figures(run)
        if run.seconds:
            yield from _split(run, width)
        if len(run.ranks) > 1:
            yield _ranks(run, width)
    for number, verdict in enumerate(run.verdicts[: 1 if brief else 2]):
        mark = ("✓ ", GOOD) if verdict.healthy else ("▲ ", WARN)
        yield Text.assemble(mark, (verdict.text, BOLD if number == 0 else ""))
        if not brief:
            yield from _paragraph("; ".join(verdict.evidence), width, SOFT)
            yield from _paragraph(f"try: {verdict.change}" if verdict.change else "", width)


def _paragraph(text: str, width: int, style: str = "") -> list[Text]:
    return [Text(f"  {line}", style=style) for line in wrap(text, max(20, width - 2))]


def _progress(run: RunView, width: int) -> Text:
    step, total = run.step or 0, run.total_steps or 0
    share = min(1.0, step / total) if total else 0.0
    room = max(10, min(30, width - 56))
    done = round(share * room)
    eta = run.figures.get("eta_seconds")
    epoch = f"  epoch {run.epoch:.2f}/{run.epochs}" if run.epoch is not None and run.epochs else ""
    return Text.assemble(
        (_BLOCKS * done, GOOD), ("░" * (room - done), SOFT), f" {share:.0%}  step {step}/{total or '?'}{epoch}",
        f"  ETA {timedelta(seconds=round(eta))}" if eta is not None and run.state == "training" else "",
    )  # fmt: skip


def _figures(run: RunView) -> Text:
    told = run.figures
    loss = f"{told['loss']:.4g}" if "loss" in told else ABSENT
    parts = [
        ("loss", loss if run.loss_finite else "not finite"),
        ("lr", f"{told['learning_rate']:.1e}" if "learning_rate" in told else ABSENT),
        ("|g|", f"{told['grad_norm']:.3g}" if "grad_norm" in told else ABSENT),
        ("samples/s", f"{told['samples_per_second']:.3g}" if "samples_per_second" in told else ABSENT),
        ("GiB", _gib(told.get("memory_bytes"))),
    ]
    parts += [(name, f"{run.scores[name]:.3f}") for name in ("NDS", "mAP") if name in run.scores]
    return Text("  ").join([Text.assemble((f"{label} ", SOFT), text) for label, text in parts])


def _split(run: RunView, width: int) -> Iterator[Text]:
    """The step as a bar of its phases, and their names with shares."""
    seconds = {phase: value for phase, value in run.seconds.items() if value > 0 and phase != "evaluation"}
    total = sum(seconds.values())
    if not total:
        return
    bar = Text(f"step {_time(total)} ")
    room = width - len(bar)
    end = filled = 0.0
    for phase, value in seconds.items():  # each block ends where it should, however small those before it are
        end += room * value / total
        bar.append(_BLOCKS * (round(end) - round(filled)), style=_PHASE_STYLE.get(phase, ""))
        filled = end
    yield bar
    names = {
        phase: f"{_SHORT.get(phase, phase)} {value / total:.0%}"
        for phase, value in seconds.items()
        if value >= total / 100
    }
    shown = _fitting(names, seconds, width - 5)
    yield Text("     ").append_text(Text("  ").join([Text(names[one], _PHASE_STYLE.get(one, "")) for one in shown]))


def _ranks(run: RunView, width: int) -> Text:
    """Own work of each process over the median's; the slowest of them where there are many."""
    work = {one.rank: sum(value for phase, value in one.seconds.items() if phase not in _NOT_OWN) for one in run.ranks}
    middle = sorted(work.values())[(len(work) - 1) // 2] or 1.0
    names = {rank: f"{rank}:{value / middle:.2f}" for rank, value in work.items()}
    label = "work / median"
    shown = _fitting(names, work, width - len(label) - 2)
    if len(shown) < len(names):
        label = f"slowest of {len(names)}, {label}"
        shown = _fitting(names, work, width - len(label) - 2)
    styled = [Text(names[rank], style=BAD if work[rank] > SLOW_RANK * middle else "") for rank in shown]
    return Text("  ").join([Text(label, style=SOFT), *styled])


def _fitting(names: Mapping[_Key, str], sizes: Mapping[_Key, float], room: int) -> list[_Key]:
    """The largest of them, in their order, as many as fit beside each other with two spaces between them."""
    left, kept = room + 2, set()
    for one in sorted(names, key=sizes.__getitem__, reverse=True):
        left -= len(names[one]) + 2
        if left < 0:
            break
        kept.add(one)
    return [one for one in names if one in kept]


# --- words -----------------------------------------------------------------------------------------------------------


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line


def _whole(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}%"


def _gib(value: float | None) -> str:
    return ABSENT if value is None else f"{value / GIB:.0f}" if value >= 10 * GIB else f"{value / GIB:.1f}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def _share_style(share: float | None) -> str:
    return SOFT if share is None else GOOD if share >= 70 else WARN if share >= 30 else ""
