"""Train a recipe on nuScenes: one process of it, started by torchrun (or alone).

    torchrun --standalone --nproc-per-node 2 training/train_bevnext_sam2_nuscenes.py --data-root data/nuscenes

`bevnext-sam2 train` starts this with a run directory that holds the plan. Started by hand, the plan is made here.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by path: become a module of our package, not of the `training` that `sam2` installs
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "training"

from .command import entry_command, run_as_script

main = entry_command(config="bevnext/bevnext-stage1", data_root="data/nuscenes")

if __name__ == "__main__":
    run_as_script(main)
