#!/usr/bin/env bash
# From nothing to a report: build, check the data, train, evaluate, report. Called again, it goes on where it stopped.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TXT'
usage: scripts/build-and-train.sh [OPTIONS]

  --data-path, --data-root DIR  data set in nuScenes format                 [the synthetic set, made by the training]
  --version NAME                its version                                 [the only one there]
  --config NAME|PATH            recipe                                      [see `plan --help`]
  --epochs N, --batch-size N    as of `train`
  --gpu, --no-gpu               insist on GPUs, or train on the CPU         [GPUs where there are any]
  --output-dir DIR              folder of the run directories               [outputs]
  --run NAME                    run directory in it                         [build-and-train]
  --docker, --native            in containers, or in .venv                  [--docker]
  --skip-build, --skip-validation, --skip-training, --skip-eval
  --fresh                       forget which stages are done (the run itself stays)
  --dry-run                     show the commands, and stop

A stage that ended well is not repeated; the training resumes from its newest checkpoint. Ends with the code of the
stage that failed: 75 means stopped and saved, start me again.
TXT
}
fail() { printf 'error: %s\n  fix: %s\n' "$1" "${2:-see scripts/build-and-train.sh --help}" >&2; exit 2; }

data="" version="" outputs=outputs run=build-and-train where=docker dry_run="" skip=" " fresh="" train=() device=()
while [ $# -gt 0 ]; do
    case $1 in
        --data-path | --data-root | --version | --config | --epochs | --batch-size | --output-dir | --run) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    esac
    case $1 in
        -h | --help) usage && exit 0 ;;
        --data-path | --data-root) data=$2 && shift 2 ;;
        --version) version=$2 && shift 2 ;;
        --config | --epochs | --batch-size) train+=("$1" "$2") && shift 2 ;;
        --output-dir) outputs=$2 && shift 2 ;;
        --run) run=$2 && shift 2 ;;
        --gpu | --no-gpu) device=("$1") && shift ;;
        --docker | --native) where=${1#--} && shift ;;
        --skip-build | --skip-validation | --skip-training | --skip-eval) skip+="${1#--skip-} " && shift ;;
        --fresh) fresh=yes && shift ;;
        --dry-run) dry_run=yes && shift ;;
        *) fail "unknown option $1" ;;
    esac
done

outputs=$(realpath --canonicalize-missing "$outputs")
done_file=$outputs/$run.stages
[ -z "$fresh" ] || [ -n "$dry_run" ] || rm -f "$done_file"
data_options=()
if [ -n "$data" ]; then
    [ -d "$data" ] || fail "--data-path $data: no such folder" "correct the path" # not after the image is built
    data=$(realpath --canonicalize-missing --no-symlinks "$data")
    data_options=(--data-root "$data" ${version:+--version "$version"})
fi

stage() { # name, command...
    local name=$1 line code=0
    shift
    line="$name: $*"
    if [[ $skip = *" $name "* ]]; then
        printf '== %s: left out\n' "$name"
    elif grep -qsxF -- "$line" "$done_file"; then
        printf '== %s: done before\n' "$name"
    else
        printf '== %s\n' "$line"
        [ -z "$dry_run" ] || return 0
        "$@" || code=$?
        if [ "$code" -ne 0 ]; then
            printf '== %s ended with %s\n' "$name" "$code" >&2
            exit "$code"
        fi
        mkdir -p "$outputs" && printf '%s\n' "$line" >>"$done_file"
    fi
}

[ "$where" = native ] || stage build "$scripts/build.sh"
[ -z "$data" ] || stage validation "$scripts/check-dataset.sh" "$data" ${version:+--version "$version"}
stage training "$scripts/run.sh" "--$where" train "${data_options[@]}" "${train[@]}" "${device[@]}" --output-dir "$outputs" --run "$run" --resume auto
place=$outputs
if [ "$where" = docker ]; then # where the services of compose.yaml see the host's folders
    export BEVNEXT_SAM2_OUTPUT_DIR=$outputs BEVNEXT_SAM2_CACHE_DIR=$PWD/data
    place=outputs
fi
stage eval "$scripts/run.sh" "--$where" "eval" --run "$place/$run" "${data_options[@]}"
[[ $skip = *" eval "* ]] || stage report "$scripts/run.sh" "--$where" report --run "$place/$run"
