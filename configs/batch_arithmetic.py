"""Splitting an optimiser step's batch over devices and micro-batches: exactly, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.errors import UsageError


@dataclass(frozen=True)
class BatchSplit:
    """`devices * device_batch * accumulation == effective`, and where each number comes from."""

    devices: int
    device_batch: int
    accumulation: int
    effective: int
    origins: dict[str, str] = field(default_factory=dict, compare=False)


def split_batch(
    devices: int,
    reference: int,
    largest_device_batch: int,
    *,
    batch_size: int | None = None,
    accumulation: int | None = None,
    effective: int | None = None,
) -> BatchSplit:
    """Split the step over `devices`; what the user did not give is chosen so that the reference batch is kept.

    Args:
        reference: the recipe's samples per optimiser step.
        largest_device_batch: most samples of a micro-batch where `batch_size` and `accumulation` are left open.
        batch_size: samples of a micro-batch, as the user asked.
        effective: samples per optimiser step, as the user asked.

    Raises:
        UsageError: no exact split exists; the nearest valid choices are named.
    """
    origins = {
        "device_batch": "option --batch-size",
        "accumulation": "option --gradient-accumulation",
        "effective_batch": "option --effective-batch" if effective else "recipe",
    }
    target = effective or reference
    if batch_size and accumulation:
        return _both_given(devices, batch_size, accumulation, reference, effective, origins)
    if batch_size:
        accumulation = _divide(
            target, devices * batch_size, f"--batch-size {batch_size}", devices, largest_device_batch
        )
        origins["accumulation"] = f"derived: {target} / ({devices} devices x {batch_size})"
    elif accumulation:
        label = f"--gradient-accumulation {accumulation}"
        batch_size = _divide(target, devices * accumulation, label, devices, largest_device_batch)
        origins["device_batch"] = f"derived: {target} / ({devices} devices x {accumulation})"
    else:
        share = _divide(target, devices, f"{devices} device(s)", devices, largest_device_batch)
        batch_size = largest_divisor(share, largest_device_batch)
        accumulation = share // batch_size
        origins["device_batch"] = f"derived: largest divisor of {target} / {devices} up to {largest_device_batch}"
        origins["accumulation"] = f"derived: {target} / ({devices} devices x {batch_size})"
    return BatchSplit(devices, batch_size, accumulation, target, origins)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def _both_given(
    devices: int, batch_size: int, accumulation: int, reference: int, effective: int | None, origins: dict[str, str]
) -> BatchSplit:
    product = devices * batch_size * accumulation
    if effective is not None and effective != product:
        raise UsageError(
            f"--effective-batch {effective} is not {devices} devices x --batch-size {batch_size} x "
            f"--gradient-accumulation {accumulation} = {product}",
            fix=f"use --effective-batch {product}, or leave one of the three options out",
        )
    if effective is None and product != reference:
        origins["effective_batch"] = f"derived: {devices} devices x {batch_size} x {accumulation}"
    return BatchSplit(devices, batch_size, accumulation, product, origins)


def _divide(target: int, divisor: int, label: str, devices: int, largest_device_batch: int) -> int:
    """`target / divisor`, or the error that names the nearest choices."""
    quotient, rest = divmod(target, divisor)
    if rest == 0:
        return quotient
    below, above = quotient * divisor, (quotient + 1) * divisor
    totals = " or ".join(str(total) for total in (below, above) if total)
    choices = [f"--effective-batch {totals} (see --lr-scaling)"]
    if target % devices == 0 and divisor != devices:
        share = target // devices
        batch = largest_divisor(share, largest_device_batch)
        choices.insert(0, f"--batch-size {batch} --gradient-accumulation {share // batch}")
    elif target % devices:
        choices.insert(0, f"{largest_divisor(target, devices)} device(s)")
    raise UsageError(
        f"{label}: an effective batch of {target} samples cannot be split into micro-steps of {divisor}",
        fix=", or ".join(choices),
    )
