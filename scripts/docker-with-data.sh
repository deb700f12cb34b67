#!/usr/bin/env bash
# Brings a data set into a container in one of five ways, and runs a command there.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$scripts")

usage() {
    cat <<'TXT'
usage: scripts/docker-with-data.sh STRATEGY [OPTIONS] [-- COMMAND ARGUMENTS]

  volume     a folder of the host, mounted read-only
  symlink    the same, for a folder whose entries are links: what they point to is mounted, too
  shared     a Docker volume, filled from --data-path where it is empty; all containers share it
  download   archives are fetched into --data-path, verified and unpacked (`data fetch`), then as `volume`
  s3         s3://BUCKET/FOLDER, read through a local cache; credentials come from AWS_* of this shell

  --data-path, --data-root PATH   the data set                  [download: data/nuscenes]
  --url LINK[#md5=...]            download: an archive (.tgz, .tar), repeatable   [the mini split]
  --list FILE                     download: links in a file, one a line
  --accept-licence                download: you have accepted the terms of the data set (nuscenes.org/terms-of-use)
  --container NAME                name of the container
  --image NAME                    [bevnext-sam2:0.1.0]
  --gpu, --no-gpu                 [what .env says]
  --jupyter [--port N]            JupyterLab instead of a command               [port 8888]
  --native                        no container: only the data set is brought, and the command runs in .venv
  --dry-run                       show the commands, and stop

COMMAND is one of bevnext-sam2, such as `train`, `eval` or `data check`, and gets --data-root; without one a shell is
opened.
TXT
}
fail() { printf 'error: %s\n  fix: %s\n' "$1" "${2:-see scripts/docker-with-data.sh --help}" >&2; exit 2; }
run() { if [ -n "$dry_run" ]; then printf '%q ' "$@" && printf '\n'; else "$@"; fi; }

case ${1:-} in
    -h | --help) usage && exit 0 ;;
    volume | symlink | shared | download | s3) strategy=$1 && shift ;;
    *) fail "unknown strategy '${1:-}'" "use volume, symlink, shared, download or s3" ;;
esac
data="" container="" dry_run="" jupyter="" where=docker accepted="" port="" links=() device=() passed=() command=()
while [ $# -gt 0 ]; do
    case $1 in
        --data-path | --data-root | --url | --list | --container | --image | --port) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    esac
    case $1 in
        -h | --help) usage && exit 0 ;;
        --data-path | --data-root) data=$2 && shift 2 ;;
        --url) links+=("$2") && shift 2 ;;
        --list) links+=(--list "$2") && shift 2 ;;
        --accept-licence) accepted=yes && shift ;;
        --container) container=$2 && shift 2 ;;
        --image) export BEVNEXT_SAM2_IMAGE=$2 && shift 2 ;;
        --gpu) export BEVNEXT_SAM2_DEVICE=gpu && device=(--gpu) && shift ;;
        --no-gpu) export BEVNEXT_SAM2_DEVICE=cpu && device=(--no-gpu) && shift ;;
        --jupyter) jupyter=yes && shift ;;
        --port) port=$2 && shift 2 ;;
        --native | --docker) where=${1#--} && shift ;;
        --dry-run) dry_run=yes && shift ;;
        --) shift && command=("$@") && break ;;
        *) passed+=("$1") && shift ;;
    esac
done

[ "$where" = docker ] || [ -z "$container$jupyter" ] || fail "--container and --jupyter are of a container, and --native uses none"
[ -z "$port" ] || [ -n "$jupyter" ] || fail "--port is that of JupyterLab" "add --jupyter, or leave it out"

download() {
    if [ ${#links[@]} -eq 0 ]; then
        links=(https://www.nuscenes.org/data/v1.0-mini.tgz)
    fi
    [ -n "$accepted" ] || fail "the data set has a licence of its own (nuScenes: not for commercial use)" \
        "read https://www.nuscenes.org/terms-of-use, then add --accept-licence"
    run "$scripts/run.sh" data fetch "${links[@]}" --data-root "$data" --accept-licence
}

mounts=()
case $strategy in
    s3) [[ $data = s3://* ]] || fail "--data-path '$data' is not of the form s3://BUCKET/FOLDER" ;;
    download) data=${data:-data/nuscenes} && download ;;
    *) [ -d "$data" ] || fail "--data-path '$data': no such folder" ;;
esac
if [ "$strategy" != s3 ]; then
    data=$(realpath --canonicalize-missing --no-symlinks "$data")
fi
if [ "$strategy" = symlink ]; then
    while IFS= read -r link; do # Docker would make a folder that is not there
        target=$(realpath --canonicalize-existing "$link" 2>/dev/null) || fail "$link leads nowhere" "correct the link, or remove it"
        mounts+=(--volume "$target:$target:ro")
    done < <(find "$data" -maxdepth 1 -type l | sort)
fi

# What runs on the host, and `train`, whose plan is made there, need the path of the host.
name=${command[0]:-}
if [ "$where" = native ]; then
    [ -n "$name" ] || fail "--native needs a command" "add -- train, or leave out --native"
    run "$scripts/run.sh" "${command[@]}" --data-root "$data" "${device[@]}" "${passed[@]}"
    exit
fi
if [ "$name" = train ] && [ "$strategy" != shared ]; then
    run "$scripts/run.sh" --docker train --data-root "$data" ${container:+--container-name "$container"} \
        ${BEVNEXT_SAM2_IMAGE:+--image "$BEVNEXT_SAM2_IMAGE"} "${device[@]}" "${passed[@]}" "${command[@]:1}"
    exit
fi

inside=/data
case $strategy in
    s3) inside=$data && mounts+=(--env AWS_ACCESS_KEY_ID --env AWS_SECRET_ACCESS_KEY --env AWS_SESSION_TOKEN
        --env AWS_ENDPOINT_URL --env AWS_DEFAULT_REGION) ;;
    shared)
        volume=bevnext-sam2-data inside=/shared image=${BEVNEXT_SAM2_IMAGE:-bevnext-sam2:0.1.0}
        # The copy alone is made by root: a new volume belongs to it.
        run docker run --rm --user 0:0 --network none --entrypoint sh --volume "$data:/from:ro" --volume "$volume:/to" \
            "$image" -c '[ -n "$(ls -A /to)" ] || cp -a /from/. /to'
        mounts+=(--volume "$volume:$inside:ro") ;;
    *) export BEVNEXT_SAM2_DATA_ROOT=$data ;;
esac
if [ "$(id -u)" != 0 ]; then # what is written belongs to whoever calls
    export BEVNEXT_SAM2_UID=${BEVNEXT_SAM2_UID:-$(id -u)} BEVNEXT_SAM2_GID=${BEVNEXT_SAM2_GID:-$(id -g)}
fi
compose=(docker compose --project-directory "$root")
if [ -n "$jupyter" ]; then
    [ -z "$port" ] || export BEVNEXT_SAM2_JUPYTER_PORT=$port
    run "${compose[@]}" run --rm --service-ports ${container:+--name "$container"} "${mounts[@]}" dev
elif [ -z "$name" ]; then
    run "${compose[@]}" run --rm ${container:+--name "$container"} "${mounts[@]}" shell
else
    # the options last: some commands are two words, such as `data check`
    run "${compose[@]}" run --rm --no-TTY ${container:+--name "$container"} "${mounts[@]}" bevnext-sam2 \
        "${command[@]}" --data-root "$inside" "${passed[@]}"
fi
