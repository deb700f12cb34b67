#!/usr/bin/env bash
# Trains on this machine, one process per GPU (or on the CPU where there is none). Same as `scripts/run.sh train`.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TXT'
usage: scripts/launch_distributed_training.sh [OPTIONS]

  --num-gpus N                 the first N visible GPUs                        [all]
  --batch-size N               samples of a micro-batch on one device          [from the plan]
  --epochs N                                                                   [the recipe's]
  --data-root, --data-path DIR data set in nuScenes format                     [the synthetic set]
  --output-dir DIR             folder of the run directories                   [outputs]
  --config NAME|PATH           recipe                                          [see `plan --help`]
  --resume auto|PATH|none      checkpoint to go on from                        [none]
  --gradient-accumulation N    micro-batches of an optimiser step              [from the plan]
  --lr-scaling linear|sqrt|none
  --mixed-precision, --no-mixed-precision
  --basic-training             the trainer under its other name, train_bevnext_sam2.py
  --dry-run                    show the plan and the command line, and stop

Every other option of `bevnext-sam2 train` works, too: scripts/run.sh train --help
TXT
}

for argument in "$@"; do
    case $argument in -h | --help) usage && exit 0 ;; esac
done
exec "$scripts/run.sh" train "$@"
