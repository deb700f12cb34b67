# shellcheck shell=bash
# Sourced by the container lanes: an engine that answers, with the base image and enough room, or the reason why not.
engine=../shared/tools/docker-engine
base=${BEVNEXT_SAM2_TEST_BASE_IMAGE:-local/base:bookworm}
lane=$(basename "$0" .sh)
brought_up=

skip() { printf '%s lane skipped: %s\n' "$lane" "$1" && exit 0; }
answers() { docker info >/dev/null 2>&1; }

# What a lane leaves behind would fill a disk in a few runs; a developer keeps his build cache.
clean_up() { # images...
    docker image rm --force "$@" >/dev/null 2>&1 || true
    [ -z "${CI:-}$brought_up" ] || docker builder prune --all --force >/dev/null 2>&1 || true
    [ -z "$brought_up" ] || "$engine" down
}

need_engine() { # GiB free where the engine keeps its images
    local free
    if ! answers; then
        [ -x "$engine" ] || skip "no Docker engine answers, and there is no $engine to bring one up"
        "$engine" up || skip "$engine could not bring up an engine"
        brought_up=yes
    fi
    "$engine" up >/dev/null 2>&1 || true # an engine that was up already may lack the base image
    docker image inspect "$base" >/dev/null 2>&1 || skip "the engine has no base image $base"
    free=$(df --output=avail --block-size=1G "$(docker info --format '{{.DockerRootDir}}')" | tail -1)
    [ "$free" -ge "$1" ] || skip "$free GiB free where the engine keeps its images, $1 needed"
}
