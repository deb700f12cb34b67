#!/usr/bin/env bash
# The project's one door: sets up what is missing, then runs a command in the project's own environment or in a container.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

usage() {
    cat <<'TXT'
usage: scripts/run.sh [OPTIONS] MODE [ARGUMENTS]

  quickstart        synthetic set, plan, training on 2 processes, evaluation, pictures, report (no data, no GPU needed)
  test              all checks that need neither GPU nor Docker: format, types, import arrows, tests
  demo              boxes and masks of a sample, drawn and cut out; first makes the set and trains a small SAM 2, where
                    none are there (demo --make-weights)
  sam2              train or measure SAM 2's masks: sam2 train, sam2 eval
  train, eval, infer, report, plan, data, doctor, bench
                    the subcommand of bevnext-sam2 of that name; ARGUMENTS go to it
  train-multi-gpu   train on all GPUs, and nothing else
  train-download    get the data set first (docker-with-data.sh download), then train
  train-s3          train --data-root s3://... (--data-root is needed)
  validate          eval
  validate-nuscenes find every fault of a dataset (data check)
  inference         infer
  test-model        the tests of the networks, and one epoch of the smallest recipe
  dev               JupyterLab with the notebooks, on 127.0.0.1, with a token that it shows [--port 8888]
  tensorboard       curves, pictures and profiles of all runs, on 127.0.0.1 [--port 6006] [--output-dir outputs]
  monitor           what the GPUs and the runs are doing
  shell             a shell inside the environment
  build-container, build-fast, build-full
                    the image (scripts/build.sh); data sets are never baked in

  --gpu, --no-gpu   insist on a GPU, or do without (train, eval, infer, demo, shell, dev)
  --native          in the environment .venv of the checkout, which the first call sets up    [default]
  --docker          in a container; `train` makes its plan here first
  --dry-run         show what would run, and stop (train: with its plan)
  --torch BUILD     torch build for the set-up: default, cpu, cu126, cu128, ... (see scripts/set_up.sh --help)
  --python PROGRAM  interpreter for the set-up, Python 3.10 to 3.12
TXT
}
fail() { printf 'error: %s\n  fix: %s\n' "$1" "${2:-see scripts/run.sh --help}" >&2; exit 2; }

set_up=()
where=native
dry_run=
while [ $# -gt 0 ]; do
    case $1 in
        --torch | --python) [ $# -ge 2 ] || fail "$1 needs a value"
            set_up+=("$1" "$2") && shift 2 ;;
        --native | --docker) where=${1#--} && shift ;;
        --dry-run) dry_run=yes && shift ;;
        *) break ;;
    esac
done
mode=${1:-}
[ $# -gt 0 ] && shift

# The old names, and where the work is done may also stand behind the mode.
arguments=()
for argument in "$@"; do
    case $argument in
        --native | --docker) where=${argument#--} ;;
        --dry-run) dry_run=yes ;;
        *) arguments+=("$argument") ;;
    esac
done
device= # other modes know --gpu and --no-gpu themselves
case $mode in
    demo | eval | validate | infer | inference | shell | dev)
        for i in "${!arguments[@]}"; do
            case ${arguments[i]} in
                --gpu) device=gpu && unset "arguments[i]" ;;
                --no-gpu) device=cpu && unset "arguments[i]" ;;
            esac
        done ;;
esac
case $device$mode in
    "$mode") ;;
    *shell | *dev) [ "$device$where" != cpunative ] || export CUDA_VISIBLE_DEVICES="" ;;
    *) arguments+=("--device=${device/gpu/cuda}") ;;
esac
case $mode in
    -h | --help | help) usage && exit 0 ;;
    "") usage >&2 && exit 2 ;;
    train-multi-gpu) mode=train && arguments=(--device cuda "${arguments[@]}") ;;
    train-s3) mode=train && [[ " ${arguments[*]}" = *" --data-"*s3://* ]] || fail "train-s3 needs a data set on S3" "add --data-root s3://BUCKET/FOLDER" ;;
    train-download) exec "$root/scripts/docker-with-data.sh" download "--$where" ${dry_run:+--dry-run} "${arguments[@]}" -- train --resume auto ;;
    validate) mode="eval" ;;
    validate-nuscenes) mode=data && arguments=(check "${arguments[@]}") ;;
    inference) mode=infer ;;
    demo) arguments=(--make-weights "${arguments[@]}") ;;
    build-full) printf 'note: data sets are mounted, never baked into an image: they are large, and not ours to pass on\n' >&2 ;;&
    build-container | build-fast | build-full) exec "$root/scripts/build.sh" ${dry_run:+--dry-run} "${arguments[@]}" ;;
    quickstart | sam2 | test | train | eval | infer | report | plan | data | doctor | bench | test-model | dev | tensorboard | monitor | shell) ;;
    *) fail "unknown mode '$mode'" ;;
esac

run() { # show it, or become it
    if [ -n "$dry_run" ]; then
        printf '%q ' "$@" && printf '\n'
    else
        exec "$@"
    fi
}
set_up() { [ -n "$dry_run" ] && [ "$mode" != train ] || "$root/scripts/set_up.sh" --venv "$root/.venv" "${set_up[@]}" "$@"; }

