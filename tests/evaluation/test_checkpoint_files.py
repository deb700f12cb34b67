"""Checkpoint directories: found, verified, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import DataError, UsageError
from evaluation.checkpoint_files import (
    MANIFEST,
    WEIGHTS,
    Manifest,
    file_entry,
    find_checkpoint,
    read_manifest,
    step_directory_name,
)


def write_checkpoint(run: Path, step: int) -> Path:
    directory = run / "checkpoints" / step_directory_name(step)
    directory.mkdir(parents=True)
    (directory / WEIGHTS).write_bytes(bytes(range(256)) * step)
    files = {WEIGHTS: file_entry(directory / WEIGHTS)}
    manifest = Manifest(step=step, epoch=1, recipe="tiny", created="2025-01-01T00:00:00Z", files=files)
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    return directory


def test_found_by_name_and_by_link(tmp_path: Path) -> None:
    first, second = write_checkpoint(tmp_path, 1), write_checkpoint(tmp_path, 20)
    (tmp_path / "checkpoints" / "latest").symlink_to(second.name)
    assert find_checkpoint(tmp_path) == second
    assert find_checkpoint(tmp_path, "step_00000001") == first
    assert read_manifest(second).step == 20
    with pytest.raises(UsageError, match="'best'") as caught:
        find_checkpoint(tmp_path, "best")
    assert "step_00000001, step_00000020" in caught.value.fix


def test_not_a_run_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        find_checkpoint(tmp_path)


def test_damage_is_found(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path, 2)
    weights = directory / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"x")
    with pytest.raises(DataError, match="SHA-256"):
        read_manifest(directory)
    assert read_manifest(directory, verify=False).step == 2
    weights.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="511 bytes, its manifest says 512"):
        read_manifest(directory)
    weights.unlink()
    with pytest.raises(DataError, match="missing"):
        read_manifest(directory)


@pytest.mark.parametrize(("text", "named"), [("", "cannot be read"), ("{}", "cannot be read")])
def test_unreadable_manifests_are_refused(tmp_path: Path, text: str, named: str) -> None:
    directory = write_checkpoint(tmp_path, 1)
    (directory / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=named):
        read_manifest(directory)


def test_unfinished_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path, 1)
    manifest = (directory / MANIFEST).read_text()
    (directory / MANIFEST).write_text(manifest.replace('"schema_version":1', '"schema_version":99'))
    with pytest.raises(DataError, match="schema version 99"):
        read_manifest(directory)
    (directory / MANIFEST).unlink()
    with pytest.raises(DataError, match="not a finished checkpoint"):
        read_manifest(directory)
