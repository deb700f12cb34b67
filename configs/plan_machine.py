"""What a plan needs of the machine beside its devices: loader processes, threads, shared memory, time to save."""

from __future__ import annotations

import math
from typing import Final

from configs.errors import UsageError
from configs.plan_schema import DeviceFacts, Measured, PlanOptions
from configs.schema import Recipe

PREFETCH: Final = 2
"""Batches that every loader worker keeps ready."""
MAX_WORKERS: Final = 16
"""Loader processes per device beyond which we know of no gain."""
GRACE_SECONDS: Final = 120
"""Time from a stop signal to the kill, as long as no checkpoint has been timed."""
LEAST_GRACE_SECONDS: Final = 30
"""Of a plan that is free to choose: a stop may meet a process that is still starting."""
SPARE_SECONDS: Final = 2
"""Part of the grace period beside a step and a checkpoint."""


def sample_bytes(recipe: Recipe) -> int:
    """Bytes of one collated sample: uint8 images and the float32 depth map; poses and boxes are small beside them."""
    data = recipe.data
    height, width = data.image_size
    whole_height, whole_width = data.whole_size or (0, 0)
    images = len(data.cameras) * data.frames_read * 3 * (height * width + whole_height * whole_width)
    depth = len(data.cameras) * (height // data.depth_stride) * (width // data.depth_stride) * 4
    return images + depth


def choose_workers(
    facts: DeviceFacts, devices: int, batch_bytes: int, options: PlanOptions, origins: dict[str, str]
) -> int:
    """Loader processes per device: one core stays with the training process, shared memory must hold the batches."""
    if options.workers is not None:
        origins["workers"] = "option --workers"
        _check_shared_memory(facts, devices, options.workers, batch_bytes)
        return options.workers
    by_cores = max(1, min(MAX_WORKERS, facts.cpu_cores // devices - 1))
    origins["workers"] = f"derived: {facts.cpu_cores} cores / {devices} processes, one core each to train"
    if facts.shared_memory_bytes is None:
        return by_cores
    by_memory = facts.shared_memory_bytes // (devices * PREFETCH * batch_bytes)
    if by_memory < by_cores:
        origins["workers"] = f"derived: shared memory of {size_text(facts.shared_memory_bytes)} holds no more"
    return min(by_cores, by_memory)


def shared_memory(devices: int, workers: int, batch_bytes: int, origins: dict[str, str]) -> int:
    """Bytes of /dev/shm that the batches of all loader processes of one machine take."""
    origins["shared_memory_bytes"] = (
        f"derived: {devices} processes x {workers} workers x {PREFETCH} batches of {size_text(batch_bytes)}"
    )
    return devices * workers * PREFETCH * batch_bytes


def choose_threads(facts: DeviceFacts, devices: int, options: PlanOptions, origins: dict[str, str]) -> int:
    """Compute threads of each process."""
    if options.threads is not None:
        origins["threads"] = "option --threads"
        return options.threads
    if facts.kind != "cpu":
        origins["threads"] = f"default: the work is done on the {facts.kind} device"
        return 1
    origins["threads"] = f"derived: {facts.cpu_cores} cores / {devices} processes"
    return max(1, facts.cpu_cores // devices)


def sample_rate(devices: int, measured: Measured | None, origins: dict[str, str]) -> float | None:
    """Training samples per second of all devices together, where they have been timed."""
    if measured is None or measured.samples_per_second is None:
        origins["samples_per_second"] = origins["images_per_second"] = "unknown: not measured on this device yet"
        return None
    origins["samples_per_second"] = f"measured: {measured.samples_per_second:.3g} per device, {measured.source}"
    origins["images_per_second"] = "derived: samples/s x images per sample"
    return measured.samples_per_second * devices


def choose_grace(
    effective_batch: int, devices: int, options: PlanOptions, measured: Measured | None, origins: dict[str, str]
) -> int:
    """At least one step, one checkpoint and two seconds; twice that, and 30 s, where the user leaves it open.

    Raises:
        UsageError: less than that is asked for; the processes would be killed while they save.
    """
    origins["grace_seconds"] = "option --grace-seconds"
    if measured is None or measured.checkpoint_seconds is None:
        if options.grace_seconds is None:
            origins["grace_seconds"] = "default: no checkpoint has been timed yet"
        return options.grace_seconds or GRACE_SECONDS
    slowest = measured.slowest_samples_per_second
    step = effective_batch / (slowest * devices) if slowest else 0.0
    needed = math.ceil(step + measured.checkpoint_seconds + SPARE_SECONDS)
    what = f"a step of {step:.1f} s and a checkpoint of {measured.checkpoint_seconds:.1f} s, {measured.source}"
    if options.grace_seconds is None:
        origins["grace_seconds"] = f"derived: twice {what}, at least {LEAST_GRACE_SECONDS} s"
        return max(2 * needed, LEAST_GRACE_SECONDS)
    if options.grace_seconds < needed:
        raise UsageError(
            f"--grace-seconds {options.grace_seconds} is less than {needed}, the time for {what}",
            fix=f"use --grace-seconds {2 * needed}",
        )
    return options.grace_seconds


def size_text(size: float) -> str:
    """`1.5 GiB`, `12 MiB`: a size for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def _check_shared_memory(facts: DeviceFacts, devices: int, workers: int, batch_bytes: int) -> None:
    needed = devices * workers * PREFETCH * batch_bytes
    if facts.shared_memory_bytes is not None and needed > facts.shared_memory_bytes:
        raise UsageError(
            f"--workers {workers} needs {size_text(needed)} of shared memory, "
            f"/dev/shm has {size_text(facts.shared_memory_bytes)}",
            fix=f"use --workers {facts.shared_memory_bytes // (devices * PREFETCH * batch_bytes)}, "
            "or give the container more with --shm-size",
        )
