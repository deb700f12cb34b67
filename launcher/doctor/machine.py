"""Python, locale, processor, memory, limits and disks."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from configs.plan import size_text
from launcher.doctor.finding import Finding, fail, ok, warn

PYTHONS: Final = ((3, 10), (3, 11), (3, 12))
GIB: Final = 2**30
LITTLE_MEMORY: Final = 4 * GIB
LITTLE_SHARED_MEMORY: Final = 256 * 2**20
"""Docker's default is 64 MiB, less than two loader workers need."""
FEW_OPEN_FILES: Final = 4096
LITTLE_DISK: Final = 10 * GIB
NO_DISK: Final = GIB


def check_python(version: tuple[int, ...]) -> Finding:
    """The interpreter is one that the lock files are made for."""
    text = ".".join(map(str, version[:3]))
    if version[:2] in PYTHONS:
        return ok("python", text)
    return fail("python", f"{text} is not 3.10, 3.11 or 3.12", "scripts/set_up.sh --python python3.11")


def check_locale(encoding: str) -> Finding:
    """File names and texts outside ASCII survive."""
    if encoding.lower().replace("-", "") == "utf8":
        return ok("locale", encoding)
    return warn("locale", f"texts are {encoding}, not UTF-8", "export LC_ALL=C.UTF-8")


def check_processor(cores: int, quota: float | None, name: str) -> Finding:
    """How many cores there are, and how many of them a container allows."""
    if quota is not None and quota < cores:
        return warn(
            "processor",
            f"{name}: {cores} cores, the container allows the time of {quota:g}",
            "start the container with more --cpus; plans count the smaller number",
        )
    return ok("processor", f"{name}: {cores} cores")


def check_memory(usable: int) -> Finding:
    """Main memory, or the container's limit."""
    if usable < LITTLE_MEMORY:
        return warn("memory", f"{size_text(usable)} in all", "use --workers 0 and a small --batch-size")
    return ok("memory", size_text(usable))


def check_shared_memory(free: int | None) -> Finding:
    """/dev/shm, through which loader workers hand over their batches."""
    fix = "docker run --shm-size 8g (Compose: shm_size), or train with --workers 0"
    if free is None:
        return fail("shared memory", "there is no /dev/shm", fix)
    if free < LITTLE_SHARED_MEMORY:
        return warn("shared memory", f"{size_text(free)} free in /dev/shm; loader workers would die of bus errors", fix)
    return ok("shared memory", f"{size_text(free)} free")


def check_open_files(limit: int) -> Finding:
    """Loader workers keep a file open for every batch on its way."""
    if 0 <= limit < FEW_OPEN_FILES:
        return warn("open files", f"at most {limit}", f"ulimit -n {FEW_OPEN_FILES * 16}")
    return ok("open files", "unlimited" if limit < 0 else f"at most {limit}")


def check_folder(name: str, folder: Path, *, needs_writing: bool) -> Finding:
    """A folder, or the one where it would be made: writable, with room."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    where = str(folder) if existing == folder else f"{folder} (to be made in {existing})"
    if not existing.is_dir():
        return fail(name, f"{existing} is a file, not a folder", "remove it, or name another folder")
    if needs_writing and not os.access(existing, os.W_OK | os.X_OK):
        return fail(name, f"{where} is not writable for user {os.getuid()}", "sudo chown it, or name another folder")
    free = shutil.disk_usage(existing).free
    if free < NO_DISK:
        return fail(name, f"{where}: {size_text(free)} free", "make room: a run writes checkpoints and pictures")
    if free < LITTLE_DISK:
        return warn(name, f"{where}: {size_text(free)} free", "make room before a long run")
    return ok(name, f"{where}: {size_text(free)} free")


def check_host_name(name: str, addresses: Sequence[str]) -> Finding:
    """gloo listens on the address of the host's name."""
    if addresses:
        return ok("host name", f"{name} is {', '.join(addresses)}")
    return fail(
        "host name", f"{name} has no address; gloo cannot start", "export GLOO_SOCKET_IFNAME=lo, or fix /etc/hosts"
    )


def addresses_of(name: str) -> list[str]:
    """Addresses that a host name stands for; none where it is unknown."""
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
    except OSError:
        return []
