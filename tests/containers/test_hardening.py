"""Every service of every profile has the least rights; each rule is shown to catch a service that breaks it."""

from __future__ import annotations

import copy
import subprocess
from typing import Any

import pytest
import yaml
from containers import has_compose
from hardening import EXCEPTIONS, ROOT, RULES, broken_rules, compose_config

SERVICES = {
    *("bevnext-sam2", "demo", "dev", "train", "train-multi-gpu", "inference", "tensorboard", "shell"),
    *("eval", "monitor", "download", "prometheus", "grafana"),
}
"""Those of the first seed, and ours."""
SETTINGS = {
    "nothing is set": {},
    "on the processor": {"BEVNEXT_SAM2_DEVICE": "cpu"},
    "own data and options": {
        "BEVNEXT_SAM2_DATA_ROOT": "/data/nuscenes",
        "BEVNEXT_SAM2_RUN": "mine",
        "BEVNEXT_SAM2_TRAIN_OPTIONS": "--epochs 2",
        "BEVNEXT_SAM2_JUPYTER_PORT": "9999",
    },
}
BREACHES: dict[str, dict[str, Any]] = {
    "not root": {"user": "0:0"},
    "no privileges": {"cap_add": ["SYS_ADMIN"]},
    "no host namespaces": {"network_mode": "host"},
    "no docker socket": {
        "volumes": [{"type": "bind", "source": "/run/docker.sock", "target": "/s", "read_only": True}]
    },
    "pinned image": {"image": "bevnext-sam2:latest"},
    "never pulled unasked": {"pull_policy": "missing"},
    "ports on loopback": {"ports": [{"target": 1, "published": "1"}]},
    "healthcheck": {"healthcheck": {"disable": True}},
    "init": {"init": False},
    "grace period": {"stop_grace_period": None},
    "read-only root": {"read_only": False},
    "temporary files not executable": {"tmpfs": ["/tmp:exec"]},
    "only outputs and cache writable": {"volumes": [{"type": "bind", "source": "/home", "target": "/home"}]},
    "log size bounded": {"logging": {}},
}
pytestmark = pytest.mark.skipif(not has_compose(), reason="`docker compose` is not installed")


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """The services with no setting at all."""
    services = compose_config({})["services"]
    assert isinstance(services, dict)
    return services


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_services_keep_the_rules(settings: dict[str, str]) -> None:
    services = compose_config(settings)["services"]
    assert set(services) >= SERVICES
    broken = {name: rules for name, service in services.items() if (rules := broken_rules(name, service))}
    assert not broken


@pytest.mark.parametrize("name", RULES)
def test_rule_catches_a_breach(name: str, plain: dict[str, Any]) -> None:
    service = copy.deepcopy(plain["train"])
    assert RULES[name](service)
    service.update(BREACHES[name])
    assert not RULES[name](service)


def test_every_exception_is_needed(plain: dict[str, Any]) -> None:
    assert not [(rule, name) for rule, name in EXCEPTIONS if RULES[rule](plain[name])]


def test_gpus_are_reserved_unless_the_processor_is_chosen() -> None:
    gpu, cpu = (compose_config({"BEVNEXT_SAM2_DEVICE": device})["services"] for device in ("gpu", "cpu"))
    assert {name for name, service in gpu.items() if "deploy" in service} == {
        name for name, service in gpu.items() if "shm_size" in service
    } | {"monitor"}
    assert not [name for name, service in cpu.items() if "deploy" in service]


def test_settings_reach_the_commands() -> None:
    services = compose_config(SETTINGS["own data and options"])["services"]
    expected = ["train", "--data-root", "/data", "--run", "mine", "--resume", "auto", "--epochs", "2"]
    assert services["train"]["command"] == expected
    assert services["eval"]["command"] == ["eval", "--run", "outputs/mine", "--data-root", "/data"]
    data = next(mount for mount in services["train"]["volumes"] if mount["target"] == "/data")
    assert (data["source"], data["read_only"]) == ("/data/nuscenes", True)


def test_one_port_is_published_once(plain: dict[str, Any]) -> None:
    ports = [port["published"] for service in plain.values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports))


def test_no_profile_starts_two_trainings_of_one_run(plain: dict[str, Any]) -> None:
    profiles = [name for service in plain.values() if service["command"][0] == "train" for name in service["profiles"]]
    assert len(profiles) == len({*profiles}) == 2


def test_no_mount_makes_a_folder_on_the_host() -> None:
    """Read from the file: Compose's JSON leaves the value out, where which one depends on its version."""
    files = [yaml.safe_load((ROOT / "compose" / name).read_text()) for name in ("services.yaml", "monitoring.yaml")]
    mounts = [mount for file in files for service in file["services"].values() for mount in service["volumes"]]
    binds = [mount for mount in mounts if mount["type"] != "volume"]
    assert binds
    assert all(mount["type"] == "bind" and mount["bind"] == {"create_host_path": False} for mount in binds)


def test_unknown_device_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        compose_config({"BEVNEXT_SAM2_DEVICE": "tpu"})
    assert "device.tpu.yaml" in error.value.stderr
