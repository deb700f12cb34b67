"""`bevnext-sam2 data synth`: make the synthetic driving set."""

from __future__ import annotations

from pathlib import Path

import click

from configs.image_size import ImageSize
from scenes.synthetic import make_synthetic


@click.command("synth")
@click.option("--out", type=click.Path(path_type=Path), default=Path("data/synthetic"), show_default=True,
              help="Folder of the set.")  # fmt: skip
@click.option("--scenes", type=int, default=10, show_default=True, help="Number of scenes; the last fifth is held out.")
@click.option("--samples", type=int, default=20, show_default=True, help="Key frames per scene, two a second.")
@click.option("--image-size", type=ImageSize(), default="1600x900", show_default=True, metavar="WxH",
              help="Size of the camera images.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option("--workers", type=click.IntRange(min=1), default=None, help="Processes; by default one per usable core.")
@click.option("--lidar-sweeps/--no-lidar-sweeps", default=True, show_default=True,
              help="Also write the LiDAR sweeps between key frames (20 a second; most of the set's size).")  # fmt: skip
@click.option("--camera-sweeps", is_flag=True, help="Also write the images between key frames (12 a second).")
@click.option("--reach", type=float, default=60.0, show_default=True, metavar="METRES",
              help="Road before the first and after the last ego position that is populated.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a synthetic set that was made with other options.")
def synth(
    out: Path,
    scenes: int,
    samples: int,
    image_size: tuple[int, int],
    seed: int,
    workers: int | None,
    lidar_sweeps: bool,
    camera_sweeps: bool,
    reach: float,
    overwrite: bool,
) -> None:
    """Make a synthetic driving set in the nuScenes v1.0 layout, with instance masks and LiDAR point labels."""
    click.echo(f"Synthetic data (nothing here was recorded): {scenes} scenes of {samples} samples into {out}")
    summary = make_synthetic(
        out, scenes=scenes, samples_per_scene=samples, image_size=image_size, seed=seed, workers=workers,
        lidar_sweeps=lidar_sweeps, camera_sweeps=camera_sweeps, reach=reach, overwrite=overwrite,
    )  # fmt: skip
    if summary.reused:
        click.echo(f"{summary.root} holds this set already ({summary.annotations} boxes); nothing was made.")
        return
    rate = summary.images / max(summary.seconds, 1e-9)
    click.echo(
        f"{summary.root}: {summary.version}, {summary.samples} samples, {summary.images} images, "
        f"{summary.annotations} boxes in {summary.seconds:.0f} s ({rate:.1f} images/s)"
    )
    for split, names in summary.splits.items():
        click.echo(f"  {split}: {len(names)} scenes ({names[0]} to {names[-1]})")
    click.echo("  labels/: instance masks and LiDAR point labels; index it with `bevnext-sam2 data index`")
