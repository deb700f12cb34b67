"""The annotations of the nuScenes tables, as records of the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.errors import DataError
from configs.nuscenes import CLASS_OF_CATEGORY, CLASSES
from scenes.index_layout import AnnotationRecords, Floats, Integers, SampleRecords
from scenes.sensor_tables import column, matrix, resolve, small_tokens
from scenes.table_schemas import SCHEMAS, schema_of
from scenes.tables import Progress, read_large_table, read_small_table
from scenes.tokens import TokenArray, TokenMap, decode_tokens, is_none

VISIBILITY_LEVELS: Final = ("v0-40", "v40-60", "v60-80", "v80-100")
_MAX_TIME_DIFFERENCE: Final = 1.5  # seconds, the devkit's default

_INSTANCE = schema_of("instance", "token", "category_token")
_ANNOTATION = SCHEMAS["sample_annotation"]
_TOKENS = ("token", "sample_token", "instance_token", "prev", "next")


def read_annotations(
    directory: Path, samples: SampleRecords, progress: Progress
) -> tuple[AnnotationRecords, list[str], list[str]]:
    """Boxes sorted by sample, the category names and the attribute names."""
    categories = read_small_table(directory / "category.json", ("token", "name"))
    attributes = read_small_table(directory / "attribute.json", ("token", "name"))
    names = [record["name"] for record in categories]
    instances, instance_category = _read_instances(directory, categories, progress)
    raw = _read_raw(directory, progress)

    sample = resolve(TokenMap(samples.tokens), raw["sample_token"], "sample_annotation.sample_token", "sample")
    instance = resolve(TokenMap(instances), raw["instance_token"], "sample_annotation.instance_token", "instance")
    velocity = box_velocities(
        raw["translation"], samples.timestamps[sample], *(_neighbours(raw, side) for side in ("prev", "next"))
    )
    order = np.lexsort((np.arange(len(sample)), sample))
    category = instance_category[instance][order]
    records = AnnotationRecords(
        tokens=raw["token"][order],
        instances=raw["instance_token"][order],
        samples=sample[order],
        categories=category,
        labels=labels_of_categories(names)[category],
        translations=raw["translation"][order],
        sizes=raw["size"][order],
        rotations=raw["rotation"][order],
        velocities=velocity[order],
        attributes=_attribute_numbers(raw, small_tokens(attributes, "token", "attribute"))[order],
        visibilities=_visibilities(directory, raw["visibility"])[order],
        lidar_points=raw["num_lidar_pts"][order],
        radar_points=raw["num_radar_pts"][order],
    )
    return records, names, [record["name"] for record in attributes]


def labels_of_categories(names: list[str]) -> Integers:
    """Class id of each category name, -1 outside the detection task."""
    classes = [CLASS_OF_CATEGORY.get(name) for name in names]
    return np.array([-1 if name is None else CLASSES.index(name) for name in classes], np.int64)


def box_velocities(centres: Floats, timestamps: Integers, previous: Integers, following: Integers) -> Floats:
    """`[n, 3]` m/s by the rule of the nuScenes devkit (`NuScenes.box_velocity`).

    The difference quotient between the neighbours of a box in its track (one-sided at the ends); NaN for a box without
    neighbours and where they are more than 1.5 s apart (3 s between two neighbours). `previous` and `following` are
    rows, -1 for none; `timestamps` are those of the samples, microseconds.
    """
    rows = np.arange(len(centres))
    has_previous, has_following = previous >= 0, following >= 0
    first = np.where(has_previous, previous, rows)
    last = np.where(has_following, following, rows)
    seconds = 1e-6 * timestamps
    elapsed = seconds[last] - seconds[first]
    limit = np.where(has_previous & has_following, 2 * _MAX_TIME_DIFFERENCE, _MAX_TIME_DIFFERENCE)
    known = (has_previous | has_following) & (elapsed <= limit)
    velocities = np.full((len(centres), 3), np.nan)
    velocities[known] = (centres[last] - centres[first])[known] / elapsed[known, None]
    return velocities


def _read_raw(directory: Path, progress: Progress) -> dict[str, Any]:
    blocks = read_large_table(directory / "sample_annotation.json", _ANNOTATION, _raw_columns, progress)
    visibility = pa.concat_arrays([block.pop("visibility") for block in blocks])
    raw = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return raw | {"visibility": visibility}


def _raw_columns(block: pa.Table) -> dict[str, Any]:
    table = "sample_annotation"
    attributes = column(block, "attribute_tokens")
    return {
        **{name: decode_tokens(column(block, name), f"{table}.{name}") for name in _TOKENS},
        "attribute_count": np.diff(attributes.offsets.to_numpy()),
        "attribute_tokens": decode_tokens(attributes.flatten(), f"{table}.attribute_tokens"),
        "translation": matrix(block, "translation", 3, table),
        "size": matrix(block, "size", 3, table),
        "rotation": matrix(block, "rotation", 4, table),
        "num_lidar_pts": column(block, "num_lidar_pts").to_numpy(),
        "num_radar_pts": column(block, "num_radar_pts").to_numpy(),
        "visibility": column(block, "visibility_token"),
    }


def _read_instances(
    directory: Path, categories: list[dict[str, Any]], progress: Progress
) -> tuple[TokenArray, NDArray[np.int64]]:
    def convert(block: pa.Table) -> tuple[TokenArray, TokenArray]:
        return (
            decode_tokens(column(block, "token"), "instance.token"),
            decode_tokens(column(block, "category_token"), "instance.category_token"),
        )

    blocks = read_large_table(directory / "instance.json", _INSTANCE, convert, progress)
    tokens, category_tokens = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    targets = TokenMap(small_tokens(categories, "token", "category"))
    return tokens, resolve(targets, category_tokens, "instance.category_token", "category")


def _neighbours(raw: dict[str, Any], side: str) -> NDArray[np.int64]:
    """Row of the previous or next box of the track, -1 at its end."""
    rows = np.full(len(raw[side]), -1, np.int64)
    present = ~is_none(raw[side])
    rows[present] = resolve(
        TokenMap(raw["token"]), raw[side][present], f"sample_annotation.{side}", "sample_annotation"
    )
    return rows


def _attribute_numbers(raw: dict[str, Any], tokens: TokenArray) -> Integers:
    counts = raw["attribute_count"]
    if (counts > 1).any():
        raise DataError(
            f"sample_annotation.attribute_tokens: {(counts > 1).sum()} boxes have more than one attribute",
            fix="the nuScenes detection task and its devkit allow at most one: keep the one that counts",
        )
    numbers = np.full(len(counts), -1, np.int64)
    numbers[counts == 1] = resolve(
        TokenMap(tokens), raw["attribute_tokens"], "sample_annotation.attribute_tokens", "attribute"
    )
    return numbers


def _visibilities(directory: Path, tokens: pa.StringArray) -> Integers:
    """1 to 4 by the level of each token, 0 for the empty token."""
    levels = {"": 0}
    for record in read_small_table(directory / "visibility.json", ("token", "level")):
        if record["level"] not in VISIBILITY_LEVELS:
            raise DataError(
                f"{directory / 'visibility.json'}: unknown level {record['level']!r}",
                fix=f"the levels of nuScenes are {', '.join(VISIBILITY_LEVELS)}",
            )
        levels[record["token"]] = VISIBILITY_LEVELS.index(record["level"]) + 1
    encoded = tokens.dictionary_encode()
    unknown = [text for text in encoded.dictionary.to_pylist() if text not in levels]
    if unknown:
        raise DataError(
            f"sample_annotation.visibility_token: {unknown[0]!r} is not in visibility.json",
            fix="get the metadata again",
        )
    numbers = np.array([levels[text] for text in encoded.dictionary.to_pylist()], np.int64)
    return numbers[encoded.indices.to_numpy()] if len(tokens) else np.zeros(0, np.int64)