mount_data() { # a data set of the host is mounted at /data
    local i
    for i in "${!arguments[@]}"; do
        case ${arguments[i]} in
            --data-root | --data-path)
                [[ ${arguments[i + 1]:-} != s3://* ]] || continue
                BEVNEXT_SAM2_DATA_ROOT=$(realpath --canonicalize-missing --no-symlinks "${arguments[i + 1]:-}")
                export BEVNEXT_SAM2_DATA_ROOT
                arguments[i + 1]=/data ;;
        esac
    done
}

# The full environment where it is there, else the few packages that plans and downloads need: torch is in the image.
set_up_launcher() {
    [ -z "$dry_run" ] || [ "$mode" = train ] || return 0
    if [ ! -e "$root/.venv/bevnext_sam2_set_up" ]; then
        "$root/scripts/set_up.sh" --launcher --venv "$root/.venv-launcher" "${set_up[@]}"
        PATH="$root/.venv-launcher/bin:$PATH"
    fi
}

in_container() {
    local compose=(docker compose --project-directory "$root")
    [ -z "$device" ] || export BEVNEXT_SAM2_DEVICE=$device
    if [ "$(id -u)" != 0 ]; then
        export BEVNEXT_SAM2_UID=${BEVNEXT_SAM2_UID:-$(id -u)} BEVNEXT_SAM2_GID=${BEVNEXT_SAM2_GID:-$(id -g)}
    fi
    case $mode in
        train)
            set_up_launcher
            exec bevnext-sam2 train --docker ${dry_run:+--dry-run} "${arguments[@]}" ;;
        test | test-model) fail "$mode runs in the checkout, not in an image" "leave out --docker" ;;
        plan) fail "a plan is made on the host" "leave out --docker; \`train --docker --dry-run\` shows the container, too" ;;
        dev)
            port_and_rest ""
            [ -z "$port" ] || compose=(env BEVNEXT_SAM2_JUPYTER_PORT="$port" "${compose[@]}")
            run "${compose[@]}" up "${rest[@]}" dev ;;
        tensorboard)
            port_and_rest ""
            [ -z "$port" ] || compose=(env BEVNEXT_SAM2_TENSORBOARD_PORT="$port" "${compose[@]}")
            [ -z "$outputs" ] || compose=(env BEVNEXT_SAM2_OUTPUT_DIR="$(realpath --canonicalize-missing "$outputs")" "${compose[@]}")
            run "${compose[@]}" up "${rest[@]}" tensorboard ;;
        shell) run "${compose[@]}" run --rm shell "${arguments[@]}" ;;
        *)
            mount_data
            run "${compose[@]}" run --rm --no-TTY bevnext-sam2 "$mode" "${arguments[@]}" ;;
    esac
}

port_and_rest() { # default port: sets port, outputs (empty where not named) and rest from the arguments
    port=$1 outputs="" rest=()
    set -- "${arguments[@]}"
    while [ $# -gt 0 ]; do
        case $1 in
            --port) [ $# -ge 2 ] || fail "--port needs a number"
                port=$2 && shift 2 ;;
            --output-dir) [ $# -ge 2 ] || fail "--output-dir needs a folder"
                outputs=$2 && shift 2 ;;
            --port=*) port=${1#*=} && shift ;;
            --output-dir=*) outputs=${1#*=} && shift ;;
            --jupyter) shift ;;
            *) rest+=("$1") && shift ;;
        esac
    done
    [[ $port =~ ^[0-9]*$ ]] || fail "--port $port is not a number"
}

export PATH="$root/.venv/bin:$PATH"
if [ "$mode ${arguments[0]:-}" = "data fetch" ]; then # always here: containers read data sets, and write none
    set_up_launcher
    run bevnext-sam2 data "${arguments[@]}"
    exit
fi
if [ "$where" = docker ]; then
    in_container
    exit
fi
case $mode in
    dev) set_up --notebook ;;
    *) set_up ;;
esac
case $mode in
    train) exec bevnext-sam2 train ${dry_run:+--dry-run} "${arguments[@]}" ;;
    test) cd "$root" && run "$root/scripts/check.sh" "${arguments[@]}" ;;
    test-model)
        cd "$root"
        [ -n "$dry_run" ] || "$root/scripts/check.sh" tests/detectors
        run python "$root/scripts/test_single_gpu.py" "${arguments[@]}" ;;
    shell) cd "$root" && run "${SHELL:-bash}" "${arguments[@]}" ;;
    dev)
        port_and_rest 8888
        # Jupyter lets root in only when told so: in a container of a cluster there is nobody else.
        [ "$(id -u)" != 0 ] || rest+=(--allow-root)
        # A token on the command line wins over a configuration that has emptied it.
        token=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
        # Jupyter hides a token that it is given: the address with it is shown here.
        [ -n "$dry_run" ] || printf 'JupyterLab: http://127.0.0.1:%s/lab?token=%s\n' "$port" "$token"
        run jupyter lab --no-browser --ip=127.0.0.1 --port="$port" --ServerApp.root_dir="$root/notebooks" \
            --IdentityProvider.token="$token" "${rest[@]}" ;;
    tensorboard)
        port_and_rest 6006
        run tensorboard --host 127.0.0.1 --port "$port" --logdir "${outputs:-$PWD/outputs}" "${rest[@]}" ;;
    *) run bevnext-sam2 "$mode" "${arguments[@]}" ;;
esac
