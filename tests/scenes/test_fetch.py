"""`data fetch`: archives come by links of the user, are what was promised, and land below the data root."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from launcher.main import run

TABLE = {"v1.0-mini/scene.json": b"[]", "samples/CAM_FRONT/a.jpg": b"\xff\xd8" + bytes(300_000), "maps/m.png": b"png"}


def packed(files: dict[str, bytes], *odd: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo("samples")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in odd:
            archive.addfile(member)
    return buffer.getvalue()


class Site:
    """A folder behind HTTP that counts what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.address = ""

    def put(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return f"{self.address}/{name}?Signature=secret"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    made = Site(tmp_path / "site")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            made.asked.append(self.path.split("?")[0])

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(made.folder)))
    made.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(root: Path, *words: str) -> int:
    return run(["data", "fetch", *words, "--data-root", str(root), "--accept-licence"])


def test_archive_is_verified_unpacked_recorded_and_removed(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, root = packed(TABLE), tmp_path / "set"
    md5, sha256 = hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    assert fetch(root, f"{site.put('v1.0-mini.tgz', content)}#md5={md5}") == 0
    assert {name: (root / name).read_bytes() for name in TABLE} == TABLE
    assert "as promised" in (shown := capsys.readouterr().out)
    assert sha256 in shown
    record = json.loads((root / "archives/v1.0-mini.tgz.json").read_text())
    assert record == {"name": "v1.0-mini.tgz", "bytes": len(content), "files": 3, "md5": md5, "sha256": sha256}
    assert [path.name for path in (root / "archives").iterdir()] == ["v1.0-mini.tgz.json"]
    assert fetch(root, f"{site.address}/v1.0-mini.tgz#sha256={sha256}") == 0
    assert "unpacked before" in capsys.readouterr().out
    assert len(site.asked) == 1
    assert fetch(root, f"{site.address}/v1.0-mini.tgz#md5={'0' * 32}") == 3
    assert not [path for path in root.rglob("*") if path.name.endswith(".unfinished")]


def test_what_was_not_promised_is_not_unpacked(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = site.put("some.tar.gz", packed(TABLE))
    assert fetch(tmp_path / "set", f"{link}#sha256={'0' * 64}") == 3
    error = capsys.readouterr().err
    assert "promised was" in error
    assert "secret" not in error
    assert not (tmp_path / "set/samples").exists()


def test_list_of_links_and_kept_archives(site: Site, tmp_path: Path) -> None:
    links = [site.put("a.tgz", packed({"a": b"1"})), site.put("b.tgz", packed({"b": b"2"}))]
    (tmp_path / "links").write_text("# from the page\n\n" + "\n".join(links) + "\n")
    assert fetch(tmp_path / "set", "--list", str(tmp_path / "links"), "--keep-archives") == 0
    assert sorted(path.name for path in (tmp_path / "set").rglob("*") if path.is_file()) == [
        *("a", "a.tgz", "a.tgz.json", "b", "b.tgz", "b.tgz.json")
    ]


def test_family_names_its_archives_and_a_mirror_has_them(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "fetch", "--family", "bevnext"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[:2] == ["v1.0-trainval_meta.tgz", "v1.0-trainval01_keyframes.tgz"]
    assert len(names) == 11
    site.put("v1.0-mini.tgz", packed(TABLE))
    mirror = ("--mirror", site.address, "--version", "v1.0-mini", "--family", "bevfusion")
    assert fetch(tmp_path / "set", *mirror) == 0
    assert (tmp_path / "set/v1.0-mini/scene.json").is_file()


@pytest.mark.parametrize("kind", ["above", "absolute", "link"])
def test_what_would_land_elsewhere_is_refused(site: Site, tmp_path: Path, kind: str) -> None:
    names = {"above": "samples/../../out", "absolute": str(tmp_path / "out"), "link": "samples/out"}
    member = tarfile.TarInfo(names[kind])
    if kind == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    assert fetch(tmp_path / "set", site.put("odd.tgz", packed({}, member))) == 3
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "set/samples/out").is_symlink()


def test_cut_archive_is_bad_data(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = packed({"a": bytes(range(256)) * 4000})
    assert fetch(tmp_path / "set", site.put("cut.tgz", content[: len(content) // 2])) == 3
    assert "cannot be unpacked" in capsys.readouterr().err
    assert not (tmp_path / "set/archives/cut.tgz.json").exists()


def test_too_little_room_is_told_before_anything_is_fetched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scenes import fetch_command

    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(fetch_command.shutil, "disk_usage", lambda _: usage)
    assert fetch(tmp_path / "set", site.put("a.tgz", packed({"a": b"1"}))) == 1
    assert "are free" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "no link"),
        (["ftp://some.org/a.tgz"], "no link to an archive"),
        (["https://some.org/page.html"], "no link to an archive"),
        (["https://some.org/a.tgz#md5=12"], "no digest"),
        (["https://some.org/a.tgz", "https://other.org/a.tgz"], "two links"),
        (["--mirror", "https://some.org"], "--family"),
    ],
)
def test_wrong_lines_are_2(words: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(tmp_path / "set", *words) == 2
    assert hint in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_licence_is_accepted_by_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "fetch", "https://some.org/a.tgz", "--data-root", str(tmp_path / "set")]) == 2
    assert "terms-of-use" in capsys.readouterr().err
