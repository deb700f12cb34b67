"""What a service may not be: rules over `docker compose config --format json`, with the exceptions and their reasons.

python tests/containers/hardening.py        the table of all services, as Markdown
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from containers import ROOT, clean_environment

Service = Mapping[str, Any]
RULES: Final[dict[str, Callable[[Service], bool]]] = {}

EXCEPTIONS: Final = {
    ("temporary files not executable", "dev"): "torch.compile and Triton load what they have compiled",
    ("only outputs and cache writable", "dev"): "its purpose is to change code and notebooks of the checkout",
    ("only outputs and cache writable", "download"): "it writes published weights where the others read them",
}
"""(rule, service) -> why it is broken there."""
WRITABLE: Final = {"/workspace/outputs", "/workspace/data", "/prometheus", "/var/lib/grafana"}
"""Outputs and cache of our services; what Prometheus and Grafana keep, in volumes of theirs."""
HOST_NAMESPACES: Final = ("network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup")


def rule(name: str) -> Callable[[Callable[[Service], bool]], Callable[[Service], bool]]:
    """Register a rule; it returns whether a service keeps it."""

    def register(check: Callable[[Service], bool]) -> Callable[[Service], bool]:
        RULES[name] = check
        return check

    return register


@rule("not root")
def _not_root(service: Service) -> bool:
    user, _, group = service.get("user", "0:0").partition(":")
    return user not in ("", "0", "root") and group not in ("", "0", "root")


@rule("no privileges")
def _no_privileges(service: Service) -> bool:
    return (
        not service.get("privileged")
        and service.get("cap_drop") == ["ALL"]
        and not service.get("cap_add")
        and not service.get("devices")
        and service.get("security_opt") == ["no-new-privileges:true"]
    )


@rule("no host namespaces")
def _no_host_namespaces(service: Service) -> bool:
    return all(service.get(key) in (None, "private") for key in HOST_NAMESPACES)


@rule("no docker socket")
def _no_socket(service: Service) -> bool:
    mounts = service.get("volumes", [])
    return not service.get("use_api_socket") and not any("docker.sock" in json.dumps(mount) for mount in mounts)


@rule("pinned image")
def _pinned_image(service: Service) -> bool:
    name = service["image"].rpartition("/")[2]
    return "@sha256:" in service["image"] or (":" in name and not name.endswith(":latest"))


@rule("never pulled unasked")
def _never_pulled(service: Service) -> bool:
    return "@sha256:" in service["image"] or service.get("pull_policy") == "never"


@rule("ports on loopback")
def _loopback_ports(service: Service) -> bool:
    return all(port.get("host_ip") == "127.0.0.1" for port in service.get("ports", []))


@rule("healthcheck")
def _healthcheck(service: Service) -> bool:
    check = service.get("healthcheck", {})
    return bool(check.get("test")) and not check.get("disable")


@rule("init")
def _init(service: Service) -> bool:
    return service.get("init") is True


@rule("grace period")
def _grace_period(service: Service) -> bool:
    return bool(service.get("stop_grace_period"))


@rule("read-only root")
def _read_only(service: Service) -> bool:
    return service.get("read_only") is True


@rule("temporary files not executable")
def _temporary_files(service: Service) -> bool:
    mounts = [mount.split(":") for mount in service.get("tmpfs", [])]
    return [mount[0] for mount in mounts] == ["/tmp"] and "exec" not in mounts[0][-1].split(",")


@rule("only outputs and cache writable")
def _writable_mounts(service: Service) -> bool:
    return {mount["target"] for mount in service.get("volumes", []) if not mount.get("read_only")} <= WRITABLE


@rule("log size bounded")
def _bounded_log(service: Service) -> bool:
    return bool(re.fullmatch(r"\d+[km]", service.get("logging", {}).get("options", {}).get("max-size", "")))


def compose_config(settings: Mapping[str, str], file: Path = ROOT / "compose.yaml") -> dict[str, Any]:
    """What Compose makes of `compose.yaml` with these settings, whatever `.env` and the environment say."""
    command = ["docker", "compose", "--env-file", "/dev/null", "--file", str(file), "--profile", "*"]
    done = subprocess.run(
        [*command, "config", "--format", "json"],
        capture_output=True,
        text=True,
        env={**clean_environment(), **settings},
        check=True,
    )
    assert not done.stderr, done.stderr
    content = json.loads(done.stdout)
    assert isinstance(content, dict)
    return content


def broken_rules(name: str, service: Service) -> set[str]:
    """Rules that a service breaks without a reason on the list."""
    return {rule for rule, keeps in RULES.items() if not keeps(service) and (rule, name) not in EXCEPTIONS}


def table(services: Mapping[str, Service]) -> str:
    """One row for each rule: which services keep it, which do not and why."""
    rows = ["| rule | services that keep it | exceptions |", "| --- | --- | --- |"]
    for name, keeps in RULES.items():
        kept = sum(keeps(service) for service in services.values())
        reasons = [f"`{service}`: {why}" for (rule, service), why in EXCEPTIONS.items() if rule == name]
        rows.append(f"| {name} | {kept} of {len(services)} | {'; '.join(reasons)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(compose_config({})["services"]))
