#!/usr/bin/env bash
# The lane of the image target `openmmlab`: mmcv compiled for the CPU, the image built from it, its packages imported and used.
# Compiling takes 10 to 40 minutes on two cores, so not every run of continuous integration takes this lane.
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS_AT_MOST=${BEVNEXT_SAM2_OPENMMLAB_SECONDS:-7200}
image=bevnext-sam2-test:openmmlab
# shellcheck source=.ci/engine.sh
. .ci/engine.sh
trap 'clean_up "$image"' EXIT
need_engine 24

export BEVNEXT_SAM2_TEST_MARKERS="slow" BEVNEXT_SAM2_TEST_PROCESSES=0
timeout --signal INT "$SECONDS_AT_MOST" ./scripts/run.sh test tests/containers/test_openmmlab.py -s
