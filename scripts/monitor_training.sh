#!/usr/bin/env bash
# What GPUs and runs are doing, and what limits them. Same as `scripts/run.sh monitor`, with TensorBoard beside it.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TXT'
usage: scripts/monitor_training.sh [RUN | http://HOST:PORT]... [OPTIONS]

  --output-dir DIR     where runs are looked for when none is named        [outputs]
  --interval SECONDS   between looks                                       [1]
  --once               look once and stop
  --json               one JSON object a look
  --tensorboard        start TensorBoard on DIR as well, on 127.0.0.1, while the view is open
  --port PORT          of TensorBoard                                      [6006]
  --help

Exit codes: 0 done, 2 bad option or directory, 1 anything else.
TXT
}

fail() { printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2; exit 2; }

output_dir=outputs
port=6006
tensorboard=false
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --output-dir | --interval | --port) [ $# -ge 2 ] || fail "$1 needs a value" "see scripts/monitor_training.sh --help" ;;
    esac
    case $1 in
        -h | --help) usage && exit 0 ;;
        --tensorboard) tensorboard=true && shift ;;
        --port) port=$2 && shift 2 ;;
        --port=*) port=${1#*=} && shift ;;
        --output-dir) output_dir=$2 && shift 2 ;;
        --output-dir=*) output_dir=${1#*=} && shift ;;
        --interval) arguments+=("$1" "$2") && shift 2 ;;
        *) arguments+=("$1") && shift ;;
    esac
done

if $tensorboard; then
    "$scripts/run.sh" tensorboard --port "$port" --logdir "$output_dir" &
    trap 'kill $! 2>/dev/null || true' EXIT
    printf 'TensorBoard: http://127.0.0.1:%s\n' "$port"
    "$scripts/run.sh" monitor --output-dir "$output_dir" "${arguments[@]}"
else
    exec "$scripts/run.sh" monitor --output-dir "$output_dir" "${arguments[@]}"
fi
