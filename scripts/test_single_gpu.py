#!/usr/bin/env python3
"""Does training work on the first GPU? One epoch of the smallest recipe on the synthetic set.

The run directory is removed. Arguments go to `bevnext-sam2 train`, and its exit code is this one's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = [str(Path(__file__).with_name("run.sh")), "train", "--config", "synthetic/bevnext-smoke", "--epochs", "1"]

with tempfile.TemporaryDirectory() as folder:
    sys.exit(subprocess.call([*TRAIN, "--gpus", "0", "--output-dir", folder, *sys.argv[1:]]))
