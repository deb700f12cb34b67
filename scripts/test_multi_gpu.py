#!/usr/bin/env python3
"""Does training work on two GPUs, one process each? One epoch of the smallest recipe on the synthetic set.

The run directory is removed. Arguments go to `bevnext-sam2 train`, and its exit code is this one's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = [str(Path(__file__).with_name("run.sh")), "train", "--config", "synthetic/bevnext-smoke", "--epochs", "1"]

with tempfile.TemporaryDirectory() as folder:
    sys.exit(
        subprocess.call([*TRAIN, "--num-gpus", "2", "--distributed", "ddp", "--output-dir", folder, *sys.argv[1:]])
    )
