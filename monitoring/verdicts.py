"""What limits a run, in words: a pure function of its trace.

Every cause has a threshold below which it is no news, and an estimate of the share of time that it costs; the costliest
is named first. Computing is what is left when nothing else is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from monitoring.trace import COMPUTING, Trace

Cause = Literal[
    "too early", "compute", "data: processors", "data: workers", "data: disk", "data", "communication", "slow rank",
    "power", "heat", "memory", "small batch", "checkpoints", "processors",
]  # fmt: skip

DATA_SHARE: Final = 0.10
COMMUNICATION_SHARE: Final = 0.20
"""Of the process that waits least: what the others wait longer, they wait for it."""
CHECKPOINT_SHARE: Final = 0.10
STARVED_SHARE: Final = 0.20
"""Of the median process of a training on processors."""
MOST_CORES: Final = 0.5
"""Share of the cores that readers keep busy, from which it is they who leave none."""
SLOW_RANK: Final = 1.15
"""Own work of the slowest over the median's."""
SLOW_WINDOWS: Final = 0.7
"""Share of windows in which it must be the same one."""
POWER_HELD, POWER_CLOCK = 20.0, 0.85
"""Least share of looks with a power cap, %, and the clock below which it costs: caps are usual at full load."""
HEAT_HELD, HEAT_CLOCK = 10.0, 0.95
LOADED: Final = 50.0
"""Utilisation from which clocks mean something."""
RETRIES: Final = 0.01
"""Allocator retries per step: each stops the device and gives memory back to the driver."""
HOST_MEMORY: Final = 0.95
IDLE_SM, IDLE_UTILISATION, HALF_MEMORY = 40.0, 60.0, 0.5
BLOCKED_READER, BUSY_HOST, BUSY_IOWAIT = 0.5, 90.0, 15.0
WINDOWS: Final = 2
"""Windows after the first before anything is said."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that limits a run."""

    cause: Cause
    share: float
    """Estimate of the share of time it costs, 0 to 1."""
    text: str
    evidence: tuple[str, ...]
    change: str
    """What to try."""

    @property
    def healthy(self) -> bool:
        """Nothing that a change of settings would mend."""
        return self.cause in ("compute", "too early")


def judge(trace: Trace) -> list[Verdict]:
    """What limits the run, the costliest first; never empty."""
    if len(trace.windows) < WINDOWS or trace.step_seconds() <= 0:
        seen = len(trace.windows)
        return [Verdict("too early", 0.0, "too early to say", (f"{seen} of {WINDOWS} lines of the log so far",), "")]
    found = [verdict for rule in _RULES for verdict in rule(trace)]
    throttled = {verdict.text for verdict in found if verdict.cause in ("power", "heat")}
    if throttled:  # a device that is held back makes its process the slow one
        found = [verdict for verdict in found if verdict.cause != "slow rank" or "waits for data" in verdict.text]
    found.sort(key=lambda verdict: -verdict.share)
    short = [verdict for verdict in found if verdict.cause == "data: processors"]  # readers and training lack the same
    found = [verdict for verdict in found if verdict not in short[1:]]
    return found or list(_small_batch(trace)) or [_compute(trace)]


