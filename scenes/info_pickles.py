"""Makes an index from info pickles of BEVDet, mmdetection3d or SparseBEV: for data of which only these are at hand.

The pickles are not executed. They hold less than the tables: no instance tokens, attributes, visibility or vertical
velocity, and no image size (which the caller gives). Where the tables are at hand, build the index from them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Final

from configs.errors import DataError, UsageError
from configs.index_location import HEADER, index_directory
from scenes.index_files import read_header, write_index
from scenes.index_layout import assemble, facts_of
from scenes.info_frames import InfoFrame, frames_of, version_of
from scenes.info_records import InfoScene, records_of
from scenes.restricted_pickle import read_pickle

NUSCENES_IMAGE: Final = (900, 1600)
SCENE_GAP_US: Final = 1_200_000
"""Key frames are 0.5 s apart; where a file has neither scenes nor sweeps, a longer pause than this ends a scene."""


def import_infos(
    files: Sequence[Path],
    dataroot: Path | str,
    version: str | None = None,
    index_dir: Path | str | None = None,
    image_size: tuple[int, int] = NUSCENES_IMAGE,
) -> tuple[str, Path]:
    """Make an index from info pickles; each file becomes a split named after it (`..._infos_train.pkl`: `train`).

    `version` defaults to the one that the files name. Returns the version and the directory of the index.
    Errors: `DataError` for a pickle that is not plain, cut, of another form or repeats a sample; `UsageError` when the
    versions differ or an index made from tables would be replaced.
    """
    root = Path(dataroot)
    contents = {path: read_pickle(path) for path in files}
    version = version or _common_version(contents)
    directory = index_directory(root, version, index_dir)
    _refuse_replacing(directory)
    scenes: list[InfoScene] = []
    for path, content in contents.items():
        scenes += _scenes_of(list(frames_of(content, path)), split_name(path, version), path)
    records = records_of(scenes, root, image_size)
    source = ", ".join(path.name for path in files)
    write_index(directory, facts_of(records, version, source, {}), assemble(records))
    return version, directory


def split_name(path: Path, version: str) -> str:
    """`train` for `bevdetv2-nuscenes_infos_train.pkl`, `mini_val` for `nuscenes_infos_val_mini_sweep.pkl`."""
    match = re.search(r"_infos_(train|val|test|trainval)(_mini)?(_sweep)?$", path.stem)
    if not match:
        return path.stem
    mini = match[2] or version == "v1.0-mini"
    return f"mini_{match[1]}" if mini and match[1] in ("train", "val") else match[1]


def _common_version(contents: dict[Path, Any]) -> str:
    versions = {path: version_of(content) for path, content in contents.items()}
    found = set(versions.values())
    if len(found) != 1 or None in found:
        listing = ", ".join(f"{path.name}: {version}" for path, version in versions.items())
        raise UsageError(f"the info files do not name one version ({listing})", fix="name it with --version")
    return str(found.pop())


def _refuse_replacing(directory: Path) -> None:
    if (directory / HEADER).exists():
        header = read_header(directory, f"remove {directory}")
        if header.source == "tables":
            raise UsageError(
                f"{directory} holds an index made from the tables, which has more than info files have",
                fix="give the import another name with --version, or another place with --index-dir",
            )


def _scenes_of(frames: list[InfoFrame], split: str, path: Path) -> list[InfoScene]:
    """Frames in time order, cut into scenes: by scene token; else before a frame without sweeps; else at a pause."""
    if not frames:
        raise DataError(f"{path}: there are no key frames", fix="make the info file again")
    by_log: dict[str, list[InfoFrame]] = defaultdict(list)
    for frame in frames:
        by_log[frame.scene or _log_of(frame)].append(frame)
    has_sweeps = any(frame.sweeps for frame in frames)
    scenes = []
    for name, own in by_log.items():
        own.sort(key=lambda frame: frame.timestamp_us)
        if own[0].scene is not None:
            scenes.append(InfoScene(split, name, own))
            continue
        starts = [0, *(i for i, pair in enumerate(pairwise(own), 1) if _begins_scene(*pair, has_sweeps)), len(own)]
        scenes += [InfoScene(split, own[a].token, own[a:b]) for a, b in pairwise(starts)]
    return sorted(scenes, key=lambda scene: scene.frames[0].timestamp_us)


def _begins_scene(before: InfoFrame, frame: InfoFrame, has_sweeps: bool) -> bool:
    # sweeps are followed back to the start of a scene, so only the first key frame of one has none
    return not frame.sweeps if has_sweeps else frame.timestamp_us - before.timestamp_us > SCENE_GAP_US


def _log_of(frame: InfoFrame) -> str:
    """nuScenes names files `<log>__<channel>__<time>`; two vehicles may have driven at the same time."""
    return PurePosixPath(frame.sensors[-1].file).name.split("__", maxsplit=1)[0]
