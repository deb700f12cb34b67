"""`quickstart`: the whole job, each step a command that the user could have typed."""

from __future__ import annotations

from pathlib import Path

import click

from configs.outlived_reader import readers_outlived

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--output-dir", type=FOLDER, default=Path("outputs"), show_default=True, metavar="DIR")
@click.option(
    "--data-root", "--data-path", type=FOLDER, default=Path("data/synthetic"), show_default=True, metavar="DIR"
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the data and the training.")
@click.option(
    "--fresh", is_flag=True, help="Do every step again; replaces the set and the run of an earlier quickstart."
)
@click.option(
    "--masks",
    is_flag=True,
    help="Draw masks, too: where no published weights of SAM 2 were fetched, a small one is trained first (about 9 "
    "minutes on two cores). Without it, masks are drawn where weights are already.",
)
def quickstart(output_dir: Path, data_root: Path, seed: int, fresh: bool, masks: bool) -> int:
    """The whole job on synthetic data, from nothing: data, index, plan, training, metrics, pictures, report.

    Training runs on two processes of the CPU, or on all GPUs. Every step shows its command. Run again, it goes on
    where it stopped and does only what is not done yet.

    Ctrl-C or SIGTERM ends the step that runs, with all its processes; a training saves first, another step is done
    again.

    Exit codes: 0 done, 75 stopped as asked (start it again), else the code of the step that failed.
    """
    from launcher.dataset import absolute
    from launcher.quickstart import run_quickstart

    with readers_outlived():
        return run_quickstart(absolute(output_dir), absolute(data_root), seed=seed, fresh=fresh, masks=masks)
