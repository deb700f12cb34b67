"""Docker's command lines of the documentation, read by Docker: it reads a line before it looks for its engine."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import ROOT, clean_environment, has_compose

PAGES = [ROOT / "README.md", ROOT / "DOCKER.md", ROOT / "MULTI_GPU_TRAINING.md", *sorted(ROOT.glob("docs/*.md"))]
FENCED = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOBODY = "unix:///no/engine.sock"
WAS_READ = re.compile(r"Cannot connect to the Docker daemon|open \S+\.tar: no such file")
"""What Docker says about a line without a mistake where there is neither an engine nor the file of the example."""

pytestmark = pytest.mark.skipif(not has_compose(), reason="`docker compose` is not installed")


def docker_lines(page: Path) -> Iterator[str]:
    """The commands in a page's shell blocks that call docker."""
    for block in FENCED.findall(page.read_text(encoding="utf-8")):
        commands = re.split(r"\n| && ", block.replace("\\\n", " "))
        yield from (command for command in commands if command.startswith("docker "))


def without_engine(line: str) -> str:
    """What Docker says about a line."""
    words = shlex.split(line, comments=True)[1:]
    return subprocess.run(
        ["docker", "--host", NOBODY, *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=clean_environment(),
        check=False,
    ).stderr


@pytest.mark.parametrize("line", [line for page in PAGES for line in docker_lines(page)])
def test_docker_reads_the_line(line: str) -> None:
    said = without_engine(line)
    assert WAS_READ.search(said), said


@pytest.mark.parametrize(
    "line", ["docker compose up trian", "docker compose up --detached train", "docker save --into a.tar image"]
)
def test_a_mistake_would_be_found(line: str) -> None:
    assert not WAS_READ.search(without_engine(line))
