"""`configs.replaced_file`: the old file or the new one, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import BevnextError
from configs.replaced_file import replace_bytes, replace_text, replacing

WRITER = """
import sys
from pathlib import Path
from configs.replaced_file import replace_text
for number in range(20):
    replace_text(Path(sys.argv[1]), sys.argv[2] * 100_000)
"""


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_content_and_folders_that_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    assert replace_text(path, "größer") == path
    assert path.read_bytes() == "größer".encode()
    assert replace_bytes(path, b"\0\1").read_bytes() == b"\0\1"
    assert names(path.parent) == ["file.txt"]


def test_everybody_may_read_it_who_may_read_other_files(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    assert replace_text(tmp_path / "file", "").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    assert replace_text(tmp_path / ("ö" * 127), "text").read_text() == "text"


def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = replace_text(tmp_path / "file", "old")
    with pytest.raises(RuntimeError, match="half"), replacing(path) as unfinished:
        unfinished.write_text("ne")
        raise RuntimeError("half")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = replace_text(tmp_path / "file", "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BevnextError, match="No space left on device") as caught:
        replace_text(path, "new")
    assert "free some space" in caught.value.fix
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BevnextError, match="cannot write"):
        replace_text(tmp_path / "file" / "below", "text")


def test_two_writers_at_once_and_a_reader(tmp_path: Path) -> None:
    path = replace_text(tmp_path / "file", "a" * 100_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        seen = path.read_text()
        assert seen in ("a" * 100_000, "b" * 100_000)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert names(tmp_path) == ["file"]


def test_a_file_of_a_secretive_library_gets_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "file") as unfinished:
        unfinished.unlink()
        os.close(os.open(unfinished, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
