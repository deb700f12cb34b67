"""Processes of one start meet each other on a store that remembers those of the start before."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.multiprocessing as mp
from torch.distributed import DistStoreError, TCPStore
from torch.distributed.distributed_c10d import Store

from training.meeting import name_of_start
from training.world import join_world

PATIENCE = timedelta(seconds=30)


@pytest.fixture
def agent() -> Iterator[Store]:
    """The store that torchrun keeps over its restarts."""
    yield TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)


def client(agent: Store, timeout: timedelta = PATIENCE) -> Store:
    assert isinstance(agent, TCPStore)
    return TCPStore("127.0.0.1", agent.port, is_master=False, wait_for_workers=False, timeout=timeout)


def names(agent: Store, delays: Sequence[float]) -> list[str]:
    """The name that each rank gets; it comes so many seconds late."""

    def come(rank: int) -> str:
        time.sleep(delays[rank])
        return name_of_start(client(agent), rank, len(delays), PATIENCE)

    with ThreadPoolExecutor(len(delays)) as pool:
        return list(pool.map(come, range(len(delays))))


def test_every_start_has_a_name_of_its_own_whoever_comes_last(agent: Store) -> None:
    starts = [
        names(agent, delays) for delays in ([0, 0, 0], [0, 0.2, 0.4], [0, 0.3, 0], [0.3, 0, 0], [0, 0], [0, 0.2, 0])
    ]
    assert [len(set(start)) for start in starts] == [1] * len(starts)
    assert len({start[0] for start in starts}) == len(starts)


@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_in_vain_says_so(agent: Store, rank: int) -> None:
    names(agent, [0, 0])  # words of the dead are no answer
    with pytest.raises(DistStoreError):
        name_of_start(client(agent, timedelta(seconds=1)), rank, 2, timedelta(seconds=1))


def join(rank: int, port: int, delay: float) -> None:
    """A process as torchrun starts it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "none"}
    time.sleep(delay * rank)
    with join_world("cpu", [0, 0]) as world:
        assert world.all_texts(str(rank)) == ["0", "1"]


def test_a_late_process_is_not_taken_for_the_one_before(agent: Store) -> None:
    assert isinstance(agent, TCPStore)
    multiprocessing.set_forkserver_preload(["training.run"])
    for delay in (0.0, 1.0):
        mp.start_processes(join, (agent.port, delay), nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]
