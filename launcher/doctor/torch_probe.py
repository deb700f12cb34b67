"""What torch says about itself, asked in a process of its own: importing it takes seconds and may crash."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from launcher.own_process import ROOT, own_environment

TIMEOUT_SECONDS: Final = 120.0

PROBE: Final = """
import json, torch
facts = {
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "devices": torch.cuda.device_count(),
    "architectures": torch.cuda.get_arch_list() if torch.cuda.is_available() else [],
    "gloo": torch.distributed.is_gloo_available(),
}
try:
    for i in range(facts["devices"]):
        torch.zeros(1, device=f"cuda:{i}").add_(1).item()
except RuntimeError as error:
    facts["cuda_error"] = f"({str(error).splitlines()[0]})"
    facts["devices"] = i
if torch.distributed.is_nccl_available() and torch.cuda.is_available():
    facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
try:
    import torchvision
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    facts["torchvision"] = torchvision.__version__
except (ImportError, RuntimeError, OSError) as error:
    facts["torchvision_error"] = str(error).splitlines()[0]
print(json.dumps(facts))
"""


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """The installed torch."""

    version: str = ""
    cuda: str | None = None
    """Version of CUDA that it is built for."""
    devices: int = 0
    """GPUs that it computed on."""
    cuda_error: str = ""
    architectures: tuple[str, ...] = ()
    """`sm_80`, ..."""
    gloo: bool = False
    nccl: str = ""
    torchvision: str = ""
    torchvision_error: str = ""
    error: str = ""
    """Why torch could not be asked."""


def probe_torch(program: str = PROBE, timeout: float = TIMEOUT_SECONDS) -> TorchFacts:
    """Import torch in another process and ask it."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=own_environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return TorchFacts(error=f"importing torch takes more than {timeout:g} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return TorchFacts(error=f"torch cannot be imported: {last}")
    facts = json.loads(done.stdout.splitlines()[-1])
    return TorchFacts(**{**facts, "architectures": tuple(facts["architectures"])})
