"""Splitting an optimiser step's batch over devices and micro-batches: exactly, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from configs.errors import UsageError

LARGEST_TRIED: Final = 256
"""Samples of a micro-batch that `--batch-size auto` tries at most where nothing else bounds them."""


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
        accumulation = _cofactor(target, devices, batch_size, "--batch-size")
        origins["accumulation"] = f"derived: {target} / ({devices} devices x {batch_size})"
    elif accumulation:
        batch_size = _cofactor(target, devices, accumulation, "--gradient-accumulation")
        origins["device_batch"] = f"derived: {target} / ({devices} devices x {accumulation})"
    else:
        share = _share(target, devices)
        batch_size = largest_divisor(share, largest_device_batch)
        accumulation = share // batch_size
        origins["device_batch"] = f"derived: largest divisor of {target} / {devices} up to {largest_device_batch}"
        origins["accumulation"] = f"derived: {target} / ({devices} devices x {batch_size})"
    return BatchSplit(devices, batch_size, accumulation, target, origins)


def candidate_batches(
    devices: int, reference: int, *, accumulation: int | None = None, effective: int | None = None
) -> tuple[int, ...]:
    """The micro-batches that `--batch-size auto` may choose from, ascending: each of them splits the step exactly.

    Where the user fixes the accumulation alone, the effective batch follows from what fits, so any number will do.
    """
    target = effective or reference
    if accumulation is None:
        share = _share(target, devices)
        return tuple(number for number in range(1, share + 1) if share % number == 0)
    if effective is None:
        return tuple(range(1, LARGEST_TRIED + 1))
    return (_cofactor(target, devices, accumulation, "--gradient-accumulation"),)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def common_batches(counts: Sequence[int], near: int) -> tuple[int, ...]:
    """The batches nearest to `near` that every one of `counts` devices divides: the one below, if any, and above."""
    return _multiples(math.lcm(*counts), near)


def _both_given(
    devices: int, batch_size: int, accumulation: int, reference: int, effective: int | None, origins: dict[str, str]
) -> BatchSplit:
    product = devices * batch_size * accumulation
    if effective is not None and effective != product:
        raise UsageError(
            f"--effective-batch {effective} is not {devices} devices x --batch-size {batch_size} x "
            f"--gradient-accumulation {accumulation} = {product}",
            fix=f"--effective-batch {product}, or leave one of the three options out",
        )
    if effective is None and product != reference:
        origins["effective_batch"] = f"derived: {devices} devices x {batch_size} x {accumulation}"
    return BatchSplit(devices, batch_size, accumulation, product, origins)


def _share(target: int, devices: int) -> int:
    """`target / devices`, or the error that names the nearest choices."""
    if target % devices == 0:
        return target // devices
    raise UsageError(
        f"{devices} device(s): an effective batch of {target} samples cannot be split into {devices} shares",
        fix=f"{largest_divisor(target, devices)} device(s), or {_other_totals(devices, target)}",
    )


def _cofactor(target: int, devices: int, factor: int, option: str) -> int:
    """`target / (devices * factor)`, or the error that names the nearest choices."""
    quotient, rest = divmod(target, devices * factor)
    if rest == 0:
        return quotient
    choices = [_other_totals(devices * factor, target)]
    if target % devices:
        choices.insert(0, f"{largest_divisor(target, devices)} device(s)")
    else:
        choices.insert(0, f"{option} {_either(_nearest_divisors(target // devices, factor))}")
    raise UsageError(
        f"{option} {factor}: an effective batch of {target} samples cannot be split into "
        f"parts of {devices} devices x {factor} = {devices * factor}",
        fix=", or ".join(choices),
    )


def _other_totals(divisor: int, target: int) -> str:
    return f"--effective-batch {_either(_multiples(divisor, target))} (see --lr-scaling)"


def _multiples(divisor: int, near: int) -> tuple[int, ...]:
    """The positive multiples of `divisor` around `near`."""
    below = near // divisor * divisor
    return tuple(total for total in (below, below + divisor) if total)


def _nearest_divisors(number: int, wanted: int) -> tuple[int, ...]:
    """The divisors of `number` next to `wanted`, which is none."""
    above = (divisor for divisor in range(wanted + 1, number + 1) if number % divisor == 0)
    return (largest_divisor(number, wanted), *((next(above),) if wanted < number else ()))


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))
