"""The settings of Compose: what the services take is listed for the user, and what is listed is taken."""

from __future__ import annotations

import re

import yaml
from containers import ROOT

SERVICES = ROOT / "compose/services.yaml"
FRAGMENTS = [ROOT / "compose.yaml", *sorted((ROOT / "compose").rglob("*.yaml"))]


def test_env_example_lists_every_setting_and_no_other() -> None:
    listed = set(re.findall(r"^#(BEVNEXT_SAM2_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    taken = {name for path in FRAGMENTS for name in re.findall(r"\$\{(BEVNEXT_SAM2_\w+)", path.read_text())}
    assert listed == taken


def test_the_patience_of_the_healthcheck_reaches_its_container() -> None:
    for name, service in yaml.safe_load(SERVICES.read_text())["services"].items():
        if "progress.py" in str(service["healthcheck"]):
            value = service["environment"]["BEVNEXT_SAM2_SILENT_SECONDS"]
            assert value == "${BEVNEXT_SAM2_SILENT_SECONDS:-2700}", name
