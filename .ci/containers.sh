#!/usr/bin/env bash
# The container lane: the image is built from the real Dockerfile and its services are started by a real engine.
# A machine that cannot do this (no engine, no base image, too little disk, a build that takes too long) skips it and says
# why; a test that fails is a failure. Takes at most BUILD_SECONDS + TEST_SECONDS.
set -euo pipefail
cd "$(dirname "$0")/.."
BUILD_SECONDS=${BEVNEXT_SAM2_BUILD_SECONDS:-600}
TEST_SECONDS=${BEVNEXT_SAM2_CONTAINER_TEST_SECONDS:-1200}
image=bevnext-sam2-test:built
# shellcheck source=.ci/engine.sh
. .ci/engine.sh
trap 'clean_up "$image" "$image-dev"' EXIT
need_engine 24

build() { timeout "$BUILD_SECONDS" docker build --file docker/Dockerfile --target runtime --build-arg BASE_IMAGE="$base" --tag "$image" .; }
SECONDS=0
log=$(mktemp)
if ! build >"$log" 2>&1; then
    tail -20 "$log"
    # the layers that are done stay, so a second try costs only what is missing
    [ "$SECONDS" -lt $((BUILD_SECONDS / 2)) ] || skip "the image was not built within $BUILD_SECONDS s"
    build || { printf 'error: the image cannot be built\n  fix: read the lines above\n' >&2 && exit 1; }
fi
printf 'container lane: image built in %s s, %s\n' "$SECONDS" "$(docker image ls --format '{{.Size}}' "$image")"

export BEVNEXT_SAM2_TEST_IMAGE=$image BEVNEXT_SAM2_TEST_MARKERS="not slow" BEVNEXT_SAM2_TEST_PROCESSES=0
timeout --signal INT "$TEST_SECONDS" ./scripts/run.sh test tests/containers --durations 0
