"""A network that its owner uses, but does not train, average or save."""

from __future__ import annotations

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
    """

    sha256: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._held = (network.eval().requires_grad_(False),)  # a tuple: torch registers modules, not tuples of them
        self.register_buffer("sha256", torch.frombuffer(bytearray(digest(network)), dtype=torch.uint8))

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """What the network makes of `inputs`, without gradient."""
        return self._held[0](*inputs)

    def _apply(self, fn: Any, recurse: bool = True) -> Frozen:
        """Moves to a device or precision reach the network too."""
        self._held[0]._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        twin = Frozen.__new__(Frozen)
        nn.Module.__init__(twin)
        twin._held = self._held
        twin.register_buffer("sha256", self.sha256.clone())
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
