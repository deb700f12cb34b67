#!/usr/bin/env bash
# Trains in a container, one process per GPU. Same as `scripts/run.sh --docker train`.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<TXT
usage: scripts/$(basename "$0") [OPTIONS]

  --num-gpus N, --gpus LIST    the first N visible GPUs, or these: 0,2         [all]
  --no-gpu                     train on the CPU                                [what .env says]
  --distributed auto|ddp|dp    one process per device always; dp is an old name
  --batch-size N|auto          samples of a micro-batch on one device          [from the plan]
  --epochs N                                                                   [the recipe's]
  --data-root, --data-path DIR data set in nuScenes format, mounted read-only  [the synthetic set]
  --output-dir DIR             folder of the run directories                   [outputs]
  --config NAME|PATH           recipe                                          [see \`plan --help\`]
  --resume auto|PATH|none      checkpoint to go on from                        [none]
  --gradient-accumulation N    micro-batches of an optimiser step              [from the plan]
  --lr-scaling linear|sqrt|none
  --mixed-precision, --no-mixed-precision
  --basic-training             the trainer under its other name, train_bevnext_sam2.py
  --docker-image, --image NAME                                                 [bevnext-sam2:0.1.0]
  --container-name NAME        a name in use is an error: nothing is replaced  [of the run and the time]
  --master-port, --port N      port on which the processes meet                [a free one]
  --nnodes N, --node-rank N, --rdzv-endpoint HOST:PORT, --network NAME
                               several containers or machines: the same command for each
  --detach                     leave the container training and return
  --dry-run                    show the plan and the exact commands, and stop

Every other option of \`bevnext-sam2 train\` works, too. On a machine without GPUs the first call writes
BEVNEXT_SAM2_DEVICE=cpu into .env, says so, and --num-gpus N then means N processes on the CPU.
TXT
}

arguments=("$@") no_gpu="" dry_run=""
for argument in "$@"; do
    case $argument in
        -h | --help) usage && exit 0 ;;
        --dry-run) dry_run=yes ;;
        --no-gpu) no_gpu=yes ;;
    esac
done
env_file=$scripts/../.env
named_in() { sed -En "s/^BEVNEXT_SAM2_DEVICE=[\"']?([^\"']*).*/\1/p" "$1" 2>/dev/null | tail -1 || true; } # there may be no such file

device=${BEVNEXT_SAM2_DEVICE:-$(named_in "$env_file")}
if [ -z "$device$no_gpu" ] && [ -n "$dry_run" ]; then # what would be written
    device=$("$scripts/setup_gpu.sh" --write-env --dry-run --quiet | named_in -)
elif [ -z "$device$no_gpu" ]; then
    "$scripts/setup_gpu.sh" --write-env --quiet
    device=$(named_in "$env_file")
fi
if [ "$device" = cpu ] && [ -z "$no_gpu" ]; then
    printf 'note: BEVNEXT_SAM2_DEVICE=cpu (.env): training on the CPU, --num-gpus means processes there\n' >&2
    arguments=(--no-gpu)
    for argument in "$@"; do
        arguments+=("${argument/#--num-gpus/--num-processes}")
    done
fi
exec "$scripts/run.sh" --docker train "${arguments[@]}"
