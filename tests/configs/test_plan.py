"""The plan: the batch is exact or an error, every value says where it comes from."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import UsageError
from configs.plan import PREFETCH, DeviceFacts, Measured, Plan, PlanOptions, make_plan, sample_bytes
from configs.recipes import load_recipe

STAGE_1 = load_recipe("bevnext/bevnext-stage1")
TINY = load_recipe("synthetic/bevnext-tiny")
NO_ORIGIN = {"warnings", "origins", "node_shares", "batch_candidates"}


def gpus(count: int, **more: object) -> DeviceFacts:
    return DeviceFacts.model_validate({"kind": "cuda", "names": ("GPU",) * count, "cpu_cores": 64, **more})


def plan(devices: DeviceFacts, samples: int = 1000, **options: object) -> Plan:
    return make_plan(STAGE_1, samples=samples, devices=devices, options=PlanOptions.model_validate(options))


def test_published_run_on_eight_devices() -> None:
    found = plan(gpus(8), samples=123_580)
    assert (found.device_batch, found.accumulation, found.effective_batch) == (8, 1, 64)
    assert (found.steps_per_epoch, found.total_steps, found.warmup_steps) == (1931, 3862, 200)
    assert found.learning_rate == 2e-4
    assert not found.warnings


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16, 32, 64])
def test_default_keeps_the_recipes_step_on_any_divisor(count: int) -> None:
    found = plan(gpus(count))
    assert found.effective_batch == 64
    assert found.device_batch == min(8, 64 // count)
    assert found.learning_rate == STAGE_1.optimizer.learning_rate
    assert found.origins["learning_rate"] == "recipe"


@given(
    devices=st.integers(1, 70),
    batch_size=st.none() | st.integers(1, 80),
    accumulation=st.none() | st.integers(1, 40),
    effective=st.none() | st.integers(1, 600),
    rule=st.sampled_from([None, "linear", "sqrt", "none"]),
    samples=st.integers(1, 200_000),
    cores=st.integers(1, 256),
    shared_memory=st.none() | st.integers(0, 1 << 34),
)
@settings(max_examples=1000, deadline=None)
def test_the_batch_is_exact_or_an_error(
    devices: int,
    batch_size: int | None,
    accumulation: int | None,
    effective: int | None,
    rule: str | None,
    samples: int,
    cores: int,
    shared_memory: int | None,
) -> None:
    facts = gpus(devices, cpu_cores=cores, shared_memory_bytes=shared_memory)
    asked = {
        "batch_size": batch_size,
        "gradient_accumulation": accumulation,
        "effective_batch": effective,
        "lr_scaling": rule,
    }
    try:
        found = plan(facts, samples=samples, **asked)
    except UsageError as error:
        assert error.fix
        return
    assert found.devices * found.device_batch * found.accumulation == found.effective_batch
    assert batch_size in (None, found.device_batch)
    assert accumulation in (None, found.accumulation)
    if batch_size is None or accumulation is None:
        assert found.effective_batch == (effective or 64)
    ratio = found.effective_batch / 64
    assert found.lr_factor == pytest.approx({"linear": ratio, "sqrt": math.sqrt(ratio)}.get(found.lr_rule, 1.0))
    assert found.learning_rate == pytest.approx(2e-4 * found.lr_factor)
    assert found.steps_per_epoch == -(-samples // found.effective_batch)
    assert found.shared_memory_bytes == devices * found.workers * PREFETCH * found.device_batch * sample_bytes(STAGE_1)
    assert shared_memory is None or found.shared_memory_bytes <= shared_memory
    assert set(found.origins) == set(Plan.model_fields) - NO_ORIGIN
    assert Plan.model_validate_json(found.model_dump_json()) == found


def choices_named(fix: str, label: str) -> list[int]:
    """The numbers after an option in the text of a fix: `--batch-size 4 or 8, or ...`."""
    found = re.search(rf"{label} (\d+)(?: or (\d+))?", fix)
    return [] if found is None else [int(number) for number in found.groups() if number]


def around(wanted: int, valid: set[int]) -> list[int]:
    """The members of `valid` next to `wanted`, below and above."""
    below, above = (n for n in valid if n < wanted), (n for n in valid if n > wanted)
    return [n for n in (max(below, default=None), min(above, default=None)) if n is not None]


@given(
    devices=st.integers(1, 20),
    factor=st.integers(1, 100),
    option=st.sampled_from(["batch_size", "gradient_accumulation"]),
)
@settings(max_examples=1000, deadline=None)
def test_an_error_names_the_nearest_choices_on_both_sides(devices: int, factor: int, option: str) -> None:
    try:
        plan(gpus(devices), **{option: factor})
    except UsageError as error:
        totals = {n for n in range(1, 64 + 2 * devices * factor) if n % (devices * factor) == 0}
        assert choices_named(error.fix, "--effective-batch") == around(64, totals)
        for total in around(64, totals):
            assert plan(gpus(devices), **{option: factor}, effective_batch=total).effective_batch == total
        flag = "--" + option.replace("_", "-")
        if 64 % devices:
            fewer = int(error.fix.split()[0])
            assert fewer == max(n for n in range(1, devices) if 64 % n == 0)
        else:
            divisors = {n for n in range(1, 65) if (64 // devices) % n == 0}
            assert choices_named(error.fix, flag) == around(factor, divisors)
            for number in around(factor, divisors):
                assert plan(gpus(devices), **{option: number}).effective_batch == 64
    else:
        assert 64 % (devices * factor) == 0


@given(
    local=st.integers(1, 8),
    low=st.integers(1, 4),
    more=st.integers(0, 4),
    batch_size=st.none() | st.integers(1, 12),
    effective=st.none() | st.integers(1, 900),
)
@settings(max_examples=1000, deadline=None)
def test_an_elastic_run_keeps_its_step_on_every_number_of_machines(
    local: int, low: int, more: int, batch_size: int | None, effective: int | None
) -> None:
    asked = {"nodes": low + more, "min_nodes": low, "batch_size": batch_size, "effective_batch": effective}
    try:
        found = plan(gpus(local), **asked)
    except UsageError as error:
        named = choices_named(error.fix, "--effective-batch")
        for total in named if error.message.startswith("--nnodes") else ():
            assert plan(gpus(local), **{**asked, "effective_batch": total}).effective_batch == total
        return
    assert [share.nodes for share in found.node_shares] == list(range(low, low + more + 1))
    for share in found.node_shares:
        one = found.on_nodes(share.nodes)
        assert one.devices == len(one.device_ids) == share.nodes * local
        assert one.devices * one.device_batch * one.accumulation == found.effective_batch
        assert (one.learning_rate, one.total_steps) == (found.learning_rate, found.total_steps)
        memory = local * one.workers * PREFETCH * one.device_batch * sample_bytes(STAGE_1)
        assert memory <= found.shared_memory_bytes


@given(
    devices=st.integers(1, 16),
    accumulation=st.none() | st.integers(1, 9),
    effective=st.none() | st.integers(1, 300),
)
@settings(max_examples=300, deadline=None)
def test_every_batch_that_auto_may_find_makes_an_exact_plan(
    devices: int, accumulation: int | None, effective: int | None
) -> None:
    asked = {"gradient_accumulation": accumulation, "effective_batch": effective}
    try:
        provisional = plan(gpus(devices), batch_size="auto", **asked)
    except UsageError as error:
        assert error.fix
        return
    assert provisional.device_batch in provisional.batch_candidates
    assert "auto" in provisional.origins["device_batch"]
    for number in provisional.batch_candidates:
        found = plan(gpus(devices), batch_size=number, **asked)
        assert found.devices * found.device_batch * found.accumulation == found.effective_batch
        assert not found.batch_candidates
        if accumulation is None:
            assert found.effective_batch == (effective or 64)


@pytest.mark.parametrize(
    ("facts", "options", "expected"),
    [
        (gpus(3), {}, ["3 device(s)", "64", "2 device(s)", "63 or 66"]),
        (gpus(8), {"batch_size": 16}, ["--batch-size 16", "--effective-batch 128"]),
        (gpus(2), {"batch_size": 8, "gradient_accumulation": 2, "effective_batch": 64}, ["= 32"]),
        (gpus(2), {"gpus": [2]}, ["device 2 is not visible", "0 to 1"]),
        (gpus(2), {"gpus": [1, 1]}, ["each device once"]),
        (gpus(2), {"gpus": [0], "num_devices": 2}, ["differ"]),
        (gpus(2), {"num_devices": 3}, ["only 2"]),
        (DeviceFacts(), {"gpus": [0]}, ["no GPU", "--device cpu"]),
        (DeviceFacts(), {"device": "cuda"}, ["--device cuda", "there is cpu"]),
        (gpus(1, bf16=False), {"precision": "bf16"}, ["no bf16", "fp16"]),
        (gpus(1, shared_memory_bytes=64 << 20), {"workers": 4}, ["--workers 4", "64 MiB", "--shm-size"]),
        (DeviceFacts(), {"batch_size": "auto"}, ["--batch-size auto", "memory", "give a number"]),
        (gpus(1), {"batch_size": "auto", "nodes": 2, "min_nodes": 1}, ["exclude each other"]),
        (gpus(8), {"nodes": 4, "min_nodes": 1}, ["--nnodes 1:4", "with 3 machine(s)", "--effective-batch 96"]),
        (gpus(1), {"nodes": 2, "min_nodes": 1, "batch_size": 2, "gradient_accumulation": 2}, ["leave out"]),
    ],
)
def test_what_cannot_be_done_is_an_error_with_a_fix(
    facts: DeviceFacts, options: dict[str, object], expected: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(facts, **options)
    for text in expected:
        assert text in str(caught.value)


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(UsageError, match="'train' holds no samples"):
        plan(gpus(1), samples=0)


def test_every_value_names_its_origin() -> None:
    found = plan(gpus(4), gpus=[3, 1], batch_size=4, epochs=7, precision="mixed", workers=3, lr_scaling="sqrt")
    assert (found.device_ids, found.device_batch, found.accumulation, found.epochs) == ((3, 1), 4, 8, 7)
    assert (found.precision, found.workers) == ("bf16", 3)
    assert found.origins["devices"] == "option --gpus"
    assert found.origins["device_batch"] == "option --batch-size"
    assert found.origins["accumulation"] == "derived: 64 / (2 devices x 4)"
    assert found.origins["epochs"] == "option --epochs"
    assert found.origins["warmup_steps"] == "recipe"


def test_another_effective_batch_without_a_rule_keeps_the_rate_and_warns() -> None:
    found = plan(gpus(8), samples=100_000, effective_batch=128)
    assert found.learning_rate == 2e-4
    assert "128 instead of the recipe's 64" in found.warnings[0]
    scaled = plan(gpus(8), samples=100_000, effective_batch=128, lr_scaling="sqrt")
    assert scaled.learning_rate == pytest.approx(2e-4 * math.sqrt(2))
    assert not scaled.warnings


def test_cpu_gets_two_processes_and_shares_its_cores() -> None:
    found = make_plan(TINY, samples=160, devices=DeviceFacts(cpu_cores=8))
    assert (found.devices, found.device_ids, found.threads, found.workers) == (2, (0, 0), 4, 3)
    alone = make_plan(TINY, samples=160, devices=DeviceFacts(cpu_cores=1))
    assert (alone.devices, alone.threads, alone.workers) == (1, 1, 1)
    asked = make_plan(TINY, samples=160, devices=DeviceFacts(cpu_cores=2), options=PlanOptions(num_devices=4))
    assert (asked.devices, asked.threads) == (4, 1)


def test_mixed_precision_is_bf16_where_there_is_bf16() -> None:
    assert plan(gpus(1), precision="mixed").precision == "bf16"
    assert plan(gpus(1, bf16=False), precision="mixed").precision == "fp16"
    without = plan(gpus(1), precision="unmixed")
    assert (without.precision, without.origins["precision"]) == ("fp32", "option --no-mixed-precision")


def test_workers_shrink_to_what_shared_memory_holds() -> None:
    found = plan(gpus(1, shared_memory_bytes=200 << 20))
    assert found.workers == 3
    assert "holds no more" in found.origins["workers"]


def test_measurements_give_demand_and_grace() -> None:
    measured = Measured(
        source="outputs/a", samples_per_second=5.0, slowest_samples_per_second=4.0, checkpoint_seconds=14.2
    )
    found = make_plan(STAGE_1, samples=1000, devices=gpus(8), measured=measured)
    assert (found.samples_per_second, found.images_per_second) == (40.0, 240.0)
    assert "outputs/a" in found.origins["samples_per_second"]
    assert found.grace_seconds == 38  # twice 64 samples / (8 x 4 per second) + 14.2 + 2, in whole seconds
    with pytest.raises(UsageError, match="--grace-seconds 5"):
        make_plan(STAGE_1, samples=1000, devices=gpus(8), options=PlanOptions(grace_seconds=5), measured=measured)
    unmeasured = plan(gpus(8))
    assert unmeasured.images_per_second is None
    assert unmeasured.origins["images_per_second"].startswith("unknown")


@given(
    devices=st.sampled_from([1, 2, 4, 8]),
    nodes=st.sampled_from([None, 1, 2]),
    rate=st.floats(0.01, 1000),
    slowdown=st.floats(1, 10),
    checkpoint=st.floats(0.001, 1000),
    asked=st.none() | st.integers(1, 4000),
)
@settings(max_examples=1000, deadline=None)
def test_the_grace_period_holds_a_step_and_a_checkpoint_and_the_demand_follows_the_rate(
    devices: int, nodes: int | None, rate: float, slowdown: float, checkpoint: float, asked: int | None
) -> None:
    measured = Measured(
        source="run a",
        samples_per_second=rate,
        slowest_samples_per_second=rate / slowdown,
        checkpoint_seconds=checkpoint,
    )
    options = PlanOptions(grace_seconds=asked, nodes=nodes)
    facts, all_devices = gpus(devices), devices * (nodes or 1)
    needed = 64 / (all_devices * rate / slowdown) + checkpoint + 2
    try:
        found = make_plan(STAGE_1, samples=1000, devices=facts, options=options, measured=measured)
    except UsageError as error:
        assert asked is not None
        assert asked < math.ceil(needed)
        again = PlanOptions(grace_seconds=choices_named(error.fix, "--grace-seconds")[0], nodes=nodes)
        assert make_plan(STAGE_1, samples=1000, devices=facts, options=again, measured=measured)
        return
    assert found.grace_seconds >= needed
    assert asked in (None, found.grace_seconds)
    assert found.images_per_second == pytest.approx(all_devices * rate * 6)
    assert "run a" in found.origins["samples_per_second"]
