#!/usr/bin/env bash
# Writes the lock files again from pyproject.toml: versions that still fit stay, with --upgrade all are the newest.
# Needs uv (`pip install uv`).
#
#   requirements/torch.lock     torch, torchvision and their CUDA packages: the part that `--torch` replaces
#   requirements/sam2.lock      sam2 and what only it needs: the only packages that come as source
#   requirements/base.lock      everything else that the commands need, the extra `s3` included: wheels only
#   requirements/dev.lock       what only the extra `dev` needs; in the image only of its target `dev`
#   requirements/notebook.lock  what only the extra `notebook` needs
#   requirements/openmmlab.lock what only the image target `openmmlab` has: from openmmlab.in and openmmlab-needs.in
#
# They hold for Python 3.10 to 3.12 on Linux and carry hashes; none names an index, so that mirrors work.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case ${1:-} in
    "") cat requirements/{torch,base,sam2,dev,notebook}.lock >"$work/all" ;; # what is there is preferred
    --upgrade) ;;
    *) printf 'error: unknown option %s\n  fix: leave it out, or use --upgrade\n' "$1" >&2 && exit 2 ;;
esac

compile() { # output, inputs and flags...
    uv pip compile --universal --python-version 3.10 --no-emit-index-url --no-annotate --quiet \
        --custom-compile-command scripts/lock.sh --output-file "$1" "${@:2}"
}
resolve() { # output, flags...
    compile "$1" pyproject.toml --constraint requirements/torch.in "${@:2}"
}
names() { grep -oP '^[A-Za-z0-9_.-]+(?===)' "$1" | sort -u; }
with_extras() { # output, extras...: names of the packages, in the versions that all extras agree on
    resolve "$work/resolved" --constraint "$work/all" "${@:2}"
    names "$work/resolved" >"$1"
}

resolve "$work/all" --extra s3 --extra sam2 --extra dev --extra notebook
with_extras "$work/needed" --extra s3
for extra in sam2 dev notebook; do
    with_extras "$work/with_$extra" --extra s3 --extra "$extra"
    comm -23 "$work/with_$extra" "$work/needed" >"$work/$extra"
done
grep -E '^(torch|torchvision|triton|nvidia-.*|cuda-.*)$' "$work/needed" | grep -v '^nvidia-ml-py$' >"$work/torch"
comm -23 "$work/needed" "$work/torch" >"$work/base"

names "$work/all" >"$work/names"
lock() { # name of the lock file, flags...
    mapfile -t others < <(comm -23 "$work/names" "$work/$1" | sed 's/^/--no-emit-package=/')
    resolve "requirements/$1.lock" --extra s3 --constraint "$work/all" --generate-hashes "${@:2}" "${others[@]}"
}
lock torch
lock base
for extra in sam2 dev notebook; do lock "$extra" --extra "$extra"; done

compile "$work/openmmlab" requirements/openmmlab.in --no-deps --generate-hashes
mapfile -t ours < <(sed 's/^/--no-emit-package=/' "$work/needed")
compile "$work/openmmlab-needs" requirements/openmmlab-needs.in --constraint "$work/all" --generate-hashes "${ours[@]}"
cat "$work/openmmlab" "$work/openmmlab-needs" >requirements/openmmlab.lock
