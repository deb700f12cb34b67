"""Which devices a plan uses, of those that are there."""

from __future__ import annotations

from configs.errors import UsageError
from configs.plan_schema import DeviceFacts, PlanOptions


def choose_devices(facts: DeviceFacts, options: PlanOptions, origins: dict[str, str]) -> tuple[int, ...]:
    """Index of each process's device on one machine; `origins` is told who chose them.

    Raises:
        UsageError: a device that is not there, or options that contradict each other.
    """
    if options.device is not None and options.device != facts.kind:
        raise UsageError(
            f"--device {options.device}: no such device here, there is {facts.kind}",
            fix="`bevnext-sam2 doctor` says why a GPU is not seen; --device cpu trains without one",
        )
    origins["device_kind"] = "detected" if options.device is None else "option --device"
    origins["device_names"] = "detected"
    origins["device_ids"] = origins["devices"] = "detected: all visible devices"
    if facts.kind == "cpu":
        return _choose_cpu_processes(facts, options, origins)
    if options.gpus is not None:
        return _choose_listed(facts, options.gpus, options.num_devices, origins)
    count = options.num_devices or len(facts.names)
    if count > len(facts.names):
        raise UsageError(
            f"--num-gpus {count}: only {len(facts.names)} {facts.kind} device(s) visible",
            fix=f"use at most --num-gpus {len(facts.names)}",
        )
    if options.num_devices is not None:
        origins["device_ids"] = origins["devices"] = "option --num-gpus"
    return tuple(range(count))


def _choose_cpu_processes(facts: DeviceFacts, options: PlanOptions, origins: dict[str, str]) -> tuple[int, ...]:
    if options.gpus:
        raise UsageError(
            f"--gpus {','.join(map(str, options.gpus))}: no GPU is visible here",
            fix="`bevnext-sam2 doctor` says why; --device cpu trains without one",
        )
    if options.num_devices is not None:
        origins["device_ids"] = origins["devices"] = "option --num-processes"
        return (0,) * options.num_devices
    count = min(2, facts.cpu_cores)
    origins["device_ids"] = origins["devices"] = f"default: {count} process(es) share the CPU's {facts.cpu_cores} cores"
    return (0,) * count


def _choose_listed(
    facts: DeviceFacts, gpus: tuple[int, ...], count: int | None, origins: dict[str, str]
) -> tuple[int, ...]:
    text = ",".join(map(str, gpus))
    known = f"0 to {len(facts.names) - 1}" if facts.names else "none"
    for gpu in gpus:
        if gpu >= len(facts.names):
            raise UsageError(f"--gpus {text}: device {gpu} is not visible", fix=f"visible devices: {known}")
    if not gpus or len(set(gpus)) < len(gpus):
        raise UsageError(f"--gpus {text}: each device once, at least one", fix=f"visible devices: {known}")
    if count not in (None, len(gpus)):
        raise UsageError(f"--num-gpus {count} and --gpus {text} differ", fix="give one of them")
    origins["device_ids"] = origins["devices"] = "option --gpus"
    return gpus
