"""How the processes of one start find each other, and not those of an earlier one.

torchrun's store outlives its restarts, and the addresses that processes leave there look like those of their
successors (pytorch/pytorch#135712): whoever reads before the others have written connects to one that is gone.
`TORCHELASTIC_RESTART_COUNT` tells starts apart on one machine only, so the processes agree on a name of their own.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Final

from torch.distributed import DistStoreError
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

POLL_SECONDS: Final = 0.01


def meet(timeout: timedelta) -> Store:
    """The store of the processes that were started together; nothing of an earlier start is in it.

    Raises:
        DistStoreError: another process did not come in time.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    return PrefixStore(name_of_start(store, rank, size, timeout), store)


def name_of_start(store: Store, rank: int, size: int, timeout: timedelta) -> str:
    """A new name that rank 0 has given to exactly these processes.

    A process says that it is there under its rank, with a word that is new; rank 0 answers every word it finds, also
    those that were left behind, and goes on when each rank has said the name back.

    Raises:
        DistStoreError: another process did not come in time.
    """
    if rank:
        word = uuid.uuid4().hex
        store.set(f"meeting/{rank}", word)
        name = store.get(f"meeting/{word}").decode()
        store.set(f"{name}/{rank}", "here")
        return name
    name, deadline = f"start/{uuid.uuid4().hex}", time.monotonic() + timeout.total_seconds()
    for other in range(1, size):
        while not store.check([f"{name}/{other}"]):
            if time.monotonic() > deadline:
                raise DistStoreError(f"rank {other} has not come within {timeout}")
            store.set(f"meeting/{store.get(f'meeting/{other}').decode()}", name)
            time.sleep(POLL_SECONDS)
    return name
