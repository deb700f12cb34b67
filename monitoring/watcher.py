"""Where views come from: this machine and run directories, or an exporter somewhere else."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final, Protocol

from configs import run_directory
from configs.errors import UsageError
from monitoring.run_reader import RunReader
from monitoring.sampler import Backend, Sampler
from monitoring.view import RunView, View

RECENT: Final = 900.0
"""Seconds after which a run in the output folder that nobody named is history."""
REMOTE_SECONDS: Final = 5.0
VIEW_PATH: Final = "/view"
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A company's proxy knows nothing of exporters, of one behind a tunnel least of all."""


class Watcher(Protocol):
    """Gives views."""

    def look(self) -> View:
        """The newest view; never raises."""

    def close(self) -> None:
        """No more looks."""


class LocalWatcher:
    """Looks at this machine and at run directories.

    Args:
        runs: directories to follow; empty follows those in `output_dir` that are being written.
    """

    def __init__(self, runs: Sequence[Path], output_dir: Path, backend: Backend = "auto") -> None:
        self.named = [RunReader(path) for path in {path.resolve(): path for path in runs}.values()]
        self.output_dir = output_dir
        self._found: dict[Path, RunReader] = {}
        disk = runs[0] if runs else output_dir
        self._sampler = Sampler(backend, disk=disk if disk.is_dir() else Path())

    def look(self) -> View:
        begun = time.thread_time()
        machine = self._sampler.sample()
        spent = time.thread_time() - begun
        runs = _told_apart([one.read() for one in self.named or self._readers()])
        return View(time=time.time(), machine=machine, runs=runs, sample_seconds=spent)

    def close(self) -> None:
        self._sampler.close()

    def _readers(self) -> list[RunReader]:
        """Readers of the runs in the output folder that grow, or of the newest one."""
        ages = sorted((_age(path), path.parent) for path in self.output_dir.glob(f"*/{run_directory.METRICS}"))
        recent = [path for age, path in ages if age < RECENT] or [path for _, path in ages[:1]]
        self._found = {path: self._found.get(path) or RunReader(path) for path in recent}
        return [self._found[path] for path in sorted(recent)]


class RemoteWatcher:
    """Asks an exporter (`monitor --serve`) for its view.

    Args:
        address: such as `http://server:9400`.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/").removesuffix("/metrics")

    def look(self) -> View:
        try:
            with _DIRECT.open(self.address + VIEW_PATH, timeout=REMOTE_SECONDS) as answer:
                found = View.model_validate_json(answer.read())
        except (OSError, HTTPException, ValueError) as error:
            return View(time=time.time(), source=self.address, problem=f"no view: {_why(error)}")
        return found.model_copy(update={"source": self.address})

    def close(self) -> None:
        """Nothing is kept open."""


def open_watcher(places: Sequence[str], output_dir: Path, backend: Backend) -> Watcher:
    """A watcher of run directories, or of one exporter.

    Raises:
        UsageError: a directory is not there, or an address is mixed with others.
    """
    addresses = [place for place in places if place.startswith(("http://", "https://"))]
    if addresses:
        if len(places) > 1:
            raise UsageError(
                f"monitor: one exporter address at a time, not {' '.join(places)}", fix="start one monitor for each"
            )
        return RemoteWatcher(addresses[0])
    for place in places:
        if not Path(place).is_dir():
            raise UsageError(
                f"monitor: {place} is no directory",
                fix="name a run directory such as outputs/<run>, or http://HOST:PORT",
            )
    return LocalWatcher([Path(place) for place in places], output_dir, backend)


def _why(error: Exception) -> str:
    """Why an address gives no view."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}: no `monitor --serve` there"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, OSError):
        return str(error) or type(error).__name__
    if isinstance(error, HTTPException):
        return f"no exporter there ({error or type(error).__name__})"
    return "what answers is another program, or another version of this one"


def _told_apart(runs: Sequence[RunView]) -> tuple[RunView, ...]:
    """Those of one name by their directories: two runs must not be one series."""
    names = Counter(run.name for run in runs)
    return tuple(run if names[run.name] == 1 else run.model_copy(update={"name": run.directory}) for run in runs)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # it has just been replaced
        return 0.0
