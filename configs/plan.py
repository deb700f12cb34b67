"""The plan of a run: a pure function of the recipe, the devices and the user's options. No torch.

An optimiser step of the plan is the recipe's step whatever the topology:
`devices x device_batch x accumulation == effective_batch`, exactly, or an error that names the nearest valid choices.
By default the recipe's effective batch and learning rate are kept, and accumulation makes up for missing devices.
"""

from __future__ import annotations

import math
from typing import Final

from configs.batch_arithmetic import BatchSplit, split_batch
from configs.errors import UsageError
from configs.plan_schema import DeviceFacts, LrRule, Measured, Plan, PlanOptions, Precision
from configs.schema import Recipe

__all__ = ["DeviceFacts", "Measured", "Plan", "PlanOptions", "make_plan", "sample_bytes", "size_text"]

PREFETCH: Final = 2
"""Batches that every loader worker keeps ready."""
MAX_WORKERS: Final = 16
"""Loader processes per device beyond which we know of no gain."""
NO_OPTIONS: Final = PlanOptions()
GRACE_SECONDS: Final = 120
"""Time from a stop signal to the kill, as long as no checkpoint has been timed."""


def make_plan(
    recipe: Recipe,
    *,
    samples: int,
    devices: DeviceFacts,
    options: PlanOptions = NO_OPTIONS,
    measured: Measured | None = None,
) -> Plan:
    """The plan of training `recipe` on `devices` as the options say.

    Args:
        samples: samples of one epoch, after class balancing.

    Raises:
        UsageError: a device that is not there, a batch that cannot be split, or options that contradict each other.
    """
    if samples < 1:
        raise UsageError(f"split {recipe.data.train_split!r} holds no samples", fix="choose another data.train_split")
    origins: dict[str, str] = {"recipe": "option --config", "epoch_samples": "index", "reference_batch": "recipe"}
    local_ids = _choose_devices(devices, options, origins)
    nodes = options.nodes or 1
    origins["nodes"] = "default: this machine" if options.nodes is None else "option --nnodes"
    if nodes > 1:
        origins["devices"] = f"derived: {nodes} nodes x {len(local_ids)} devices"
    device_ids = local_ids * nodes
    split = _choose_batch(recipe, len(device_ids), options, origins)
    rule, factor = _learning_rate_rule(recipe, split.effective, options, origins)
    epochs = _pick(options.epochs, "--epochs", recipe.schedule.epochs, origins, "epochs")
    steps = math.ceil(samples / split.effective)
    origins["steps_per_epoch"] = f"derived: {samples} samples / {split.effective}, last step filled up"
    origins["total_steps"] = f"derived: {epochs} epochs x {steps}"
    precision = _choose_precision(recipe, devices, options, origins)
    batch_bytes = split.device_batch * sample_bytes(recipe)
    workers = _choose_workers(devices, len(local_ids), batch_bytes, options, origins)
    images = len(recipe.data.cameras) * recipe.data.frames
    origins["images_per_sample"] = f"derived: {len(recipe.data.cameras)} cameras x {recipe.data.frames} frames"
    rate = _sample_rate(len(device_ids), measured, origins)
    return Plan(
        recipe=recipe.name,
        device_kind=devices.kind,
        device_names=tuple(devices.names[i] for i in device_ids),
        device_ids=device_ids,
        nodes=nodes,
        devices=len(device_ids),
        device_batch=split.device_batch,
        accumulation=split.accumulation,
        effective_batch=split.effective,
        reference_batch=recipe.optimizer.reference_batch,
        learning_rate=recipe.optimizer.learning_rate * factor,
        base_learning_rate=recipe.optimizer.learning_rate,
        lr_rule=rule,
        lr_factor=factor,
        warmup_steps=recipe.schedule.warmup_steps,
        epoch_samples=samples,
        steps_per_epoch=steps,
        epochs=epochs,
        total_steps=epochs * steps,
        precision=precision,
        workers=workers,
        threads=_choose_threads(devices, len(local_ids), options, origins),
        images_per_sample=images,
        samples_per_second=rate,
        images_per_second=rate and rate * images,
        shared_memory_bytes=_shared_memory(len(local_ids), workers, batch_bytes, origins),
        grace_seconds=_choose_grace(options, measured, origins),
        warnings=tuple(_warnings(recipe, split.effective, epochs * steps, options)),
        origins=origins,
    )


