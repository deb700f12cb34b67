#!/usr/bin/env bash
# Finds every fault of a data set. Same as `scripts/run.sh data check`.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TXT'
usage: scripts/check-dataset.sh [PATH] [OPTIONS]

  PATH, --data-root PATH, --data-path PATH   root of a data set in nuScenes format    [data/synthetic]
  --version NAME|auto                        v1.0-mini, v1.0-trainval, ...            [auto: the only one there]
  --recipe NAME                              look only at what this recipe reads
  --deep                                     decode every image and point cloud
  --json                                     the report as JSON

Exit codes: 0 no fault, 1 faults were found, 2 wrong option or no such data root.
TXT
}

fail() { printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2; exit 2; }

path=data/synthetic
version=auto
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --data-root | --data-path | --version | --recipe) [ $# -ge 2 ] || fail "$1 needs a value" "see scripts/check-dataset.sh --help" ;;
    esac
    case $1 in
        --data-root | --data-path) path=$2 && shift 2 ;;
        --data-root=* | --data-path=*) path=${1#*=} && shift ;;
        --version) version=$2 && shift 2 ;;
        --version=*) version=${1#*=} && shift ;;
        --recipe) arguments+=("$1" "$2") && shift 2 ;;
        -*) arguments+=("$1") && shift ;;
        *) path=$1 && shift ;;
    esac
done

if [ "$version" = auto ]; then
    [[ $path != s3://* ]] || fail "the versions of $path are not looked up" "name one with --version"
    [ -d "$path" ] || fail "$path: no such folder" "correct the path"
    shopt -s nullglob
    versions=("$path"/v1.0-*/)
    [ ${#versions[@]} -eq 1 ] || fail "$path holds ${#versions[@]} versions (folders v1.0-*)" "name one with --version, or correct the path"
    version=$(basename "${versions[0]}")
fi
exec "$scripts/run.sh" data check --data-root "$path" --version "$version" "${arguments[@]}"
