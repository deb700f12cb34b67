"""Checkpoints on disk: published whole or not at all, verified before they are read.

A checkpoint is written to a hidden directory beside its place, synced, and renamed; the links `latest` and `best` are
replaced atomically; the directories that neither link needs are removed last. So whatever kills the process, the
newest finished checkpoint stays readable.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from configs.errors import BevnextError, DataError
from evaluation.checkpoint_files import BEST, LATEST, MANIFEST, FileEntry, Manifest, read_manifest, step_directory_name

_UNFINISHED: Final = ".unfinished-"
SCORE: Final = "NDS"
"""What the best checkpoint is the best in."""


class RunManifest(Manifest):
    """The manifest of a checkpoint that training can be taken up from."""

    model: dict[str, Any]
    """The recipe's model section."""
    sam2: dict[str, Any] | None = None
    """Its section `sam2`."""
    effective_batch: int
    steps_per_epoch: int
    world_size: int


class CheckpointFolder:
    """The folder `checkpoints/` of a run. One process writes, any may read."""

    def __init__(self, folder: Path, keep_last: int, keep_best: int = 1) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.keep_best = keep_best

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, manifest: RunManifest, payloads: Iterable[tuple[str, bytes]]) -> Path:
        """Publish a checkpoint and make it the latest.

        Raises:
            BevnextError: it cannot be written (disk full, for one); earlier checkpoints stay as they are.
        """
        place = self.folder / step_directory_name(manifest.step)
        unfinished = self.folder / f"{_UNFINISHED}{place.name}"
        try:
            self._clear_unfinished()
            unfinished.mkdir(parents=True)
            entries = {name: _write_synced(unfinished / name, content) for name, content in payloads}
            whole = manifest.model_copy(update={"files": entries})
            _write_synced(unfinished / MANIFEST, whole.model_dump_json(indent=2).encode())
            _sync_directory(unfinished)
            if place.exists():  # left by an earlier start of the run, and found wanting when it was taken up
                shutil.rmtree(place)
            unfinished.rename(place)
            self._link(LATEST, place)
            self._rotate()
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise BevnextError(
                f"cannot write checkpoint {place}: {error.strerror}; earlier checkpoints are whole",
                fix=f"free space for {self.folder} ({shutil.disk_usage(self.folder).free >> 20} MiB free), "
                "then start again with --resume auto",
            ) from error
        return place

    def record_metrics(self, place: Path, metrics: dict[str, float]) -> bool:
        """Add an evaluation to a checkpoint's manifest; it becomes the best if its score is the highest so far."""
        manifest = RunManifest.model_validate_json((place / MANIFEST).read_bytes())
        whole = manifest.model_copy(update={"metrics": metrics})
        unfinished = place / f"{_UNFINISHED}{MANIFEST}"
        _write_synced(unfinished, whole.model_dump_json(indent=2).encode())
        unfinished.replace(place / MANIFEST)
        best = self._linked(BEST)
        if best is not None and best != place and _score(best) >= metrics[SCORE]:
            return False
        self._link(BEST, place)
        self._rotate()
        return True

    # --- reading ---------------------------------------------------------------------------------------------------

    def has_any(self) -> bool:
        """Something has been saved here, whole or not."""
        return any(self.folder.glob(f"step_*/{MANIFEST}"))

    def newest_valid(self) -> tuple[Path | None, list[str]]:
        """The latest checkpoint that is whole, or `None`; and why others were passed over."""
        found = sorted(self.folder.glob("step_*"), reverse=True)
        latest = self._linked(LATEST)
        if latest is not None:
            found = [latest, *(place for place in found if place != latest)]
        passed_over: list[str] = []
        for place in found:
            fault = _fault(place)
            if not fault:
                return place, passed_over
            passed_over.append(fault)
        return None, passed_over

    def make_latest(self, place: Path) -> None:
        """Let `latest` name a checkpoint of this folder that the run goes on from."""
        if place.resolve().parent == self.folder.resolve():
            self._link(LATEST, place)

    # --- details ---------------------------------------------------------------------------------------------------

    def _clear_unfinished(self) -> None:
        for leftover in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover)

    def _linked(self, name: str) -> Path | None:
        link = self.folder / name
        return self.folder / link.readlink() if link.is_symlink() and link.is_dir() else None

    def _link(self, name: str, place: Path) -> None:
        unfinished = self.folder / f".{name}.new"
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(place.name)
        unfinished.replace(self.folder / name)
        _sync_directory(self.folder)

    def _rotate(self) -> None:
        """Remove all but the last written, the best, and those that are linked; damaged ones stay as they are."""
        places = [path.parent for path in self.folder.glob(f"step_*/{MANIFEST}")]
        manifests = {place: manifest for place in places if (manifest := _manifest(place)) is not None}
        finished = sorted(manifests, key=lambda place: manifests[place].created)
        scored = sorted((place for place in finished if manifests[place].metrics), key=_score)
        kept = {*finished[-self.keep_last :], *scored[-self.keep_best :], self._linked(LATEST), self._linked(BEST)}
        for place in finished:
            if place not in kept:
                (place / MANIFEST).unlink()  # from here on nobody takes it for a checkpoint
                shutil.rmtree(place)


def _fault(place: Path) -> str:
    """Why a checkpoint cannot be read; empty if it can."""
    try:
        read_manifest(place)
    except DataError as error:
        return error.message
    return ""


def _manifest(place: Path) -> Manifest | None:
    """What a checkpoint says about itself; `None` where that is damaged."""
    try:
        return read_manifest(place, verify=False)
    except DataError:
        return None


def _score(place: Path) -> float:
    manifest = _manifest(place)
    return -1.0 if manifest is None else manifest.metrics.get(SCORE, -1.0)


def _write_synced(path: Path, content: bytes) -> FileEntry:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
