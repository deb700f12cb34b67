#!/usr/bin/env bash
# Writes the lock files again from pyproject.toml. Needs uv (`pip install uv`).
#
#   requirements/torch.lock   torch, torchvision and their CUDA packages: the part that `--torch` replaces
#   requirements/sam2.lock    sam2 and what only it needs: the only packages that come as source
#   requirements/base.lock    everything else, the extra `dev` included: wheels only
#
# They hold for Python 3.10 to 3.12 on Linux and carry hashes; none names an index, so that mirrors work.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

resolve() { # output, flags...
    uv pip compile pyproject.toml --extra dev --constraint requirements/torch.in --universal --python-version 3.10 \
        --no-emit-index-url --no-annotate --quiet --custom-compile-command scripts/lock.sh \
        --output-file "$1" "${@:2}"
}
names() { grep -oP '^[A-Za-z0-9_.-]+(?===)' "$1" | sort -u; }
without() { sed 's/^/--no-emit-package=/' "$1"; }

resolve "$work/all" --extra sam2
resolve "$work/no_sam2"
names "$work/all" | grep -E '^(torch|torchvision|triton|nvidia-.*|cuda-.*)$' | grep -v '^nvidia-ml-py$' >"$work/torch"
comm -23 <(names "$work/all") <(names "$work/no_sam2") >"$work/sam2"
comm -23 <(names "$work/no_sam2") "$work/torch" >"$work/base"

lock() { # name, the lists of packages to leave out...
    mapfile -t flags < <(for list in "${@:2}"; do without "$work/$list"; done)
    resolve "requirements/$1.lock" --extra sam2 --constraint "$work/all" --generate-hashes "${flags[@]}"
}
lock torch sam2 base
lock sam2 torch base
lock base torch sam2