def _data(trace: Trace) -> Iterator[Verdict]:
    step = trace.step_seconds()
    waits = sorted((trace.seconds("data_wait", rank), rank) for rank in trace.ranks)
    share, rank = waits[(len(waits) - 1) // 2][0] / step, waits[-1][1]  # one alone that waits is a slow rank
    if share < DATA_SHARE:
        return
    cause, evidence, change = _why_data(trace, rank, share)
    yield Verdict(
        cause, share, f"waits for data {share:.0%} of the time",
        (f"data_wait {waits[-1][0] * 1e3:.0f} ms of a step of {step * 1e3:.0f} ms", *evidence), change,
    )  # fmt: skip


def _why_data(trace: Trace, rank: int, share: float) -> tuple[Cause, tuple[str, ...], str]:
    """Whether readers lack processors, are too few, or wait for the disk."""
    workers = int(trace.plan.get("workers", 0))
    running, starved = trace.share("loader_cpu", rank), trace.share("loader_starved", rank)
    iowait, own = trace.host("iowait"), trace.share("starved", rank)
    cpu, processors = trace.processors()
    who = f"each of {workers} workers" if workers else "the process that reads"
    told = [f"{who} computes {running:.0%} of the time"] if running is not None else []
    told += [f"waits for a processor {starved:.0%}"] if starved is not None else []
    told += [f"{processors} {cpu:.0f} % busy"] if cpu is not None else []
    told += [f"{iowait:.0f} % waiting for disks"] if iowait is not None and iowait >= 1 else []
    evidence = (", ".join(told),) if told else ()
    slow_disk = "put the data on a local SSD, or keep decoded copies; `bevnext-sam2 bench loader` measures it"
    few_cores = _more_cores(trace)
    more = f"--workers {max(2, 2 * workers)}: there are idle cores"
    if running is None and cpu is None and iowait is None:
        return "data", ("which part of reading is slow cannot be told: no figures of workers or machine",), more
    if (own or 0.0) >= share and (cpu or 0.0) >= BUSY_HOST:  # batches lie there, and nobody takes them
        return "data: processors", (*evidence, f"the training itself waits for a processor {own:.0%}"), few_cores
    if running is None:
        blocked, starving = (iowait or 0.0) >= BUSY_IOWAIT, False
    else:
        blocked, starving = running + (starved or 0.0) < 1 - BLOCKED_READER, (starved or 0.0) > running / 2
    if blocked:
        return "data: disk", evidence, slow_disk
    if starving or (cpu or 0.0) >= BUSY_HOST:
        return "data: processors", evidence, few_cores
    return "data: workers", evidence, more


def _more_cores(trace: Trace) -> str:
    change = "more processor cores, or images stored smaller (data.source_size)"
    workers, cores = int(trace.plan.get("workers", 0)), int(trace.host("cores") or 0)
    room = max(1, cores // trace.processes_here()) if cores else workers
    if workers > room:
        return f"{change}; --workers {room}, since more of them than cores only take turns"
    return f"{change}; fewer workers will not help" if workers else change


def _slow_rank(trace: Trace) -> Iterator[Verdict]:
    if len(trace.ranks) < 2:
        return
    work = {rank: trace.work(rank) for rank in trace.ranks}
    order = sorted(work, key=work.__getitem__)
    slowest, middle = order[-1], order[(len(order) - 1) // 2]
    if work[middle] <= 0 or work[slowest] / work[middle] < SLOW_RANK:
        return
    each = Counter(max(window.ranks, key=lambda one: one.work).rank for window in trace.windows)
    if each[slowest] < SLOW_WINDOWS * len(trace.windows):
        return
    excess = work[slowest] - work[middle]
    waiting = trace.seconds("data_wait", slowest) - trace.seconds("data_wait", middle)
    on_data = waiting > 0.6 * excess
    where = next((one.host for one in trace.windows[-1].ranks if one.rank == slowest), "")
    reason = "it waits for data" if on_data else "its computing is slower"
    change = (
        f"look at the disk and the processors of {where or 'its machine'}"
        if on_data
        else f"look at {_device_words(trace, slowest)} on {where or 'its machine'}: other jobs, clocks, PCIe width; "
        "drain the machine if it stays"
    )
    yield Verdict(
        "slow rank", excess / trace.step_seconds(), f"rank {slowest} is slow: {reason}",
        (f"works {work[slowest] * 1e3:.0f} ms of a step, the median rank {work[middle] * 1e3:.0f} ms",
         f"slowest in {each[slowest]} of {len(trace.windows)} lines of the log"), change,
    )  # fmt: skip


def _device_words(trace: Trace, rank: int) -> str:
    return {"": "its device", "cpu": "its processors"}.get(trace.device_of(rank), trace.device_of(rank))


def _communication(trace: Trace) -> Iterator[Verdict]:
    if len(trace.ranks) < 2:
        return
    least = min(trace.seconds("all_reduce", rank) for rank in trace.ranks)
    share = least / trace.step_seconds()
    if share < COMMUNICATION_SHARE:
        return
    nodes = int(trace.plan.get("nodes", 1))
    wire = "the network between the machines" if nodes > 1 else "NVLink and PCIe (`nvidia-smi topo -m`)"
    yield Verdict(
        "communication", share, f"exchanges gradients {share:.0%} of the time",
        (f"even the rank that waits least spends {least * 1e3:.0f} ms of {trace.step_seconds() * 1e3:.0f} ms on it",),
        f"more accumulation (one exchange per step) with a larger batch; check {wire}; `bench scaling` measures it",
    )  # fmt: skip


def _throttled(trace: Trace) -> Iterator[Verdict]:
    for cause, held_name, other_name, least, most_clock in (
        ("power", "held_by_power", "held_by_heat", POWER_HELD, POWER_CLOCK),
        ("heat", "held_by_heat", "held_by_power", HEAT_HELD, HEAT_CLOCK),
    ):
        slowed = []
        for uuid in trace.used_devices():
            held, clock, top = (trace.device(uuid, name) for name in (held_name, "sm_clock", "sm_clock_max"))
            loaded = (trace.device(uuid, "utilisation") or 100.0) >= LOADED
            other = trace.device(uuid, other_name) or 0.0
            if held is None or clock is None or top is None or not loaded or held < other:
                continue
            if held >= least and clock < most_clock * top:
                slowed.append((clock / top, uuid, held, clock, top))
        if not slowed:
            continue
        ratio, uuid, held, clock, top = min(slowed)
        what = "a power cap" if cause == "power" else "heat"
        change = (
            "raise the limit (nvidia-smi -pl) where the board allows it, or see that the rack has the power"
            if cause == "power"
            else "cooling: fans, dust, air from the board beside it; the temperature is in the view"
        )
        yield Verdict(
            "power" if cause == "power" else "heat", 1 - ratio, f"{len(slowed)} GPU(s) held back by {what}",
            (f"{uuid}: {clock:.0f} of {top:.0f} MHz, held in {held:.0f} % of looks",), change,
        )  # fmt: skip


def _memory(trace: Trace) -> Iterator[Verdict]:
    first, last = trace.windows[0], trace.windows[-1]
    steps = max(1, last.step - first.step)
    for before, now in zip(first.ranks, last.ranks, strict=False):
        if before.allocator_retries is None or now.allocator_retries is None:
            continue
        retries = (now.allocator_retries - before.allocator_retries) / steps
        if retries >= RETRIES:
            yield Verdict(
                "memory", min(1.0, 0.1 + retries), f"rank {now.rank} runs out of device memory again and again",
                (f"{retries:.2f} allocator retries a step",),
                "half --batch-size and twice --gradient-accumulation is the same step; or "
                "model.backbone.checkpointing=true; PYTORCH_ALLOC_CONF=expandable_segments:True helps fragmentation",
            )  # fmt: skip
            break
    used, total = trace.host("memory_used"), trace.host("memory_total")
    limit, held = trace.host("container_memory_limit"), trace.host("container_memory_used")
    if limit and held and held / limit > HOST_MEMORY and (not total or limit < total):
        used, total = held, limit
    swapped = trace.host("swap_used") or 0.0
    if used and total and used / total > HOST_MEMORY:
        evidence = [f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB in use"]
        evidence += [f"{swapped / 2**30:.1f} GiB on swap"] if swapped > 2**28 else []
        change = "fewer --workers, or a container with more memory: at the limit processes are killed"
        yield Verdict("memory", used / total - 0.75, "main memory is nearly full", tuple(evidence), change)


def _checkpoints(trace: Trace) -> Iterator[Verdict]:
    step = trace.step_seconds()
    spent = max(trace.seconds("checkpoint", rank) for rank in trace.ranks)
    if spent / step >= CHECKPOINT_SHARE:
        yield Verdict(
            "checkpoints", spent / step, f"writes checkpoints {spent / step:.0%} of the time",
            (f"{spent * 1e3:.0f} ms of {step * 1e3:.0f} ms, spread over all steps",),
            "fewer of them (engine.checkpoint_every), or engine.checkpoint_writing=async, or a faster disk",
        )  # fmt: skip


def _processors(trace: Trace) -> Iterator[Verdict]:
    """Where the processor is the device, other work may use it too, and so may the readers of the run itself."""
    known = sorted(value for rank in trace.ranks if (value := trace.share("starved", rank)) is not None)
    if trace.plan.get("device_kind") != "cpu" or not known or (share := known[(len(known) - 1) // 2]) < STARVED_SHARE:
        return
    (busy, processors), cores, reading = trace.processors(), trace.host("cores"), trace.cores_of_readers()
    evidence = [f"{len(trace.ranks)} process(es) with {trace.plan.get('workers', '?')} worker(s) each"]
    evidence += [f"{processors} {busy:.0f} % busy"] if busy is not None else []
    evidence += [f"workers keep {reading:.1f} of {cores:.0f} cores busy"] if cores and reading is not None else []
    text = f"waits for a processor {share:.0%} of the time"
    if cores and reading is not None and reading >= MOST_CORES * cores:
        text += ": its own loader workers take them"
        yield Verdict("data: processors", share, text, tuple(evidence), _more_cores(trace))
        return
    yield Verdict(
        "processors", share, text, tuple(evidence),
        "end other work on this machine, or no more processes (--num-processes) and workers than it has cores",
    )  # fmt: skip


def _small_batch(trace: Trace) -> Iterator[Verdict]:
    """Nothing else is wrong, and yet the devices have little to do."""
    if trace.plan.get("device_kind", "cpu") == "cpu":
        return
    idle = []
    for uuid in trace.used_devices():
        activity, most = trace.device(uuid, "sm_activity"), IDLE_SM
        if activity is None:
            activity, most = trace.device(uuid, "utilisation"), IDLE_UTILISATION
        used, total = trace.device(uuid, "memory_used"), trace.device(uuid, "memory_total")
        if activity is not None and activity < most and used and total and used / total < HALF_MEMORY:
            idle.append((activity, used / total))
    if idle and len(idle) == len(trace.used_devices()):
        activity, filled = max(idle)
        batch = trace.plan.get("device_batch", "?")
        yield Verdict(
            "small batch", 1 - activity / 100, "batches are too small for the device",
            (f"multiprocessors {activity:.0f} % active, memory {filled:.0%} full with {batch} samples per device",),
            "--batch-size auto finds the largest that fits; accumulation falls and the step stays the same",
        )  # fmt: skip


def _compute(trace: Trace) -> Verdict:
    step = trace.step_seconds()
    parts = {phase: max(trace.seconds(phase, rank) for rank in trace.ranks) / step for phase in COMPUTING}
    activity = [value for uuid in trace.used_devices() if (value := trace.device(uuid, "sm_activity")) is not None]
    evidence = [", ".join(f"{phase} {share:.0%}" for phase, share in parts.items())]
    evidence += [f"multiprocessors {min(activity):.0f} % active"] if activity else []
    precision = trace.plan.get("precision", "fp32")
    change = "nothing is wrong; more devices" + (", or --mixed-precision" if precision == "fp32" else "") + " go faster"
    return Verdict("compute", min(1.0, sum(parts.values())), "computes, as it should", tuple(evidence), change)


_RULES: Final[tuple[Callable[[Trace], Iterator[Verdict]], ...]] = (
    _data,
    _slow_rank,
    _communication,
    _throttled,
    _memory,
    _checkpoints,
    _processors,
)
