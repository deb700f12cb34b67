"""What the user has set: environment variables that slow a run down, `.env`, and ports that others use."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from launcher.doctor.finding import Finding, fail, ok, warn

SLOW: Final = {
    "CUDA_LAUNCH_BLOCKING": "the processor waits for every kernel",
    "NCCL_P2P_DISABLE": "GPUs of one machine talk through main memory",
    "NCCL_SHM_DISABLE": "GPUs of one machine talk through the network",
    "NCCL_IB_DISABLE": "machines talk over Ethernet though they may have InfiniBand",
    "TORCH_DISTRIBUTED_DEBUG": "every collective is checked",
}
HARMLESS: Final = ("", "0", "OFF")
PORTS: Final = {"BEVNEXT_SAM2_JUPYTER_PORT": 8888, "BEVNEXT_SAM2_TENSORBOARD_PORT": 6006}
"""Variable of .env -> default port on 127.0.0.1."""
DEVICE: Final = "BEVNEXT_SAM2_DEVICE"
WRITE_ENV: Final = "scripts/setup_gpu.sh --write-env"


def check_environment(environment: Mapping[str, str]) -> Finding:
    """No variable of an old search for errors is left."""
    found = {name: text for name, text in SLOW.items() if environment.get(name, "").upper() not in HARMLESS}
    if not found:
        return ok("environment", "nothing that slows a run down")
    detail = "; ".join(f"{name}={environment[name]}: {text}" for name, text in found.items())
    return warn("environment", detail, f"unset {' '.join(found)}")


def check_proxy(environment: Mapping[str, str]) -> Finding:
    """A company's proxy is not asked for this machine's own pages."""
    proxy = next((environment[name] for name in ("http_proxy", "HTTP_PROXY") if environment.get(name)), None)
    exceptions = ",".join(environment.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    if proxy is None or any(name in exceptions for name in ("127.0.0.1", "localhost", "*")):
        return ok("proxy", "local pages are asked for directly")
    return warn(
        "proxy",
        f"{proxy} is asked for pages of this machine, too",
        "export no_proxy=localhost,127.0.0.1",
    )


def check_ports(settings: Mapping[str, str]) -> Iterator[Finding]:
    """The ports of JupyterLab and TensorBoard are free, or already theirs."""
    for name, default in PORTS.items():
        text = settings.get(name) or str(default)
        if not text.isdigit() or not 0 < int(text) < 65536:
            yield fail("ports", f"{name}={text} is no port", f"correct {name} in .env")
        elif is_taken(int(text)):
            yield warn("ports", f"127.0.0.1:{text} is in use", f"{name}=OTHER in .env, unless it is our own service")
        else:
            yield ok("ports", f"{text} is free")


def is_taken(port: int) -> bool:
    """Someone listens there."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def check_device(settings: Mapping[str, str], containers_get_gpus: bool) -> Finding:
    """What `.env` says about GPUs is what Docker can do: Compose refuses to start a service without its GPUs."""
    device = settings.get(DEVICE) or "gpu"
    if device not in ("cpu", "gpu"):
        return fail("compose device", f"{DEVICE}={device}", WRITE_ENV)
    if device == "gpu" and not containers_get_gpus:
        return warn("compose device", "Compose asks for GPUs that containers do not get", WRITE_ENV)
    if device == "cpu" and containers_get_gpus:
        return warn("compose device", f"{DEVICE}=cpu leaves the GPUs unused in containers", WRITE_ENV)
    return ok("compose device", device)


def check_owner(folder: Path, settings: Mapping[str, str], user: int) -> Finding:
    """Containers run as the user whose folders they write to."""
    wanted = settings.get("BEVNEXT_SAM2_UID") or "1000"
    if not folder.exists():
        return ok("container user", f"{wanted}; {folder} is not made yet")
    owner = folder.stat().st_uid
    if owner == 0:
        fix = f"sudo chown -R {user or wanted}: {folder}"
        return warn("container user", f"{folder} belongs to root, and containers do not run as root", fix)
    if str(owner) != wanted:
        return warn("container user", f"{folder} belongs to {owner}, services run as {wanted}", WRITE_ENV)
    return ok("container user", wanted)


def read_settings(file: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Our settings as Compose sees them: those of `.env`, and those of the shell before them."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    pairs = (line.partition("=") for line in lines if line.startswith("BEVNEXT_SAM2_"))
    written = {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
    return {**written, **{name: value for name, value in environment.items() if name.startswith("BEVNEXT_SAM2_")}}
