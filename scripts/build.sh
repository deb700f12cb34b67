#!/usr/bin/env bash
# Builds the image of this checkout, wherever it is called from. Images that are there stay there.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TXT'
usage: scripts/build.sh [OPTIONS]

  --target NAME      runtime, dev (JupyterLab, py-spy), openmmlab, ascend    [runtime]
  --tag NAME         name of the image               [bevnext-sam2:0.1.0, bevnext-sam2-TARGET:0.1.0 for the others]
  --gpu, --cpu       torch with CUDA on a CUDA base, or torch for the CPU       [--gpu]
  --torch BUILD      torch build: default, cpu, cu126, cu128, ...               [default]
  --base-image NAME  any Debian or Ubuntu with Python 3.10 to 3.12              [see docker/Dockerfile]
  --no-cache         every layer anew
  --no-test          leave out the trial of the finished image
  --dry-run          show the command, and stop

BEVNEXT_SAM2_TORCH and BEVNEXT_SAM2_BASE_IMAGE, of the environment or of .env, stand in for --torch and --base-image.
TXT
}
fail() { printf 'error: %s\n  fix: %s\n' "$1" "${2:-see scripts/build.sh --help}" >&2; exit 2; }

setting() { # name: its value in the environment, else in .env, as Compose takes it
    [ -n "${!1:-}" ] && printf '%s' "${!1}" && return
    [ ! -f .env ] || sed -En "s/^$1=[\"']?([^\"']*).*/\1/p" .env | tail -1
}

target=runtime tag="" torch=$(setting BEVNEXT_SAM2_TORCH) base=$(setting BEVNEXT_SAM2_BASE_IMAGE) dry_run="" test=yes
flags=()
while [ $# -gt 0 ]; do
    case $1 in
        --target | --tag | --torch | --base-image) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    esac
    case $1 in
        -h | --help) usage && exit 0 ;;
        --target) target=$2 && shift 2 ;;
        --tag) tag=$2 && shift 2 ;;
        --torch) torch=$2 && shift 2 ;;
        --base-image) base=$2 && shift 2 ;;
        --gpu) torch=default && shift ;;
        --cpu | --no-gpu) torch=cpu && shift ;;
        --no-cache) flags+=(--no-cache) && shift ;;
        --no-test) test="" && shift ;;
        --dry-run) dry_run=yes && shift ;;
        *) fail "unknown option $1" ;;
    esac
done
case $target in
    runtime) tag=${tag:-bevnext-sam2:0.1.0} ;;
    dev | openmmlab | ascend) tag=${tag:-bevnext-sam2-$target:0.1.0} ;;
    *) fail "unknown target '$target'" "use runtime, dev, openmmlab or ascend" ;;
esac
user=$(id -u) group=$(id -g)
[ "$user" != 0 ] || user=1000 group=1000 # containers do not run as root
command=(docker build --file docker/Dockerfile --target "$target" --tag "$tag" --build-arg "TORCH=${torch:-default}"
    --build-arg "UID=$user" --build-arg "GID=$group" --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
    ${base:+--build-arg "BASE_IMAGE=$base"} "${flags[@]}" .)

printf '%q ' "${command[@]}" && printf '\n'
[ -z "$dry_run" ] || exit 0
command -v docker >/dev/null || fail "there is no \`docker\` here" "install Docker with Compose and buildx"
DOCKER_BUILDKIT=1 "${command[@]}"
[ -z "$test" ] || docker run --rm --read-only --tmpfs /tmp "$tag" bevnext-sam2 plan --config synthetic/bevnext-smoke --device cpu >/dev/null
printf 'built %s\n' "$tag"
