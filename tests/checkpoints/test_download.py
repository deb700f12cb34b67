"""Downloads: whole in the end, whatever happens on the way, and never a byte twice that was there."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from file_server import Served, serve

from configs.download import ATTEMPTS, download, shown
from configs.errors import BevnextError, UsageError

CONTENT = bytes(range(256)) * 4000  # a megabyte


def get(served: Served, target: Path) -> list[tuple[int, int | None]]:
    """Download; returns the progress that was told."""
    told: list[tuple[int, int | None]] = []
    download(served.address, target, lambda here, total: told.append((here, total)), pause=0.0)
    return told


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.pth"
    with serve(Served(CONTENT)) as served:
        told = get(served, target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.pth"]
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_connections_that_end_early_are_gone_on_with(tmp_path: Path) -> None:
    with serve(Served(CONTENT, cut_after=[100_000, 5, 0])) as served:
        get(served, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert served.ranges == [None, "bytes=100000-", "bytes=100005-", "bytes=100005-"]


def test_a_later_call_goes_on_with_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "file.pth"
    with serve(Served(CONTENT, cut_after=[70_000, *[0] * ATTEMPTS])) as served:
        with pytest.raises(BevnextError, match="70,000 bytes are in") as caught:
            get(served, target)
        assert "goes on from there" in caught.value.fix
        assert not target.exists()
        served.ranges.clear()
        served.cut_after.clear()
        get(served, target)
    assert target.read_bytes() == CONTENT
    assert served.ranges == ["bytes=70000-"]


@pytest.mark.parametrize("how", ["changed", "no ranges", "no marks", "shorter"])
def test_what_cannot_be_gone_on_with_begins_again(tmp_path: Path, how: str) -> None:
    target = tmp_path / "file.pth"
    with serve(Served(CONTENT, cut_after=[70_000, *[0] * ATTEMPTS], marks=how != "no marks")) as served:
        with pytest.raises(BevnextError):
            get(served, target)
        served.cut_after.clear()
        served.knows_ranges = how != "no ranges"
        if how == "changed":
            served.content = CONTENT[::-1]
        if how == "shorter":  # and the server says it is the same: the mark is told by hand
            served.content = CONTENT[:50_000]
            mark = tmp_path / "file.pth.part.mark"
            with serve(Served(served.content)) as other:
                probe = tmp_path / "probe" / "file.pth"
                other.cut_after = [1, *[0] * ATTEMPTS]
                with pytest.raises(BevnextError):
                    get(other, probe)
            mark.write_text((probe.parent / "file.pth.part.mark").read_text())
        get(served, target)
    assert target.read_bytes() == served.content


def test_a_busy_server_is_asked_again_and_a_refusal_is_told(tmp_path: Path) -> None:
    with serve(Served(CONTENT, answers=[503, 429])) as served:
        get(served, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    with serve(Served(CONTENT, answers=[404])) as served, pytest.raises(BevnextError, match="404") as caught:
        get(served, tmp_path / "other.pth")
    assert "mirror" in caught.value.fix
    assert "download=true" not in caught.value.message
    assert len(served.ranges) == 1


def test_what_may_be_a_secret_of_an_address_is_not_shown() -> None:
    assert shown("https://me:word@some.org:8443/a/b.tgz?Signature=x#md5=y") == "https://some.org:8443/a/b.tgz"


def test_a_file_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "there.pth").write_bytes(CONTENT)
    download((tmp_path / "there.pth").as_uri(), tmp_path / "here.pth", lambda here, total: None, pause=0.0)
    assert (tmp_path / "here.pth").read_bytes() == CONTENT
    assert shown("file:///set/there.pth") == "file:///set/there.pth"


@pytest.mark.parametrize("wrong", ["mirror.org/file.pth", "/mnt/file.pth", "http://", "https://[::1/file.pth", ""])
def test_what_is_no_address(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not an address") as caught:
        download(wrong, tmp_path / "file.pth", lambda here, total: None)
    assert "https://" in caught.value.fix
    assert not list(tmp_path.iterdir())


def test_no_server_at_all(tmp_path: Path) -> None:
    with serve(Served(CONTENT)) as served:
        pass
    with pytest.raises(BevnextError, match=f"{ATTEMPTS} times"):
        get(served, tmp_path / "file.pth")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / "file.pth.part").open("ab") as held, serve(Served(CONTENT)) as served:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BevnextError, match="another process"):
            get(served, tmp_path / "file.pth")


def test_a_file_that_has_just_got_its_name_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process ends between the moments in which this one opens the file and locks it."""
    target = tmp_path / "file.pth"
    flock = fcntl.flock

    def late(held: IO[bytes], how: int) -> None:
        (tmp_path / "file.pth.part").write_bytes(CONTENT)
        (tmp_path / "file.pth.part").replace(target)
        flock(held, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with serve(Served(CONTENT[::-1])) as served, pytest.raises(BevnextError, match="another process"):
        get(served, target)
    assert target.read_bytes() == CONTENT
    assert served.ranges == []


GETTER = """
import sys
from pathlib import Path
from configs.download import download
from configs.errors import BevnextError
try:
    download(sys.argv[1], Path(sys.argv[2]), lambda here, total: None, pause=0.0)
except BevnextError as error:
    sys.exit(str(error))
"""


def test_two_processes_at_once_make_one_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "file.pth"
    command = [sys.executable, "-c", GETTER]
    with serve(Served(CONTENT, cut_after=[1000 * number for number in (70, 5, 1)])) as served:
        getters = [
            subprocess.Popen([*command, served.address, target], stderr=subprocess.PIPE, text=True) for _ in range(3)
        ]
        told = [getter.communicate(timeout=300)[1] for getter in getters]
    assert 0 in [getter.returncode for getter in getters]
    assert all("another process is getting" in text for text in told if text)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]
