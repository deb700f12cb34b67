"""What the hardware and the runs are doing, and why a run is slow. Never imports torch.

`from monitoring import Sampler` samples this machine; names are imported when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from monitoring.sampler import Sampler
    from monitoring.samples import MachineSample

_PLACES: Final = {"Sampler": "monitoring.sampler", "MachineSample": "monitoring.samples"}

__all__ = ["MachineSample", "Sampler"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
