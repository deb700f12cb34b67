"""Train a recipe, by default the small one on the synthetic set: one process of it, started by torchrun (or alone).

    torchrun --standalone --nproc-per-node 2 training/train_bevnext_sam2.py

The options are those of `train_bevnext_sam2_nuscenes.py`; only the defaults differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by path: become a module of our package, not of the `training` that `sam2` installs
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "training"

from .command import entry_command, run_as_script

main = entry_command(config="synthetic/bevnext-tiny", data_root="data/synthetic")

if __name__ == "__main__":
    run_as_script(main)
