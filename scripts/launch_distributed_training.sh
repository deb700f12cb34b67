#!/usr/bin/env bash
# Trains on this machine, one process per GPU (or on the CPU where there is none). Same as `scripts/run.sh train`.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TXT'
usage: scripts/launch_distributed_training.sh [OPTIONS]

  --num-gpus N, --gpus LIST    the first N visible GPUs, or these: 0,2         [all]
  --gpu, --no-gpu              insist on GPUs, or train on the CPU             [GPUs where there are any]
  --distributed auto|ddp|dp    one process per device always; dp is an old name
  --batch-size N|auto          samples of a micro-batch on one device          [from the plan]
  --epochs N                                                                   [the recipe's]
  --data-root, --data-path DIR data set in nuScenes format                     [the synthetic set]
  --output-dir DIR             folder of the run directories                   [outputs]
  --config NAME|PATH           recipe                                          [see `plan --help`]
  --resume auto|PATH|none      checkpoint to go on from                        [none]
  --gradient-accumulation N    micro-batches of an optimiser step              [from the plan]
  --lr-scaling linear|sqrt|none
  --mixed-precision, --no-mixed-precision
  --master-port, --port N      port on which the processes meet                [a free one]
  --nnodes N|MIN:MAX, --node-rank N, --rdzv-endpoint HOST:PORT
                               several machines: the same command on each
  --basic-training             the trainer under its other name, train_bevnext_sam2.py
  --dry-run                    show the plan and the command line, and stop

Every other option of `bevnext-sam2 train` works, too: scripts/run.sh train --help
TXT
}

for argument in "$@"; do
    case $argument in -h | --help) usage && exit 0 ;; esac
done
exec "$scripts/run.sh" train "$@"
