"""`plan`: what `train` with the same options would do."""

from __future__ import annotations

import click

from launcher.options import TrainRequest, train_options


@click.command()
@train_options
def plan(request: TrainRequest) -> None:
    """Show what `train` with these options would do, and stop: every value and where it comes from.

    The plan keeps the recipe's optimiser step: devices x batch per device x accumulation is its effective batch
    exactly, or an error names the nearest choices. Nothing is started and nothing is written.

    \b
    bevnext-sam2 plan
    bevnext-sam2 plan --config bevnext/bevnext-stage1 --data-root /data/nuscenes --num-gpus 8
    bevnext-sam2 plan --batch-size 2 --gradient-accumulation 8 --lr-scaling sqrt --json

    Exit codes: 0 done, 2 bad option or recipe, 3 bad data, 1 anything else.
    """
    from launcher.preview import preview

    preview(request)
