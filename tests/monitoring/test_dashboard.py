"""The dashboard in the form that Grafana provisions; whether its queries have series is tested with Prometheus."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).parents[2] / "compose"
GRAFANA = COMPOSE / "monitoring" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "bevnext-sam2.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SERVICES = yaml.safe_load((COMPOSE / "monitoring.yaml").read_text())["services"]
COLUMNS = 24
NEWEST_SCHEMA = 41
"""Of Grafana 12.1 (@grafana/schema 12.1.1); older ones are brought up to date when they are loaded."""
UNITS = {"none", "percent", "percentunit", "s", "watt", "celsius", "Bps", "joule", "rotmhz"}
"""Identifiers among those of @grafana/data 12.1.1; Grafana shows an unknown one as text behind the number."""


def provisioned(kind: str) -> dict[str, Any]:
    (file,) = (GRAFANA / "provisioning" / kind).glob("*.yml")
    content = yaml.safe_load(file.read_text())
    assert content["apiVersion"] == 1
    (only,) = content["providers" if kind == "dashboards" else kind]
    assert isinstance(only, dict)
    return only


def test_it_is_a_dashboard_that_this_grafana_reads() -> None:
    assert 36 <= DASHBOARD["schemaVersion"] <= NEWEST_SCHEMA  # from 36 on data sources are named by uid
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    assert DASHBOARD["title"]
    assert "id" not in DASHBOARD  # the database gives it
    assert {panel["type"] for panel in PANELS} == {"row", "stat", "timeseries"}
    assert all(panel["title"] for panel in PANELS)
    numbers = [panel["id"] for panel in PANELS]
    assert len({*numbers}) == len(numbers)


def test_every_query_goes_to_the_data_source_that_is_provisioned() -> None:
    source = provisioned("datasources")
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    named = {"type": source["type"], "uid": source["uid"]}
    with_queries = [panel for panel in PANELS if panel["type"] != "row"]
    for panel in [*with_queries, *DASHBOARD["templating"]["list"]]:
        assert panel["datasource"] == named
    for panel in with_queries:
        assert panel["targets"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len({*references}) == len(references)
        assert all(target["expr"].strip() and target["legendFormat"] for target in panel["targets"])


def test_variables_are_defined() -> None:
    queries = json.dumps([panel.get("targets") for panel in PANELS])
    used = {*re.findall(r"\$(\w+)", queries)} - {"__range", "__interval", "__rate_interval"}
    assert used == {variable["name"] for variable in DASHBOARD["templating"]["list"]}


def test_units_are_known() -> None:
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS if panel["type"] != "row"} <= UNITS


def test_panels_stand_beside_each_other() -> None:
    places = {panel["title"]: panel["gridPos"] for panel in PANELS}
    for one in (panel["gridPos"] for panel in PANELS):
        assert min(one["x"], one["y"]) >= 0
        assert min(one["w"], one["h"]) >= 1
        assert one["x"] + one["w"] <= COLUMNS
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other, places)


def test_the_folder_is_mounted_where_grafana_looks() -> None:
    mounts = {volume["target"]: volume["source"] for volume in SERVICES["grafana"]["volumes"]}
    assert mounts[provisioned("dashboards")["options"]["path"]] == "./compose/monitoring/grafana/dashboards"
    assert mounts["/etc/grafana/provisioning"] == "./compose/monitoring/grafana/provisioning"


def test_images_are_named_by_digest_or_exact_version() -> None:
    for service in ("prometheus", "grafana"):
        assert re.search(r"@sha256:[0-9a-f]{64}}$|:v?\d+\.\d+\.\d+}$", SERVICES[service]["image"])
