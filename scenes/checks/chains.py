"""Checks what links records in time: prev/next chains, firsts and lasts, counts, and one key frame per sensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.checks.report import FaultBook
from scenes.checks.tables import Table
from scenes.index_layout import CHANNELS

Rows = NDArray[np.int64]
Links = dict[str, Rows]


@dataclass(frozen=True, slots=True)
class Chain:
    """Records linked by prev and next within a group, ordered by time."""

    table: Table
    previous: Rows
    following: Rows
    groups: Rows
    times: NDArray[Any]
    group_name: str


def check_chains(tables: dict[str, Table], links: Links, book: FaultBook) -> None:
    """Every chain whose tables could be read."""
    if {"sample", "scene"} <= set(tables):
        _check_samples(tables, links, book)
    if {"sample", "scene", "sample_data", "calibrated_sensor", "sensor"} <= set(tables):
        _check_sensor_data(tables, links, book)
    if {"sample", "sample_annotation", "instance"} <= set(tables):
        _check_tracks(tables, links, book)


def channels_of(tables: dict[str, Table], links: Links) -> tuple[Rows, list[str]]:
    """The sensor row of each `sample_data` record (-1 when a token dangles), and the channel names of the sensors."""
    sensors = follow(links["sample_data.calibrated_sensor_token"], links["calibrated_sensor.sensor_token"])
    return sensors, tables["sensor"].columns["channel"].to_pylist()


def follow(rows: Rows, onward: Rows) -> Rows:
    """Rows two tables on; -1 stays -1."""
    return np.where(rows >= 0, onward[np.maximum(rows, 0)] if len(onward) else -1, -1)


def _check_samples(tables: dict[str, Table], links: Links, book: FaultBook) -> None:
    sample, scenes = tables["sample"], tables["scene"]
    groups = links["sample.scene_token"]
    chain = Chain(sample, links["sample.prev"], links["sample.next"], groups, sample.columns["timestamp"], "scene")
    _check_chain(chain, book)
    ends = links["scene.first_sample_token"], links["scene.last_sample_token"]
    _check_group_ends(scenes, chain, ends, "nbr_samples", book)


def _check_tracks(tables: dict[str, Table], links: Links, book: FaultBook) -> None:
    boxes, instances, sample = tables["sample_annotation"], tables["instance"], tables["sample"]
    samples = links["sample_annotation.sample_token"]
    times = np.where(samples >= 0, sample.columns["timestamp"][np.maximum(samples, 0)] if sample.rows else 0, 0)
    groups = links["sample_annotation.instance_token"]
    chain = Chain(boxes, links["sample_annotation.prev"], links["sample_annotation.next"], groups, times, "instance")
    _check_chain(chain, book)
    ends = links["instance.first_annotation_token"], links["instance.last_annotation_token"]
    _check_group_ends(instances, chain, ends, "nbr_annotations", book)


def _check_sensor_data(tables: dict[str, Table], links: Links, book: FaultBook) -> None:
    data = tables["sample_data"]
    sensors, names = channels_of(tables, links)
    samples = links["sample_data.sample_token"]
    scenes = follow(samples, links["sample.scene_token"])
    groups = np.where((scenes >= 0) & (sensors >= 0), scenes * max(len(names), 1) + sensors, -1)
    previous, following = links["sample_data.prev"], links["sample_data.next"]
    _check_chain(Chain(data, previous, following, groups, data.columns["timestamp"], "scene and sensor"), book)
    _check_key_frames(tables, samples, sensors, names, book)
    _check_cameras(tables, sensors, names, links, book)


def _check_chain(chain: Chain, book: FaultBook) -> None:
    table = chain.table
    own = np.arange(table.rows)
    for field, links, back in (
        ("next", chain.following, chain.previous),
        ("prev", chain.previous, chain.following),
    ):
        linked = np.flatnonzero(links >= 0)
        other = links[linked]
        where = f"{table.name}.{field}"
        _report(book, where, table, linked[back[other] != own[linked]], "the neighbour does not point back")
        _report(
            book,
            where,
            table,
            linked[chain.groups[other] != chain.groups[linked]],
            f"leads to another {chain.group_name}",
        )
        step = chain.times[other].astype(np.int64) - chain.times[linked].astype(np.int64)
        disordered = (step <= 0) if field == "next" else (step >= 0)
        _report(
            book,
            where,
            table,
            linked[disordered],
            "the neighbour is not later" if field == "next" else "the neighbour is not earlier",
        )
    heads = np.flatnonzero((chain.previous < 0) & (chain.groups >= 0))
    pieces = np.bincount(chain.groups[heads], minlength=1)
    torn = heads[pieces[chain.groups[heads]] > 1]
    _report(book, f"{table.name}.prev", table, torn, f"several records of one {chain.group_name} have no predecessor")


def _check_group_ends(owners: Table, chain: Chain, ends: tuple[Rows, Rows], count_field: str, book: FaultBook) -> None:
    """A scene or instance names its first and last record and their number."""
    table = chain.table
    for end, links, word in ((ends[0], chain.previous, "first"), (ends[1], chain.following, "last")):
        named = np.flatnonzero(end >= 0)
        stray = (links[end[named]] >= 0) | (chain.groups[end[named]] != named)
        where = f"{owners.name}.{word}_{table.name.removeprefix('sample_')}_token"
        _report(book, where, owners, named[stray], f"does not name the {word} {table.name} of this {owners.name}")
    found = np.bincount(chain.groups[chain.groups >= 0], minlength=owners.rows)
    off = np.flatnonzero(found != owners.columns[count_field])
    _report(
        book,
        f"{owners.name}.{count_field}",
        owners,
        off,
        f"is not the number of records in {table.name}.json",
        "wrong-count",
    )


def _check_key_frames(
    tables: dict[str, Table], samples: Rows, sensors: Rows, names: list[str], book: FaultBook
) -> None:
    key = tables["sample_data"].columns["is_key_frame"].astype(bool)
    for channel in CHANNELS:
        if channel not in names:
            book.add("missing-sensor", "sensor.json", f"there is no sensor {channel}")
            continue
        own = key & (sensors == names.index(channel)) & (samples >= 0)
        found = np.bincount(samples[own], minlength=tables["sample"].rows)
        for rows, message in ((found == 0, "no key-frame record of"), (found > 1, "several key-frame records of")):
            _report(
                book,
                f"sample_data {channel}",
                tables["sample"],
                np.flatnonzero(rows),
                f"{message} this sensor",
                "missing-key-frame",
            )


def _check_cameras(tables: dict[str, Table], sensors: Rows, names: list[str], links: Links, book: FaultBook) -> None:
    """Cameras need an image size and intrinsics."""
    cameras = [i for i, name in enumerate(names) if name.startswith("CAM")]
    data, calibrations = tables["sample_data"], tables["calibrated_sensor"]
    flat = (data.columns["height"] <= 0) | (data.columns["width"] <= 0)
    _report(
        book,
        "sample_data.height",
        data,
        np.flatnonzero(np.isin(sensors, cameras) & flat),
        "a camera image without size",
        "bad-value",
    )
    own = np.isin(links["calibrated_sensor.sensor_token"], cameras)
    blind = np.flatnonzero(own & ~calibrations.columns["camera_intrinsic"])
    _report(
        book, "calibrated_sensor.camera_intrinsic", calibrations, blind, "a camera without a 3x3 matrix", "bad-value"
    )


def _report(book: FaultBook, where: str, table: Table, rows: Rows, message: str, kind: str = "broken-chain") -> None:
    if len(rows):
        book.add(kind, where, message, table.examples(rows), len(rows))
