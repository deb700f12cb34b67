"""A network that its owner uses, but does not train, average or save; or only a part of it, and later."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import UsageError
from integration.sam2_weights import digest


class Frozen(nn.Module):
    """Holds a network outside the owner's parameters.

    So the optimiser, DDP and gradient clipping do not see it, a moving average shares it instead of copying it, and
    checkpoints hold the SHA-256 of its weights in place of the weights: one that was trained beside other weights is
    refused. It stays in eval mode whatever mode the owner is put in.

    Args:
        network: with the weights it starts from, whose digest is kept.
        later: names of its parameters that may begin to train while the owner trains. These are the owner's from the
            beginning (as `later`), averaged and saved, and without gradient until they are given one.
    """

    sha256: Tensor

    def __init__(self, network: nn.Module, later: Collection[str] = ()) -> None:
        super().__init__()
        self._held = (network.eval().requires_grad_(False),)  # a tuple: torch registers modules, not tuples of them
        self.register_buffer("sha256", torch.frombuffer(bytearray(digest(network)), dtype=torch.uint8))
        own = {name.replace(".", "-"): value for name, value in network.named_parameters() if name in later}
        self.later = nn.ParameterDict(own)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network's weights."""
        return next(self._held[0].parameters()).dtype

    def forward(self, *inputs: Any) -> Any:
        """What the network makes of `inputs`, without gradient until a part of it trains."""
        trains = any(parameter.requires_grad for parameter in self.later.values())
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            return self._held[0](*inputs)

    def _apply(self, fn: Any, recurse: bool = True) -> Frozen:
        """Moves to a device or precision reach the network too."""
        self._held[0]._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        """A twin that shares all weights but those that may train."""
        network = self._held[0]
        twin = Frozen.__new__(Frozen)
        nn.Module.__init__(twin)
        if self.later:
            own = {id(parameter) for parameter in self.later.values()}
            shared = [t for t in (*network.parameters(), *network.buffers()) if id(t) not in own]
            memo |= {id(tensor): tensor for tensor in shared}
            network = copy.deepcopy(network, memo)
        twin._held = (network,)
        twin.register_buffer("sha256", self.sha256.clone())
        twin.later = copy.deepcopy(self.later, memo)  # the memo leads to the parameters of the twin's own network
        memo[id(self)] = twin
        return twin

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        saved = state_dict.get(f"{prefix}sha256")
        if saved is not None and not torch.equal(saved.cpu(), self.sha256.cpu()):
            raise UsageError(
                f"{prefix.rstrip('.')}: the checkpoint was trained beside other frozen weights "
                f"(SHA-256 {_text(saved)} there, {_text(self.sha256)} here)",
                fix="give the same SAM 2 weights as in training (sam2.weights of the run's recipe)",
            )
        super()._load_from_state_dict(state_dict, prefix, *others)


def _text(digest_bytes: Tensor) -> str:
    return bytes(digest_bytes.cpu().tolist()).hex()[:12] + "..."
