"""The work of `sam2 label`: scenes that are not labelled yet, then the files of the whole."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

import torch

from configs.errors import DataError, UsageError
from configs.nuscenes import CLASSES
from integration.labelling.boxes import FrameBoxes
from integration.labelling.coco import write_coco
from integration.labelling.films import FilmFollower
from integration.labelling.folder import LabelFolder
from integration.labelling.nuimages import write_nuimages
from integration.labelling.options import LabelOptions
from integration.labelling.page import write_page
from integration.labelling.quality import KEPT, REASONS
from integration.labelling.records import Counts, SceneLabels
from integration.labelling.results_file import ResultBoxes, read_results
from integration.labelling.scene_labels import SceneTask
from integration.labelling.workers import label_scenes
from integration.masks.session import chosen_device
from integration.precision import lower_kind
from integration.sam2_package import find_config
from integration.sam2_weights import digest, load_segmenter
from scenes.frame import SceneInfo
from scenes.index import SceneIndex, open_index

LAYOUT: Final = 1
"""Of the folder; counts up when its files change."""
SYNTHETIC: Final = "v1.0-synthetic"


def run_labelling(options: LabelOptions, say: Callable[[str], None]) -> LabelFolder:
    """Label a split.

    Raises:
        UsageError: an unknown split, a precision that the device has not, weights that are missing or of another
            configuration, a folder of other labels.
        DataError: no boxes, a data set that is missing or damaged, or a damaged file of a scene that was labelled.
    """
    lower_kind(options.precision, chosen_device(options.device))
    index = open_index(options.data_root, options.version)
    scenes = _scenes_of(index, options.split)
    boxes = _boxes(options, index, scenes)
    folder = LabelFolder(options.out)
    folder.claim(_made_with(options, index, scenes, boxes))
    pending = [scene for scene in scenes if not folder.has(scene.token)]
    kind = " (the synthetic driving set of this project)" if options.version == SYNTHETIC else ""
    say(f"data: {options.data_root}, {options.version}{kind}, {options.split}: {len(scenes)} scenes")
    if len(pending) < len(scenes):
        say(f"{len(scenes) - len(pending)} scenes are labelled already")
    tasks = [SceneTask(scene, _of_scene(index, scene, boxes)) for scene in pending]
    for number, (name, counts) in enumerate(label_scenes(options, tasks), start=1):
        say(f"scene {number}/{len(pending)} {name}: {_line(counts)}")
    _write_whole(options, folder, index, scenes, say)
    return folder


def table(counts: Counts) -> str:
    """Masks by class, kept and left out, as lines of text."""
    head = f"{'':22s}{'kept':>9s}" + "".join(f"{f'low {reason}':>15s}" for reason in REASONS)
    rows = [
        f"{name:22s}{own.get(KEPT, 0):9d}" + "".join(f"{own.get(reason, 0):15d}" for reason in REASONS)
        for name, own in counts.items()
    ]
    return "\n".join([head, *rows])


def _scenes_of(index: SceneIndex, split: str) -> list[SceneInfo]:
    scenes: list[SceneInfo] = []
    for row in index.rows_in(split).tolist():
        if not scenes or row > scenes[-1].last_row:
            scenes.append(index.scene_of(row))
    if not scenes:
        raise UsageError(f"{index.version} has no scene of the split {split!r}", fix="choose another --split")
    return scenes


def _boxes(options: LabelOptions, index: SceneIndex, scenes: Sequence[SceneInfo]) -> ResultBoxes | None:
    """The boxes of `--results`; `None` where annotations are taken, and there are some."""
    if options.results is None:
        if not any(len(index.frame(row).annotations) for scene in scenes for row in scene.rows.tolist()):
            raise DataError(
                f"{options.data_root}: the split {options.split!r} has no annotated boxes",
                fix="give predicted ones with --results, or choose another --split",
            )
        return None
    samples = [index.token(row) for scene in scenes for row in scene.rows.tolist()]
    found = read_results(options.results, samples, options.min_score)
    if options.tracks and not found.tracked:
        raise UsageError(
            f"--tracks: {options.results} has boxes without a tracking_id",
            fix="give the results of a tracker, or leave out --tracks",
        )
    return found


def _of_scene(index: SceneIndex, scene: SceneInfo, boxes: ResultBoxes | None) -> dict[str, FrameBoxes] | None:
    if boxes is None:
        return None
    return {token: boxes.frames[token] for token in map(index.token, scene.rows.tolist())}


def _made_with(
    options: LabelOptions, index: SceneIndex, scenes: Sequence[SceneInfo], boxes: ResultBoxes | None
) -> dict[str, Any]:
    """What decides the labels; weights are loaded for it, so that wrong ones are found before anything starts."""
    segmenter = load_segmenter(options.config, options.weights, network_size=options.network_size)
    weights = digest(segmenter)
    if options.tracks:
        weights += digest(FilmFollower(options.config, options.weights, torch.device("cpu")).network)
    samples = ",".join(index.token(row) for scene in scenes for row in scene.rows.tolist())
    return {
        "layout": LAYOUT,
        "version": options.version,
        "split": options.split,
        "samples": hashlib.sha256(samples.encode()).hexdigest(),
        "results": None if boxes is None else boxes.sha256,
        "min_score": None if boxes is None else options.min_score,
        "config": find_config(options.config).name,
        "weights": hashlib.sha256(weights).hexdigest(),
        "network_size": list(segmenter.network_size),
        "thresholds": asdict(options.thresholds),
        "tracks": options.tracks,
        "precision": None if options.precision == "fp32" else options.precision,  # as before there was a choice
    }


def _line(counts: Counts) -> str:
    kept = sum(own.get(KEPT, 0) for own in counts.values())
    return f"{kept} masks, {sum(sum(own.values()) for own in counts.values()) - kept} left out"


def _write_whole(
    options: LabelOptions,
    folder: LabelFolder,
    index: SceneIndex,
    scenes: Sequence[SceneInfo],
    say: Callable[[str], None],
) -> None:
    def labels() -> Iterable[SceneLabels]:
        return folder.read(scene.token for scene in scenes)

    info = {"version": options.version, "split": options.split, "sam2": find_config(options.config).stem}
    write_coco(folder.coco, labels, info)
    write_nuimages(folder.nuimages, f"v1.0-{options.split}", labels, index)
    counts = _totals(labels())
    write_page(folder.page, labels, index, counts, options)
    say(table(counts))


def _totals(scenes: Iterable[SceneLabels]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for scene in scenes:
        for name, own in scene.counts.items():
            found.setdefault(name, Counter()).update(own)
    return {name: dict(found[name]) for name in CLASSES if name in found}
