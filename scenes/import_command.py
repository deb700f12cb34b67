"""`bevnext-sam2 data import`."""

from __future__ import annotations

from pathlib import Path

import click

from configs.image_size import ImageSize
from scenes.command_options import DEFAULT_ROOT, index_dir_option
from scenes.index import open_index
from scenes.index_command import show_index
from scenes.info_pickles import NUSCENES_IMAGE, import_infos


@click.command("import")
@click.option(
    "--info",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    metavar="FILE",
    help="Info pickle of BEVDet (bevdetv2-nuscenes_infos_*.pkl), mmdetection3d (nuscenes_infos_*.pkl) or SparseBEV "
    "(nuscenes_infos_*_sweep.pkl). Give it once per file; each becomes a split.",
)
@click.option(
    "--data-root",
    "--data-path",
    "data_root",
    type=click.Path(path_type=Path),
    default=DEFAULT_ROOT,
    show_default=True,
    metavar="DIR",
    help="Folder that holds samples/ and sweeps/.",
)
@click.option("--version", help="Name of the version to make. Default: the one that the files name.")
@index_dir_option
@click.option(
    "--image-size",
    type=ImageSize(),
    default="{1}x{0}".format(*NUSCENES_IMAGE),
    show_default=True,
    metavar="WxH",
    help="Size of the camera images, which info files do not hold.",
)
def import_infos_command(
    files: tuple[Path, ...],
    data_root: Path,
    version: str | None,
    index_dir: Path | None,
    image_size: tuple[int, int],
) -> None:
    """Make an index from info pickles, without executing them.

    A file that asks for anything but plain containers and arrays is refused. Info files hold less than the tables
    (no instances, attributes or visibility): where you have the tables, use `data index`.
    """
    named, directory = import_infos(files, data_root, version, index_dir, image_size)
    show_index(open_index(data_root, named, index_dir), directory)
