#!/usr/bin/env bash
# Trains on one GPU. Same as `scripts/run.sh train --gpus ID`.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TXT'
usage: scripts/train_gpu.sh [OPTIONS]

  --gpu ID                     which GPU, as nvidia-smi numbers them           [0]
  --config NAME|PATH           recipe                                          [see `plan --help`]
  --resume auto|PATH|none      checkpoint to go on from                        [none]
  --mixed-precision, --no-mixed-precision
  --force-config               accepted; a recipe is always taken as it is written
  --dry-run                    show the plan and the command line, and stop

Every other option of `bevnext-sam2 train` works, too: scripts/run.sh train --help
TXT
}

gpu=0
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --gpu)
            [ $# -ge 2 ] || { printf 'error: --gpu needs a number\n  fix: see scripts/train_gpu.sh --help\n' >&2; exit 2; }
            gpu=$2 && shift 2 ;;
        --gpu=*) gpu=${1#--gpu=} && shift ;;
        --force-config) shift ;;
        *) arguments+=("$1") && shift ;;
    esac
done
exec "$scripts/run.sh" train --gpus "$gpu" "${arguments[@]}"
