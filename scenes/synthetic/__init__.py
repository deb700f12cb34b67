"""The synthetic driving set: a small world rendered into the nuScenes v1.0 layout, with exact labels beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scenes.synthetic.options import SyntheticSummary


def make_synthetic(
    root: Path,
    *,
    scenes: int = 10,
    samples_per_scene: int = 20,
    image_size: tuple[int, int] = (900, 1600),
    seed: int = 0,
    workers: int | None = None,
    lidar_sweeps: bool = True,
    camera_sweeps: bool = False,
    reach: float = 60.0,
    overwrite: bool = False,
    progress: bool = True,
) -> SyntheticSummary:
    """Make (or find) the set in `root`; the same options give the same bytes, whatever the number of `workers`.

    `image_size` is (height, width) in pixels; intrinsics scale with it. The road is populated from `reach` metres
    before the ego's first position to `reach` metres behind its last. `workers` defaults to the usable cores.
    The set appears in `root` only when it is complete; a set with the same options is left as it is.
    Raises `UsageError` for impossible options, for a `root` that holds another set (unless `overwrite`) or other
    files, and for too small a disk.
    """
    from scenes.synthetic.driver import make  # here: it needs OpenCV, `data synth --help` does not
    from scenes.synthetic.options import SyntheticOptions

    options = SyntheticOptions(scenes, samples_per_scene, image_size, seed, lidar_sweeps, camera_sweeps, reach)
    return make(Path(root), options, workers, overwrite, progress)
