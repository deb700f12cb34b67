#!/usr/bin/env bash
# One layer of packages of the image, from the lock files, into /opt/venv. Runs while the image is built.
# A company's mirror and certificates come as build secrets: pip_conf (a pip configuration) and ca (a PEM bundle).
set -euo pipefail
requirements=/build/requirements
checkout=/opt/bevnext-sam2
pip_python=$(PATH=${PATH#/opt/venv/bin:} type -P python3) # the one that has pip: /opt/venv does without

[ -f /run/secrets/pip_conf ] && export PIP_CONFIG_FILE=/run/secrets/pip_conf
[ -f /run/secrets/ca ] && export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca

install() {
    "$pip_python" -m pip --python /opt/venv/bin/python install --disable-pip-version-check --root-user-action ignore "$@"
}
locked() { # lock file, flags...
    install --no-deps --require-hashes -r "$requirements/$1.lock" "${@:2}"
}

case $1 in
    base | dev | notebook) locked "$1" --only-binary :all: ;;
    torch)
        if [ "$2" = default ]; then
            locked torch --only-binary :all:
        else # dependencies are resolved here, since each CUDA build brings its own NVIDIA packages
            install --index-url "https://download.pytorch.org/whl/$2" -r "$requirements/torch.in"
        fi ;;
    # sam2 comes as source without compiled parts; its build imports torch, so it cannot be built in isolation.
    sam2) SAM2_BUILD_CUDA=0 locked sam2 --no-build-isolation ;;
    # Unmaintained packages whose ranges exclude each other: mmcv comes from our own wheel, the rest from a list.
    openmmlab)
        locked openmmlab
        install --no-deps /wheels/mmcv-*.whl ;;
    ascend) install --extra-index-url https://download.pytorch.org/whl/cpu -r "$requirements/ascend.txt" ;;
    project)
        install --no-deps --no-warn-script-location --prefix "$2" --editable "$checkout"
        mkdir -p "$2/share"
        PYTHONPATH=$checkout _BEVNEXT_SAM2_COMPLETE=bash_source "$2/bin/bevnext-sam2" >"$2/share/bevnext-sam2.bash" ;;
    *) printf 'error: unknown layer %s\n' "$1" >&2 && exit 2 ;;
esac
