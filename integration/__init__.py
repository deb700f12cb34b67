"""SAM 2 joined with the detectors: `from integration import BEVSAMFusion, SAMEnhancedBEVDetector`.

Names are imported when they are first asked for, so that the help of the commands loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from integration.bev_sam_fusion import BEVSAMFusion
    from integration.sam_enhanced import SAMEnhancedBEVDetector

__all__ = ["BEVSAMFusion", "SAMEnhancedBEVDetector"]

_MODULES = {
    "BEVSAMFusion": "integration.bev_sam_fusion",
    "SAMEnhancedBEVDetector": "integration.sam_enhanced",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
