"""The processes of a run: who this one is, which device it drives, and the few things they say to each other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

from configs.errors import UsageError

from .meeting import meet

TIMEOUT: Final = timedelta(minutes=30)
"""How long a process waits for the others: rank 0 scores a whole validation split in between."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among the processes of the run. Alone, every exchange is the identity."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """This process writes the files and speaks for the run."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def copy_from_main(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite `tensors` by those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wait_for_main(self) -> None:
        """No process goes on before rank 0 has come here."""
        self.text_from_main("")

    def text_from_main(self, text: str) -> str:
        """Rank 0's text, on all processes."""
        return self.all_texts(text)[0]

    def all_tokens(self, batches: Iterable[Sequence[str]]) -> tuple[str, ...]:
        """The tokens in `batches` of every rank, in rank order."""
        own = "\n".join(token for tokens in batches for token in tokens)
        return tuple(token for text in self.all_texts(own) for token in text.split("\n") if token)

    def tensors_on_main(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of all ranks, each under a name of its own, in rank 0's main memory; nothing elsewhere.

        They travel one after the other, so that the device of rank 0 holds one at a time.
        """
        described = [
            (name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for name, tensor in own.items()
        ]
        found = {name: tensor.cpu() for name, tensor in own.items()} if self.is_main else {}
        for rank, text in enumerate(self.all_texts(json.dumps(described))):
            for name, kind, shape in json.loads(text) if rank else ():
                if self.rank == rank:
                    dist.send(own[name].to(self.device).contiguous(), dst=0)
                elif self.is_main:
                    received = torch.empty(shape, dtype=getattr(torch, kind), device=self.device)
                    dist.recv(received, src=rank)
                    found[name] = received.cpu()
        return found

    def all_texts(self, text: str) -> list[str]:
        """Every rank's text, in rank order; sent as bytes, nothing is unpickled."""
        if self.size == 1:
            return [text]
        content = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        sizes = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        sizes[self.rank] = len(content)
        self.sum(sizes)
        padded = torch.zeros(max(1, int(sizes.max())), dtype=torch.uint8, device=self.device)
        padded[: len(content)] = content
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        return [bytes(one[:size].tolist()).decode() for one, size in zip(gathered, sizes.tolist(), strict=True)]


def rank_of_environment() -> tuple[int, int, int]:
    """Rank, local rank and world size as torchrun gives them; one process alone without torchrun."""
    rank, local_rank, size = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    return int(rank or 0), int(local_rank or 0), int(size or 1)


@contextmanager
def join_world(kind: str, device_ids: Sequence[int]) -> Iterator[World]:
    """Meet the other processes that torchrun started, one per entry of `device_ids`.

    The process group is left in good order only; after an error torchrun ends the other processes.

    Raises:
        UsageError: another number of processes was started, or the device is not there.
    """
    rank, local_rank, size = rank_of_environment()
    if size != len(device_ids):
        raise UsageError(
            f"the plan is for {len(device_ids)} process(es), {size} started",
            fix=f"start with torchrun --standalone --nproc-per-node {len(device_ids)}, or plan for {size}",
        )
    device = _device(kind, device_ids[local_rank])
    if size > 1:
        dist.init_process_group(
            dist.get_default_backend_for_device(device),
            store=meet(TIMEOUT),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
            device_id=None if device.type == "cpu" else device,
        )
    yield World(rank=rank, size=size, device=device)
    if size > 1:
        dist.destroy_process_group()


def _device(kind: str, index: int) -> torch.device:
    if kind == "cpu":
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type != kind or index >= torch.accelerator.device_count():
        raise UsageError(
            f"the plan needs {kind} device {index}, this process sees {found or 'no accelerator'}",
            fix="`bevnext-sam2 doctor` says why; --device cpu trains without one",
        )
    torch.accelerator.set_device_index(index)
    return torch.device(kind, index)
