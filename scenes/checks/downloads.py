"""Which files each family of recipes reads, and which nuScenes archives hold them."""

from __future__ import annotations

from typing import Final

SYNTHETIC: Final = "v1.0-synthetic"

KEY_CAMERAS: Final = "samples/CAM_*"
KEY_LIDAR: Final = "samples/LIDAR_TOP"
KEY_RADAR: Final = "samples/RADAR_*"
CAMERA_SWEEPS: Final = "sweeps/CAM_*"
LIDAR_SWEEPS: Final = "sweeps/LIDAR_TOP"
RADAR_SWEEPS: Final = "sweeps/RADAR_*"
MAPS: Final = "maps"
GROUPS: Final = (KEY_CAMERAS, KEY_LIDAR, KEY_RADAR, CAMERA_SWEEPS, LIDAR_SWEEPS, RADAR_SWEEPS, MAPS)

NEEDS: Final[dict[str, tuple[str, ...]]] = {
    # the devkit opens every map when it is started, so each family needs them for its metrics
    "bevnext": (KEY_CAMERAS, KEY_LIDAR, MAPS),
    "sparsebev": (KEY_CAMERAS, CAMERA_SWEEPS, MAPS),
    "bevfusion": (KEY_CAMERAS, KEY_LIDAR, LIDAR_SWEEPS, MAPS),
}
"""BEVNeXt reads the LiDAR of key frames as depth targets in training only."""

_KEY_GROUPS: Final = {KEY_CAMERAS, KEY_LIDAR, KEY_RADAR}
_SENSOR_OF_GROUP: Final = {CAMERA_SWEEPS: "camera", LIDAR_SWEEPS: "lidar", RADAR_SWEEPS: "radar"}
_PARTS: Final = "{01..10}"
_EACH_PART: Final = tuple(f"{part:02d}" for part in range(1, 11))
PUBLISHED: Final = ("v1.0-mini", "v1.0-trainval", "v1.0-test")
"""The versions that nuScenes publishes."""


def group_of(key_frame: bool, channel: str) -> str:
    """The group of the files of a channel."""
    kind = "LIDAR_TOP" if channel.startswith("LIDAR") else f"{channel.split('_', maxsplit=1)[0]}_*"
    return f"{'samples' if key_frame else 'sweeps'}/{kind}"


def downloads_for(version: str, missing: frozenset[str], tables_missing: bool = False) -> tuple[str, ...]:
    """Archives (or the command) that bring the missing groups of files, and the tables."""
    if not missing and not tables_missing:
        return ()
    if version == SYNTHETIC:
        sweeps = " --camera-sweeps" if CAMERA_SWEEPS in missing else ""
        return (f"bevnext-sam2 data synth{sweeps}",)
    if version == "v1.0-mini":
        return ("v1.0-mini.tgz",)
    if version == "v1.0-trainval":
        return _trainval(missing, tables_missing)
    if version == "v1.0-test":
        archives = ("v1.0-test_meta.tgz",) if tables_missing or MAPS in missing else ()
        return archives + (("v1.0-test_blobs.tgz",) if missing - {MAPS} else ())
    return (f"the files of {version} from whoever made it",)


def _trainval(missing: frozenset[str], tables_missing: bool) -> tuple[str, ...]:
    archives = ["v1.0-trainval_meta.tgz"] if tables_missing or MAPS in missing else []
    sensors = [sensor for group, sensor in _SENSOR_OF_GROUP.items() if group in missing]
    covered = {
        group
        for group in _KEY_GROUPS
        for sensor in sensors
        if sensor == {KEY_CAMERAS: "camera", KEY_LIDAR: "lidar", KEY_RADAR: "radar"}[group]
    }
    if (missing & _KEY_GROUPS) - covered:
        archives.append(f"v1.0-trainval{_PARTS}_keyframes.tgz")
    # the archive of one sensor holds its key frames too
    archives += [f"v1.0-trainval{_PARTS}_blobs_{sensor}.tgz" for sensor in sensors]
    return tuple(archives)


def archives_of(version: str, family: str) -> tuple[str, ...]:
    """The names of all archives that a family of recipes reads, each part by itself; none for a version of others."""
    if version not in PUBLISHED:
        return ()
    named = downloads_for(version, frozenset(NEEDS[family]), tables_missing=True)
    return tuple(name.replace(_PARTS, part) for name in named for part in (_EACH_PART if _PARTS in name else (_PARTS,)))
