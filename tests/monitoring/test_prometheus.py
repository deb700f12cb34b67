"""The exporter, and a real Prometheus on it: every query of the dashboard has series, every alert can be provoked."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up_run import machine, write_run
from made_up_traces import run
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from monitoring.exporter import Exporter
from monitoring.run_reader import RunReader
from monitoring.samples import Alert
from monitoring.series import PREFIX, ViewCollector
from monitoring.view import RunView, VerdictView, View

PROVISIONING = Path(__file__).parents[2] / "compose" / "monitoring"
RULES = yaml.safe_load((PROVISIONING / "prometheus" / "rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((PROVISIONING / "grafana" / "dashboards" / "bevnext-sam2.json").read_text())
PATIENCE = 240.0


class Changing:
    """A watcher whose view the test changes."""

    def __init__(self, view: View) -> None:
        self.view = view

    def look(self) -> View:
        return self.view

    def close(self) -> None:
        pass


def healthy(run_view: RunView) -> View:
    values = {
        "memory_utilisation": 40.0, "dram_activity": 50.0, "nvlink_rx": 1e9, "nvlink_tx": 1e9, "pcie_rx": 1e9,
        "pcie_tx": 1e9, "remapped_rows": 0.0,
    }  # fmt: skip
    found = machine(2)
    devices = tuple(one.model_copy(update={"values": {**one.values, **values}}) for one in found.devices)
    host = {**found.host.values, "disk_read": 1e6, "network_received": 1e6}
    found = found.model_copy(update={"devices": devices, "host": found.host.model_copy(update={"values": host})})
    return View(time=time.time(), machine=found, runs=(run_view,), sample_seconds=0.002)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def fetch(address: str, accept: str = "*/*") -> tuple[str, str]:
    request = urllib.request.Request(address, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode(), answer.headers["Content-Type"]


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Changing:
    directory = write_run(tmp_path_factory.mktemp("runs") / "stage2", run(ranks=2))
    line = {"event": "evaluate", "step": 130, "metrics": {"NDS": 0.5, "mAP": 0.4}}
    with (directory / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return Changing(healthy(RunReader(directory).read()))


@pytest.fixture(scope="module")
def exporter(watcher: Changing) -> Iterator[Exporter]:
    found = Exporter(watcher, "127.0.0.1", 0, 0.25)
    found.start()
    yield found
    found.close()


# --- without Prometheus -----------------------------------------------------------------------------------------------


def test_series_are_open_metrics_and_what_is_missing_has_none(exporter: Exporter) -> None:
    text, kind = fetch(exporter.address + "/metrics", "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    memory = families[f"{PREFIX}_device_memory_used_bytes"].samples
    assert [(one.labels["device"], one.labels["kind"], one.value) for one in memory] == [
        ("0", "gpu", 98e9),
        ("1", "gpu", 98e9),
    ]
    assert families[f"{PREFIX}_device_memory_temperature_celsius"].samples == []
    assert families[f"{PREFIX}_device_energy_joules"].type == "counter"
    held = {one.labels["reason"]: one.value for one in families[f"{PREFIX}_device_clock_held"].samples}
    assert (held["power cap"], held["heat (driver)"]) == (1.0, 0.0)
    shares = [one.value for one in families[f"{PREFIX}_run_step_share"].samples]
    assert sum(shares) == pytest.approx(1.0)


def test_of_one_cause_twice_the_costlier_share_is_exported(watcher: Changing) -> None:
    device, host = (
        VerdictView(cause="memory", share=share, text="", evidence=(), change="", healthy=False)
        for share in (0.4, 0.2)  # the costliest first, as verdicts are
    )
    run_view = watcher.view.runs[0].model_copy(update={"verdicts": (device, host)})
    collector = ViewCollector()
    collector.view = watcher.view.model_copy(update={"runs": (run_view,)})
    families = {family.name: family for family in collector.collect()}
    assert [one.value for one in families[f"{PREFIX}_run_verdict_share"].samples] == [0.4]


def test_other_paths(exporter: Exporter) -> None:
    assert fetch(exporter.address + "/health")[0] == "ok\n"
    assert View.model_validate_json(fetch(exporter.address + "/view")[0]).runs[0].name == "stage2"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(exporter.address + "/else")


def test_every_query_of_dashboard_and_alerts_names_series_that_are_exported(exporter: Exporter) -> None:
    text, _ = fetch(exporter.address + "/metrics")
    exported = set(re.findall(rf"^# TYPE ({PREFIX}_\w+)", text, re.M))
    named = {name for query in [*dashboard_queries(), *(rule["expr"] for rule in RULES)]
             for name in re.findall(rf"{PREFIX}_\w+", query)}  # fmt: skip
    assert named - exported == set()
    assert len(named) > 30


def test_rules_hold_for_promtool() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    for kind, name in (("rules", "rules.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(
            [promtool, "check", kind, str(PROVISIONING / "prometheus" / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stdout + done.stderr
    assert all(rule["annotations"]["summary"] and rule["annotations"]["fix"] for rule in RULES)


def test_nobody_is_let_in_without_a_password() -> None:
    services = yaml.safe_load((PROVISIONING.parent / "monitoring.yaml").read_text())["services"]
    assert services["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${BEVNEXT_SAM2_GRAFANA_PASSWORD:-}"
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["user"].split(":")[0] not in ("0", "root")


# --- with it ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prometheus(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prometheus that scrapes the exporter twice a second, with our rules but without their patience."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    impatient = [{name: value for name, value in rule.items() if name != "for"} for rule in RULES]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": impatient}]}))
    targets = [{"targets": [exporter.address.removeprefix("http://")]}]
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "bevnext-sam2", "static_configs": targets}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={address}"], stderr=log, stdout=log,
        )  # fmt: skip
    try:
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait()


def eventually(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if check():
                return
        except OSError:  # it is starting
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def query(prometheus: str, expression: str) -> list[Any]:
    text, _ = fetch(f"{prometheus}/api/v1/query?query={urllib.parse.quote(expression)}")
    found: list[Any] = json.loads(text)["data"]["result"]
    return found


def dashboard_queries() -> list[str]:
    """Every query of every panel, for all machines and runs."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [one.replace("$machine", ".*").replace("$run", ".*") for one in found]


