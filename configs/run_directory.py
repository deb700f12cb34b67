"""Names of the files in a run directory, so that launcher, trainer and reports agree on them."""

from __future__ import annotations

from typing import Final

RECIPE: Final = "recipe.yaml"
PLAN: Final = "plan.json"
LOG: Final = "train.log"
METRICS: Final = "metrics.jsonl"
TENSORBOARD: Final = "tensorboard"
PROFILE: Final = "tensorboard/profile"
"""Traces of chosen steps, one of each process."""
CHECKPOINTS: Final = "checkpoints"
RESULTS: Final = "results"
FIGURES: Final = "figures"
REPORT: Final = "report.html"
OUTCOME: Final = "outcome.json"
"""How the last start of the run ended: torchrun's own exit code is 1 whatever its workers said."""
LAUNCH: Final = "launch.json"
"""How the launcher started the run: command line and data set."""
LOGS: Final = "logs"
"""What torchrun and each process wrote to their error streams, one folder per start."""
BATCH_SIZE: Final = "batch_size.json"
"""What `--batch-size auto` has found."""
STACKS: Final = "stacks"
"""What each process was doing when the run hung."""
STARTS: Final = "starts.json"
"""The launch that started the run last, and how often it did so without a newer checkpoint."""
