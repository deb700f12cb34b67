"""Numbers that a network knows before it runs, put on its device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """`[n]`, in the format and on the device of `like`.

    `like.new_tensor(values)`, except that nobody waits: to copy a list to an accelerator is to wait for all that it has
    still to do.
    """
    return torch.stack([like.new_full((), value) for value in values])
