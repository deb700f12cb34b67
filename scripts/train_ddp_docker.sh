#!/usr/bin/env bash
# An old name of launch_docker_multi_gpu.sh: the same options.
set -euo pipefail
exec "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/launch_docker_multi_gpu.sh" "$@"
