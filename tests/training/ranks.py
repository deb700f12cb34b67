"""Processes of a run for tests: forked from one server that has imported torch once and never computed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from training.world import World


def run_ranks(function: Callable[..., None], count: int, folder: Path, *arguments: Any) -> None:
    """Run `function(world, folder, *arguments)`, importable by name, on `count` processes that know each other."""
    multiprocessing.set_forkserver_preload(["training.run"])
    mp.start_processes(_rank, (function, count, folder, arguments), nprocs=count, start_method="forkserver")  # type: ignore[no-untyped-call]


def _rank(rank: int, function: Callable[..., None], count: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    meet = folder / f"rendezvous-{function.__name__}"
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=count)
    function(World(rank=rank, size=count, device=torch.device("cpu")), folder, *arguments)
    dist.destroy_process_group()
