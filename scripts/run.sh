#!/usr/bin/env bash
# The project's one door: sets up what is missing, then runs a command in the project's own environment.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

usage() {
    cat <<'TXT'
usage: scripts/run.sh [--torch BUILD] [--python PROGRAM] MODE [ARGUMENTS]

  quickstart        synthetic set, plan, training on 2 processes, evaluation, pictures, report (no data, no GPU needed)
  test              all checks that need neither GPU nor Docker: format, types, import arrows, tests
  train, eval, infer, report, plan, data, doctor, bench
                    the subcommand of bevnext-sam2 of that name; ARGUMENTS go to it
  validate-nuscenes find every fault of a dataset (data check)
  shell             a shell inside the environment

  --torch BUILD     torch build for the set-up: default, cpu, cu126, cu128, ... (see scripts/set_up.sh --help)
  --python PROGRAM  interpreter for the set-up, Python 3.10 to 3.12

The first call sets up .venv in the checkout; later calls start at once.
TXT
}

set_up=()
while [ $# -gt 0 ]; do
    case $1 in
        --torch | --python) [ $# -ge 2 ] || { printf 'error: %s needs a value\n  fix: see scripts/run.sh --help\n' "$1" >&2; exit 2; }
            set_up+=("$1" "$2") && shift 2 ;;
        *) break ;;
    esac
done
mode=${1:-}
[ $# -gt 0 ] && shift
case $mode in
    -h | --help | help) usage && exit 0 ;;
    "") usage >&2 && exit 2 ;;
    quickstart | test | train | eval | infer | report | plan | data | doctor | bench | validate-nuscenes | shell) ;;
    *) printf "error: unknown mode '%s'\n  fix: see scripts/run.sh --help\n" "$mode" >&2 && exit 2 ;;
esac

"$root/scripts/set_up.sh" --venv "$root/.venv" "${set_up[@]}"
export PATH="$root/.venv/bin:$PATH"

case $mode in
    test) cd "$root" && exec "$root/scripts/check.sh" "$@" ;;
    shell) cd "$root" && exec "${SHELL:-bash}" "$@" ;;
    validate-nuscenes) exec bevnext-sam2 data check "$@" ;;
    *) exec bevnext-sam2 "$mode" "$@" ;;
esac