def firing(prometheus: str) -> set[str]:
    alerts = json.loads(fetch(f"{prometheus}/api/v1/alerts")[0])["data"]["alerts"]
    return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


def test_every_query_of_the_dashboard_has_series(prometheus: str) -> None:
    for expression in dashboard_queries():
        eventually(lambda expression=expression: bool(query(prometheus, expression)), expression)  # type: ignore[misc]


def changed_run(view: View, **changes: Any) -> View:
    return view.model_copy(update={"runs": (view.runs[0].model_copy(update=changes),)})


def changed_device(view: View, **values: float) -> View:
    assert view.machine is not None
    first, *others = view.machine.devices
    first = first.model_copy(update={"values": {**first.values, **values}})
    return view.model_copy(update={"machine": view.machine.model_copy(update={"devices": (first, *others)})})


def changed_machine(view: View, **changes: Any) -> View:
    assert view.machine is not None
    return view.model_copy(update={"machine": view.machine.model_copy(update=changes)})


def full_disk(view: View) -> View:
    assert view.machine is not None
    host = view.machine.host.model_copy(update={"values": {**view.machine.host.values, "disk_used": 6.9e12}})
    return changed_machine(view, host=host)


def alert(kind: Any, subject: str = "stage2") -> Alert:
    return Alert(kind=kind, subject=subject, text="made up")


PROVOKED: dict[str, Callable[[View], View]] = {
    "GpuLost": lambda view: changed_machine(view, alerts=(alert("gpu_lost", "GPU 0"),)),
    "NoProgress": lambda view: changed_run(view, alerts=(alert("no_progress"),)),
    "RunEnded": lambda view: changed_run(view, alerts=(alert("ended"),), state="crashed"),
    "Throttled": lambda view: changed_device(view, sm_clock=1200.0, clock_reasons=0x40),
    "DataBound": lambda view: changed_run(view, seconds={"data_wait": 0.5, "forward": 0.5}),
    "LossNotFinite": lambda view: changed_run(view, loss_finite=False),
    "DiskNearlyFull": full_disk,
}


@pytest.mark.slow
def test_every_alert_can_be_provoked_and_goes_away(prometheus: str, watcher: Changing, exporter: Exporter) -> None:
    assert {*PROVOKED, "MonitorDown"} == {rule["alert"] for rule in RULES}
    calm = watcher.view
    eventually(lambda: bool(query(prometheus, "up == 1")) and not firing(prometheus), "calm at first")
    for name, change in PROVOKED.items():
        watcher.view = change(calm)
        eventually(lambda name=name: firing(prometheus) == {name}, f"{name}: {firing(prometheus)}")  # type: ignore[misc]
        watcher.view = calm
        eventually(lambda: not firing(prometheus), f"{name} goes away")


@pytest.mark.slow
def test_an_exporter_that_is_gone_is_an_alert(prometheus: str, exporter: Exporter) -> None:
    exporter.close()
    eventually(lambda: firing(prometheus) == {"MonitorDown"}, "MonitorDown")
