#!/usr/bin/env bash
# A wheel of mmcv with its operators: build_mmcv.sh cpu|cuda FOLDER. Runs while the image is built.
set -euo pipefail
device=$1 folder=$2
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
pip_python=$(PATH=${PATH#/opt/venv/bin:} type -P python3)
pip() { "$pip_python" -m pip --python /opt/venv/bin/python "$@"; }

[ -f /run/secrets/pip_conf ] && export PIP_CONFIG_FILE=/run/secrets/pip_conf
[ -f /run/secrets/ca ] && export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca

# setup.py imports pkg_resources, which setuptools gave up with 82, and asks for opencv-python unless cv2 is there (it is).
pip install 'setuptools<81' wheel ninja psutil

# torch's headers want C++20; setup.py appends -std=c++17, so ours must come after it.
printf '#!/bin/sh\nexec g++ "$@" -std=c++20\n' >/usr/local/bin/gxx20
chmod +x /usr/local/bin/gxx20
export CXX=/usr/local/bin/gxx20 CFLAGS="-g0 -O2" MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-2}"

if [ "$device" = cuda ]; then
    pip install 'cuda-toolkit[nvcc,cccl]==13.0.*'
    CUDA_HOME=$(/opt/venv/bin/python -c 'import nvidia.cu13 as cu; print(list(cu.__path__)[0])')
    export CUDA_HOME FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES" NVCC_APPEND_FLAGS="-std=c++20"
fi

# Never from pip's cache: its key does not know which torch the wheel was made for.
pip wheel --no-cache-dir --no-build-isolation --no-deps --no-binary mmcv mmcv==2.1.0 --wheel-dir "$folder"
