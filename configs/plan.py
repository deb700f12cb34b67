"""The plan of a run: a pure function of the recipe, the devices and the user's options. No torch.

An optimiser step of the plan is the recipe's step whatever the topology:
`devices x device_batch x accumulation == effective_batch`, exactly, or an error that names the nearest valid choices.
By default the recipe's effective batch and learning rate are kept, and accumulation makes up for missing devices.
"""

from __future__ import annotations

import math
from typing import Final

from configs.batch_arithmetic import BatchSplit, candidate_batches, common_batches, split_batch
from configs.errors import UsageError
from configs.plan_devices import choose_devices
from configs.plan_machine import (
    PREFETCH,
    choose_grace,
    choose_threads,
    choose_workers,
    sample_bytes,
    sample_rate,
    shared_memory,
    size_text,
)
from configs.plan_schema import DeviceFacts, LrRule, Measured, NodeShare, Plan, PlanOptions, Precision
from configs.schema import Recipe

__all__ = ["PREFETCH", "DeviceFacts", "Measured", "Plan", "PlanOptions", "make_plan", "sample_bytes", "size_text"]

NO_OPTIONS: Final = PlanOptions()


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
    local_ids = choose_devices(devices, options, origins)
    nodes = options.nodes or 1
    origins["nodes"] = "default: this machine" if options.nodes is None else "option --nnodes"
    if nodes > 1:
        origins["devices"] = f"derived: {nodes} nodes x {len(local_ids)} devices"
    device_ids = local_ids * nodes
    candidates = _batch_candidates(recipe, devices, len(device_ids), options)
    shares = _node_shares(recipe, len(local_ids), options)
    split = _choose_batch(recipe, len(device_ids), options, candidates)
    origins |= split.origins
    rule, factor = _learning_rate_rule(recipe, split.effective, options, origins)
    epochs = _pick(options.epochs, "--epochs", recipe.schedule.epochs, origins, "epochs")
    steps = math.ceil(samples / split.effective)
    origins["steps_per_epoch"] = f"derived: {samples} samples / {split.effective}, last step filled up"
    origins["total_steps"] = f"derived: {epochs} epochs x {steps}"
    precision = _choose_precision(recipe, devices, options, origins)
    batch_bytes = max(split.device_batch, *(share.device_batch for share in shares), 0) * sample_bytes(recipe)
    workers = choose_workers(devices, len(local_ids), batch_bytes, options, origins)
    cameras, frames = len(recipe.data.cameras), recipe.data.frames_read
    images = cameras * frames
    origins["images_per_sample"] = f"derived: {cameras} cameras x {frames} frames"
    rate = sample_rate(len(device_ids), measured, origins)
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
        threads=choose_threads(devices, len(local_ids), options, origins),
        images_per_sample=images,
        samples_per_second=rate,
        images_per_second=rate and rate * images,
        shared_memory_bytes=shared_memory(len(local_ids), workers, batch_bytes, origins),
        grace_seconds=choose_grace(
            split.effective, (options.min_nodes or nodes) * len(local_ids), options, measured, origins
        ),
        node_shares=shares,
        batch_candidates=candidates,
        warnings=tuple(_warnings(recipe, split.effective, epochs * steps, options)),
        origins=origins,
    )


# --- the choices, in the order of the plan -------------------------------------------------------------------------


def _pick(asked: int | None, option: str, default: int, origins: dict[str, str], name: str) -> int:
    origins[name] = "recipe" if asked is None else f"option {option}"
    return default if asked is None else asked


