"""Two machines for tests: network namespaces joined by a cable (veth), each with a host name of its own. Needs root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """A network namespace; the file system is shared, as on a cluster."""

    name: str
    address: str

    @property
    def namespace(self) -> str:
        return f"bevnext-{self.name}"

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` there, under the machine's host name."""
        rename = 'hostname "$1" && shift && exec "$@"'
        return [
            "ip",
            "netns",
            "exec",
            self.namespace,
            "unshare",
            "--uts",
            "sh",
            "-c",
            rename,
            "sh",
            self.name,
            *arguments,
        ]

    def processes(self) -> list[int]:
        """What runs there."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]

    def power_off(self) -> None:
        """Kill everything that runs there, at once."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


def can_make_machines() -> bool:
    """This user may make network namespaces."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and _try("unshare", "--net", "--uts", "true")


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines that reach each other and nothing else."""
    first, second = Machine("node-a", "10.213.0.1"), Machine("node-b", "10.213.0.2")
    hosts = "127.0.0.1 localhost\n" + "".join(f"{one.address} {one.name}\n" for one in (first, second))
    try:
        for machine in (first, second):
            _ip("netns", "add", machine.namespace)
            folder = Path("/etc/netns") / machine.namespace  # `ip netns exec` shows it as /etc/hosts
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text(hosts)
        _ip("link", "add", "cable-a", "netns", first.namespace, "type", "veth", "peer", "name", "cable-b")
        _ip("link", "set", "cable-b", "netns", second.namespace)
        for machine, cable in ((first, "cable-a"), (second, "cable-b")):
            _ip("-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", cable)
            for device in ("lo", cable):
                _ip("-n", machine.namespace, "link", "set", device, "up")
        yield first, second
    finally:
        for machine in (first, second):
            if _try("ip", "netns", "pids", machine.namespace):
                machine.power_off()
                _ip("netns", "delete", machine.namespace)
            shutil.rmtree(Path("/etc/netns") / machine.namespace, ignore_errors=True)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _try(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
