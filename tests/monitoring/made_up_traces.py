"""Traces with known causes, as lines of a metrics.jsonl: what cannot be caused without GPUs is made up here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

PHASES = ("data_wait", "host_to_device", "forward", "backward", "all_reduce", "optimizer", "checkpoint", "evaluation",
          "other")  # fmt: skip
H200 = {
    "utilisation": 97.0, "sm_activity": 85.0, "tensor_activity": 35.0, "memory_used": 110e9, "memory_total": 150e9,
    "power": 640.0, "power_limit": 700.0, "temperature": 66.0, "sm_clock": 1900.0, "sm_clock_max": 1980.0,
    "held_by_power": 0.0, "held_by_heat": 0.0,
}  # fmt: skip
HOST = {"cpu": 40.0, "iowait": 0.5, "memory_used": 60e9, "memory_total": 250e9, "swap_used": 0.0}
STEP = {"data_wait": 0.004, "host_to_device": 0.002, "forward": 0.2, "backward": 0.4, "optimizer": 0.03, "other": 0.004}
GPU_PLAN = {"device_kind": "cuda", "workers": 8, "device_batch": 8, "nodes": 1, "precision": "bf16"}

Lines = list[dict[str, Any]]


def run(
    ranks: int = 1,
    *,
    step: Mapping[str, float] | None = None,
    of_rank: Mapping[int, Mapping[str, float]] | None = None,
    device: Mapping[str, float] | None = None,
    of_device: Mapping[int, Mapping[str, float]] | None = None,
    host: Mapping[str, float] | None = None,
    loader: tuple[float | None, float | None] = (0.4, 0.0),
    starved: float | None = 0.01,
    retries: float = 0.0,
    windows: int = 12,
    exchange: float = 0.01,
    jitter: float = 0.03,
    sampler: bool = True,
) -> Lines:
    """Lines of a synchronous run: who is done earlier waits in `all_reduce` for the slowest.

    Args:
        step, of_rank: seconds of a step by phase, for all and for single ranks.
        device, of_device, host: hardware figures that differ from a healthy H200 and its machine.
        loader: shares of time in which a worker computes and waits for a processor.
        starved: share of time in which a process of the training waits for a processor.
        retries: allocator retries per step.
        exchange: seconds that exchanging gradients takes by itself.
    """
    chance = random.Random(ranks * 1000 + windows)
    lines: Lines = []
    for window in range(1, windows + 2):
        told = []
        for rank in range(ranks):
            seconds = {**dict.fromkeys(PHASES, 0.0), **STEP, **(step or {}), **(of_rank or {}).get(rank, {})}
            told.append({phase: value * chance.uniform(1 - jitter, 1 + jitter) for phase, value in seconds.items()})
        own = [sum(seconds.values()) for seconds in told]
        for seconds, work in zip(told, own, strict=True):
            seconds["all_reduce"] += (max(own) - work + exchange) if ranks > 1 else 0.0
        lines.append({
            "event": "train", "step": 10 * window, "time": 1e9 + 7 * window, "loss": 2.0,
            "ranks": [
                {"rank": rank, "host": "node0", "pid": 100 + rank, "device": f"GPU-{rank}", "seconds": seconds,
                 "starved": starved, "loader_cpu": loader[0], "loader_starved": loader[1],
                 "allocator_retries": int(retries * 10 * window)}
                for rank, seconds in enumerate(told)
            ],
        })  # fmt: skip
        if sampler:
            devices = [
                {"uuid": f"GPU-{rank}", "index": rank, "name": "H200", "kind": "gpu",
                 "values": {**H200, **(device or {}), **(of_device or {}).get(rank, {})}}
                for rank in range(ranks)
            ]  # fmt: skip
            lines.append(
                {"event": "devices", "step": 10 * window, "devices": devices, "host": {**HOST, **(host or {})}}
            )
    return lines


SLOW_LOADER = {"data_wait": 0.3}
NO_SMI = {"sm_activity": None}
KNOWN: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # name: (cause, arguments of run, what differs in the plan)
    "workers busy, cores idle": ("data: workers", {"step": SLOW_LOADER, "loader": (0.97, 0.0)}, {"workers": 2}),
    "workers busy, cores idle, 8 ranks": (
        "data: workers", {"ranks": 8, "step": SLOW_LOADER, "loader": (0.9, 0.02)}, {"workers": 1}),
    "no workers": ("data: workers", {"step": SLOW_LOADER, "loader": (0.98, None)}, {"workers": 0}),
    "workers without cores": (
        "data: processors", {"step": SLOW_LOADER, "loader": (0.45, 0.5), "host": {"cpu": 99.0}}, {"workers": 32}),
    "decoding on all cores": (
        "data: processors", {"ranks": 4, "step": SLOW_LOADER, "loader": (0.95, 0.03), "host": {"cpu": 98.0}}, {}),
    "batches lie there, and nobody takes them": (
        "data: processors", {"ranks": 2, "step": {"data_wait": 0.12}, "loader": (0.03, 0.09), "starved": 0.4,
                             "host": {"cpu": 100.0}}, {}),
    "another job on the processors": (
        "processors", {"ranks": 2, "starved": 0.6, "host": {"cpu": 100.0}},
        {"device_kind": "cpu", "workers": 1, "precision": "fp32"}),
    "eight readers on two cores, and training waits behind them": (
        "data: processors", {"step": {"data_wait": 0.35}, "loader": (0.21, 0.7), "starved": 0.5,
                             "host": {"cpu": 100.0, "cores": 2.0}},
        {"device_kind": "cpu", "workers": 8, "precision": "fp32"}),
    "readers keep up and leave no core to the training": (
        "data: processors", {"ranks": 2, "loader": (0.4, 0.2), "starved": 0.4, "host": {"cpu": 100.0, "cores": 4.0}},
        {"device_kind": "cpu", "workers": 4, "precision": "fp32"}),
    "readers and other work": (
        "processors", {"ranks": 2, "loader": (0.1, 0.5), "starved": 0.4, "host": {"cpu": 100.0, "cores": 8.0}},
        {"device_kind": "cpu", "workers": 4, "precision": "fp32"}),
    "slow disk": ("data: disk", {"step": SLOW_LOADER, "loader": (0.1, 0.01), "host": {"iowait": 30.0}}, {}),
    "network storage, no iowait": ("data: disk", {"ranks": 2, "step": SLOW_LOADER, "loader": (0.15, 0.0)}, {}),
    "slow disk, no figures of workers": (
        "data: disk", {"step": SLOW_LOADER, "loader": (None, None), "host": {"iowait": 40.0}}, {}),
    "waits for data, nothing else known": (
        "data", {"step": SLOW_LOADER, "loader": (None, None), "sampler": False}, {}),
    "slow network": ("communication", {"ranks": 8, "exchange": 0.5}, {"nodes": 4}),
    "slow PCIe": ("communication", {"ranks": 2, "exchange": 0.25}, {}),
    "one slow GPU of eight": (
        "slow rank", {"ranks": 8, "of_rank": {5: {"forward": 0.3, "backward": 0.6}}}, {}),
    "one slow GPU of two": ("slow rank", {"ranks": 2, "of_rank": {1: {"backward": 0.6}}}, {}),
    "one rank's disk": ("slow rank", {"ranks": 4, "of_rank": {2: {"data_wait": 0.3}}}, {}),
    "power cap, all": (
        "power", {"ranks": 4, "device": {"sm_clock": 1300.0, "held_by_power": 98.0}}, {}),
    "power brake of one GPU": (
        "power", {"ranks": 4, "of_rank": {1: {"forward": 0.32, "backward": 0.65}},
                  "of_device": {1: {"sm_clock": 1150.0, "held_by_power": 100.0}}}, {}),
    "heat": ("heat", {"device": {"sm_clock": 1500.0, "held_by_heat": 60.0, "temperature": 88.0}}, {}),
    "heat of one GPU": (
        "heat", {"ranks": 8, "of_rank": {7: {"forward": 0.26, "backward": 0.52}},
                 "of_device": {7: {"sm_clock": 1450.0, "held_by_heat": 80.0, "held_by_power": 30.0}}}, {}),
    "allocator retries": ("memory", {"retries": 0.3}, {}),
    "main memory full": ("memory", {"host": {"memory_used": 246e9, "swap_used": 8e9}}, {}),
    "container at its limit": (
        "memory", {"host": {"container_memory_limit": 64e9, "container_memory_used": 63e9}}, {}),
    "one sample per device": (
        "small batch", {"device": {"sm_activity": 22.0, "utilisation": 99.0, "memory_used": 12e9}},
        {"device_batch": 1}),
    "small batch, old GPU": (
        "small batch", {"device": {"sm_activity": None, "utilisation": 45.0, "memory_used": 6e9}},
        {"device_batch": 1}),
    "checkpoints too often": ("checkpoints", {"step": {"checkpoint": 0.2}}, {}),
    "slow disk for checkpoints, 8 ranks": ("checkpoints", {"ranks": 8, "step": {"checkpoint": 0.4}}, {}),
    "waits for data and for checkpoints": (
        "data: disk", {"step": {"data_wait": 0.5, "checkpoint": 0.1}, "loader": (0.1, 0.0)}, {}),
}  # fmt: skip

HEALTHY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one H200": ({}, {}),
    "eight H200": ({"ranks": 8}, {}),
    "eight H200 at their power limit": (
        {"ranks": 8, "device": {"power": 698.0, "held_by_power": 100.0, "sm_clock": 1755.0}}, {}),
    "sixteen ranks on two machines": ({"ranks": 16, "exchange": 0.06}, {"nodes": 2}),
    "uneven steps": ({"ranks": 4, "jitter": 0.12}, {}),
    "busy loader that keeps up": ({"ranks": 2, "loader": (0.95, 0.01), "host": {"cpu": 93.0}}, {}),
    "a checkpoint now and then": ({"ranks": 2, "step": {"checkpoint": 0.03}}, {}),
    "old GPU without GPM": ({"device": {"sm_activity": None, "utilisation": 96.0}}, {}),
    "small model that fills the multiprocessors": ({"device": {"memory_used": 20e9, "sm_activity": 75.0}}, {}),
    "one processor": (
        {"sampler": False, "loader": (0.3, 0.1)}, {"device_kind": "cpu", "workers": 1, "precision": "fp32"}),
    "a job beside it while the GPUs have work": ({"ranks": 2, "starved": 0.5, "host": {"cpu": 100.0}}, {}),
    "processors all busy with computing": (
        {"ranks": 2, "starved": 0.12, "host": {"cpu": 100.0}, "loader": (0.2, 0.2), "exchange": 0.04},
        {"device_kind": "cpu", "workers": 1, "precision": "fp32"}),
    "no figures of the hardware": ({"ranks": 4, "sampler": False}, {}),
    "idle GPU of another job": ({"of_device": {3: {"sm_activity": 1.0}}}, {}),
    "one hiccup": ({"ranks": 2, "retries": 0.001, "windows": 30}, {}),
}  # fmt: skip