def sample_bytes(recipe: Recipe) -> int:
    """Bytes of one collated sample: uint8 images and the float32 depth map; poses and boxes are small beside them."""
    data = recipe.data
    height, width = data.image_size
    images = len(data.cameras) * data.frames * 3 * height * width
    depth = len(data.cameras) * (height // data.depth_stride) * (width // data.depth_stride) * 4
    return images + depth


# --- the choices, in the order of the plan -------------------------------------------------------------------------


def _pick(asked: int | None, option: str, default: int, origins: dict[str, str], name: str) -> int:
    origins[name] = "recipe" if asked is None else f"option {option}"
    return default if asked is None else asked


def _choose_devices(facts: DeviceFacts, options: PlanOptions, origins: dict[str, str]) -> tuple[int, ...]:
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


def _choose_batch(recipe: Recipe, devices: int, options: PlanOptions, origins: dict[str, str]) -> BatchSplit:
    split = split_batch(
        devices,
        recipe.optimizer.reference_batch,
        recipe.optimizer.device_batch,
        batch_size=options.batch_size,
        accumulation=options.gradient_accumulation,
        effective=options.effective_batch,
    )
    origins |= split.origins
    return split


def _learning_rate_rule(
    recipe: Recipe, effective: int, options: PlanOptions, origins: dict[str, str]
) -> tuple[LrRule, float]:
    """Rule and factor; linear: arXiv 1706.02677 (SGD), sqrt: arXiv 2205.10287 (Adam, rate only, betas unchanged)."""
    rule: LrRule = options.lr_scaling or "none"
    ratio = effective / recipe.optimizer.reference_batch
    factor = {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]
    origins["base_learning_rate"] = origins["warmup_steps"] = "recipe"
    origins["lr_rule"] = "default: the recipe's rate" if options.lr_scaling is None else "option --lr-scaling"
    origins["lr_factor"] = f"derived: {rule} in {effective} / {recipe.optimizer.reference_batch}"
    origins["learning_rate"] = f"derived: {recipe.optimizer.learning_rate:g} x {factor:g}" if factor != 1 else "recipe"
    return rule, factor


def _choose_precision(recipe: Recipe, devices: DeviceFacts, options: PlanOptions, origins: dict[str, str]) -> Precision:
    if options.precision == "mixed":
        origins["precision"] = f"option --mixed-precision, {'' if devices.bf16 else 'no '}bf16 on {devices.names[0]}"
        return "bf16" if devices.bf16 else "fp16"
    origins["precision"] = "recipe" if options.precision is None else "option --precision"
    precision = options.precision or recipe.engine.precision
    if precision == "bf16" and not devices.bf16:
        raise UsageError(f"{devices.names[0]} has no bf16", fix="use --precision fp16 or fp32")
    return precision


def _choose_workers(
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


def _check_shared_memory(facts: DeviceFacts, devices: int, workers: int, batch_bytes: int) -> None:
    needed = devices * workers * PREFETCH * batch_bytes
    if facts.shared_memory_bytes is not None and needed > facts.shared_memory_bytes:
        raise UsageError(
            f"--workers {workers} needs {size_text(needed)} of shared memory, "
            f"/dev/shm has {size_text(facts.shared_memory_bytes)}",
            fix=f"use --workers {facts.shared_memory_bytes // (devices * PREFETCH * batch_bytes)}, "
            "or give the container more with --shm-size",
        )


def _shared_memory(devices: int, workers: int, batch_bytes: int, origins: dict[str, str]) -> int:
    origins["shared_memory_bytes"] = (
        f"derived: {devices} processes x {workers} workers x {PREFETCH} batches of {size_text(batch_bytes)}"
    )
    return devices * workers * PREFETCH * batch_bytes


def _choose_threads(facts: DeviceFacts, devices: int, options: PlanOptions, origins: dict[str, str]) -> int:
    if options.threads is not None:
        origins["threads"] = "option --threads"
        return options.threads
    if facts.kind != "cpu":
        origins["threads"] = f"default: the work is done on the {facts.kind} device"
        return 1
    origins["threads"] = f"derived: {facts.cpu_cores} cores / {devices} processes"
    return max(1, facts.cpu_cores // devices)


def _sample_rate(devices: int, measured: Measured | None, origins: dict[str, str]) -> float | None:
    if measured is None or measured.samples_per_second is None:
        origins["samples_per_second"] = origins["images_per_second"] = "unknown: not measured on this device yet"
        return None
    origins["samples_per_second"] = f"measured: {measured.samples_per_second:g} per device, {measured.source}"
    origins["images_per_second"] = "derived: samples/s x images per sample"
    return measured.samples_per_second * devices


def _choose_grace(options: PlanOptions, measured: Measured | None, origins: dict[str, str]) -> int:
    """At least one step, one checkpoint and two seconds; twice that where the user leaves it open."""
    origins["grace_seconds"] = "option --grace-seconds"
    if measured is None or measured.checkpoint_seconds is None:
        if options.grace_seconds is None:
            origins["grace_seconds"] = "default: no checkpoint has been timed yet"
        return options.grace_seconds or GRACE_SECONDS
    needed = math.ceil((measured.step_seconds or 0) + measured.checkpoint_seconds + 2)
    if options.grace_seconds is None:
        origins["grace_seconds"] = f"derived: twice a step and a checkpoint, {measured.source}"
        return 2 * needed
    if options.grace_seconds < needed:
        raise UsageError(
            f"--grace-seconds {options.grace_seconds}: a step and a checkpoint take {needed} s ({measured.source})",
            fix=f"use --grace-seconds {2 * needed}",
        )
    return options.grace_seconds


def _warnings(recipe: Recipe, effective: int, total_steps: int, options: PlanOptions) -> list[str]:
    found = []
    reference = recipe.optimizer.reference_batch
    if effective != reference and options.lr_scaling is None:
        found.append(
            f"the effective batch is {effective} instead of the recipe's {reference} and the learning rate is kept; "
            "--lr-scaling sqrt is the usual rule for Adam"
        )
    if recipe.schedule.warmup_steps >= total_steps:
        found.append(f"the warm-up of {recipe.schedule.warmup_steps} steps is not over after all {total_steps} steps")
    return found


def size_text(size: float) -> str:
    """`1.5 GiB`, `12 MiB`: a size for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