def _batch_candidates(recipe: Recipe, facts: DeviceFacts, devices: int, options: PlanOptions) -> tuple[int, ...]:
    """The micro-batches among which `--batch-size auto` is to choose; empty where the batch is not left to trying."""
    if options.batch_size != "auto":
        return ()
    if facts.kind == "cpu":
        raise UsageError(
            "--batch-size auto finds what fits into the memory of a device, and the CPU has none of its own: "
            "trying it out would drive the whole machine out of memory",
            fix=f"leave it out (the recipe's is {recipe.optimizer.device_batch}), or give a number",
        )
    if options.min_nodes is not None:
        raise UsageError(
            "--batch-size auto and a range of --nnodes exclude each other",
            fix="find the batch with a fixed --nnodes first, then give it as a number",
        )
    return candidate_batches(
        devices,
        recipe.optimizer.reference_batch,
        accumulation=options.gradient_accumulation,
        effective=options.effective_batch,
    )


def _choose_batch(recipe: Recipe, devices: int, options: PlanOptions, candidates: tuple[int, ...] = ()) -> BatchSplit:
    asked = None if options.batch_size == "auto" else options.batch_size
    if candidates:  # the recipe's is planned with until the largest that fits is known
        asked = max((number for number in candidates if number <= recipe.optimizer.device_batch), default=candidates[0])
    split = split_batch(
        devices,
        recipe.optimizer.reference_batch,
        recipe.optimizer.device_batch,
        batch_size=asked,
        accumulation=options.gradient_accumulation,
        effective=options.effective_batch,
    )
    if candidates:
        split.origins["device_batch"] = "to be found by trying: --batch-size auto"
    return split


def _node_shares(recipe: Recipe, local: int, options: PlanOptions) -> tuple[NodeShare, ...]:
    """The split of the same step for every number of machines of an elastic run.

    Raises:
        UsageError: with some number of them the step cannot be split.
    """
    if options.min_nodes is None:
        return ()
    if options.batch_size is not None and options.gradient_accumulation is not None:
        raise UsageError(
            "--batch-size, --gradient-accumulation and a range of --nnodes fix the step on one number of machines only",
            fix="leave out --gradient-accumulation: it makes up for machines that are missing",
        )
    counts = range(options.min_nodes, (options.nodes or 1) + 1)
    return tuple(_node_share(recipe, count, local, counts, options) for count in counts)


def _node_share(recipe: Recipe, count: int, local: int, counts: range, options: PlanOptions) -> NodeShare:
    try:
        split = _choose_batch(recipe, count * local, options)
    except UsageError as error:
        factor = local * (options.gradient_accumulation or 1)
        factor *= options.batch_size if isinstance(options.batch_size, int) else 1
        target = options.effective_batch or recipe.optimizer.reference_batch
        totals = common_batches([number * factor for number in counts], target)
        raise UsageError(
            f"--nnodes {counts[0]}:{counts[-1]}: with {count} machine(s), {error.message}",
            fix=f"--effective-batch {' or '.join(map(str, totals))} (see --lr-scaling), or a fixed --nnodes",
        ) from error
    return NodeShare(nodes=count, device_batch=split.device_batch, accumulation=split.accumulation)


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
    if options.precision == "unmixed":
        origins["precision"] = "option --no-mixed-precision"
        return "fp32"
    origins["precision"] = "recipe" if options.precision is None else "option --precision"
    precision = options.precision or recipe.engine.precision
    if precision == "bf16" and not devices.bf16:
        raise UsageError(f"{devices.names[0]} has no bf16", fix="use --precision fp16 or fp32")
    return precision


def _warnings(recipe: Recipe, effective: int, total_steps: int, options: PlanOptions) -> list[str]:
    found = []
    reference = recipe.optimizer.reference_batch
    if options.distributed == "dp":
        found.append(
            "--distributed dp (one process with threads) is not offered: one process per device (ddp) does the same "
            "optimiser step, faster"
        )
    if effective != reference and options.lr_scaling is None:
        found.append(
            f"the effective batch is {effective} instead of the recipe's {reference} and the learning rate is kept; "
            "--lr-scaling sqrt is the usual rule for Adam"
        )
    if recipe.schedule.warmup_steps >= total_steps:
        found.append(f"the warm-up of {recipe.schedule.warmup_steps} steps is not over after all {total_steps} steps")
    return found
