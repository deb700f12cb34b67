#!/usr/bin/env bash
# Every check that needs neither a GPU nor a Docker engine, in the order of their cost. Arguments go to pytest.
# Run it through `scripts/run.sh test`, which prepares the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; "$@"; }

if [ $# -eq 0 ]; then
    mapfile -t shell_scripts < <(find scripts .ci docker -type f \( -name '*.sh' -o -path '.ci/run' \))
    step ruff check .
    step ruff format --check .
    step shellcheck "${shell_scripts[@]}"
    step lint-imports
    step mypy
fi
# One thread each: the tests run side by side, and more threads only wait for each other.
export OMP_NUM_THREADS=1
step pytest -n "${BEVNEXT_SAM2_TEST_PROCESSES:-auto}" -m "${BEVNEXT_SAM2_TEST_MARKERS:-not slow and not gpu and not container}" "$@"
