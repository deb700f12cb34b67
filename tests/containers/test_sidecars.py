"""TensorBoard and JupyterLab as their services, asked over HTTP from the host."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest
from containers import Project, docker, free_port, wait_until
from PIL import Image

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]
DIRECT = build_opener(ProxyHandler({}))


def get(address: str) -> str:
    with DIRECT.open(address, timeout=20) as answer:
        return str(answer.read().decode())


def screenshot(address: str, path: Path) -> None:
    """A picture of a page, where there is a Chromium; BEVNEXT_SAM2_SCREENSHOTS keeps it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        return
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--virtual-time-budget=20000")
    command = [browser, *flags, f"--screenshot={path}", address]
    try:
        subprocess.run(command, capture_output=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:  # on a busy machine; the service itself has been asked above
        print(f"no picture of {path.stem}: the browser took more than 180 s")
        return
    assert path.stat().st_size > 10_000


def picture_size(address: str, run: str, tag: str) -> tuple[int, int]:
    """Width and height of the newest picture of a tag, decoded."""
    (*_, newest) = json.loads(get(f"{address}/data/plugin/images/images?{urlencode({'run': run, 'tag': tag})}"))
    with DIRECT.open(f"{address}/data/plugin/images/individualImage?{newest['query']}", timeout=20) as picture:
        size: tuple[int, int] = Image.open(io.BytesIO(picture.read())).size
    return size


def test_tensorboard_shows_curves_and_pictures_of_the_run(trained: Project, pictures: Path) -> None:
    port = str(free_port())
    trained.compose("up", "--no-build", "--detach", "tensorboard", BEVNEXT_SAM2_TENSORBOARD_PORT=port)
    address = f"http://127.0.0.1:{port}"
    wait_until("healthy", lambda: trained.health("tensorboard") == "healthy")
    tags = json.loads(get(f"{address}/data/plugin/scalars/tags"))
    assert any("smoke" in run for run in tags)
    assert any("loss" in tag for run in tags.values() for tag in run)
    drawn = json.loads(get(f"{address}/data/plugin/images/tags"))
    sizes = [picture_size(address, run, tag) for run, found in drawn.items() for tag in found]
    assert max(width * height for width, height in sizes) > 100_000  # the cameras; maps from above are small
    bindings = json.loads(docker("inspect", trained.container("tensorboard")).stdout)[0]["NetworkSettings"]["Ports"]
    assert {binding["HostIp"] for port in bindings.values() for binding in port or ()} == {"127.0.0.1"}
    screenshot(f"{address}/?darkMode=false#scalars", pictures / "tensorboard.png")
    screenshot(f"{address}/?darkMode=false#images", pictures / "tensorboard_pictures.png")


def test_tensorboard_shows_the_profile_of_the_run(trained: Project) -> None:
    port = str(free_port())
    trained.compose("up", "--no-build", "--detach", "tensorboard", BEVNEXT_SAM2_TENSORBOARD_PORT=port)
    plugin = f"http://127.0.0.1:{port}/data/plugin/pytorch_profiler"
    wait_until("healthy", lambda: trained.health("tensorboard") == "healthy")
    wait_until("profile read", lambda: not json.loads(get(f"{plugin}/runs"))["loading"])
    assert json.loads(get(f"{plugin}/runs"))["runs"] == ["smoke/tensorboard/profile"]
    query = urlencode({"run": "smoke/tensorboard/profile", "view": "Trace"})
    assert json.loads(get(f"{plugin}/workers?{query}")) == ["rank0", "rank1"]
    assert "operators/text_summary" in get(f"http://127.0.0.1:{port}/data/plugin/text/tags")


def test_profile_lies_where_tensorboard_and_perfetto_find_it(trained: Project) -> None:
    traces = sorted((trained.outputs / "smoke/tensorboard/profile").glob("rank*.pt.trace.json"))
    assert [trace.name.split(".")[0] for trace in traces] == ["rank0", "rank1"]
    steps = {
        event["name"] for event in json.loads(traces[0].read_text())["traceEvents"] if "ProfilerStep" in event["name"]
    }
    assert len(steps) == 2


def test_monitor_serves_the_run(trained: Project) -> None:
    port = str(free_port())
    trained.compose("up", "--no-build", "--detach", "monitor", BEVNEXT_SAM2_MONITOR_PORT=port)
    wait_until("healthy", lambda: trained.health("monitor") == "healthy")
    assert "smoke" in get(f"http://127.0.0.1:{port}/metrics")
    assert json.loads(get(f"http://127.0.0.1:{port}/view"))


def test_a_profiler_is_there(dev_image: str) -> None:
    assert docker("run", "--rm", dev_image, "py-spy", "--version").stdout.startswith("py-spy ")


def test_jupyter_wants_its_token(project: Project, dev_image: str, pictures: Path) -> None:
    port = str(free_port())
    settings = {"BEVNEXT_SAM2_JUPYTER_PORT": port, "BEVNEXT_SAM2_DEV_IMAGE": dev_image}
    project.compose("up", "--no-build", "--detach", "dev", **settings)
    wait_until("healthy", lambda: project.health("dev") == "healthy")
    printed = re.search(
        rf"http://127\.0\.0\.1:{port}/lab\?token=(\S{{16,}})", docker("logs", project.container("dev")).stdout
    )
    assert printed
    with pytest.raises(HTTPError) as refused:
        get(f"http://127.0.0.1:{port}/api/contents")
    assert refused.value.code == 403
    with pytest.raises(HTTPError) as wrong:
        get(f"http://127.0.0.1:{port}/api/contents?token=wrong")
    assert wrong.value.code == 403
    listed = json.loads(get(f"http://127.0.0.1:{port}/api/contents?token={printed[1]}"))
    assert "compose.yaml" in {entry["name"] for entry in listed["content"]}
    screenshot(printed[0], pictures / "jupyter.png")
