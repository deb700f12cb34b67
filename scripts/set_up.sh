#!/usr/bin/env bash
# Set-up of a fresh machine: a virtual environment of the project's own, with everything from the lock files.
# Needs Python 3.10 to 3.12 and a package index; no compiler, no GPU. Run again, it does only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TXT'
usage: scripts/set_up.sh [--torch BUILD] [--python PROGRAM] [--venv DIR] [--notebook | --launcher]

  --torch BUILD     torch build to install: default (the package index's own, with CUDA 13, runs on a CPU too),
                    or a build of PyTorch's own index: cpu, cu126, cu128, cu130, ...   [default]
  --python PROGRAM  interpreter of the environment, Python 3.10 to 3.12   [first found]
  --venv DIR        where the environment goes   [.venv]
  --notebook        JupyterLab and py-spy as well (requirements/notebook.lock)
  --launcher        nothing but what `plan` and `train --docker` need: 56 MB instead of 6 GB

Environment: BEVNEXT_SAM2_TORCH stands in for --torch where the option is not given.
TXT
}

say() { printf '\033[1m[set-up]\033[0m %s\n' "$*" >&2; }
fail() { # message, fix, exit code
    printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
    exit "${3:-1}"
}

torch_build=${BEVNEXT_SAM2_TORCH:-default}
python=""
venv=.venv
notebook=""
launcher=""
while [ $# -gt 0 ]; do
    case $1 in
        --torch | --python | --venv) [ $# -ge 2 ] || fail "$1 needs a value" "see scripts/set_up.sh --help" 2 ;;
    esac
    case $1 in
        --torch) torch_build=$2 && shift 2 ;;
        --python) python=$2 && shift 2 ;;
        --venv) venv=$2 && shift 2 ;;
        --notebook) notebook=yes && shift ;;
        --launcher) launcher=yes && shift ;;
        -h | --help) usage && exit 0 ;;
        *) fail "unknown option $1" "see scripts/set_up.sh --help" 2 ;;
    esac
done
[[ $torch_build =~ ^(default|cpu|cu[0-9]{3})$ ]] ||
    fail "--torch $torch_build is not a torch build" "use default, cpu, or a CUDA build such as cu126 or cu128" 2

supported() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${python:-python3.11 python3.12 python3.10 python3}; do
        if supported "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    fail "${python:-python3} is not Python 3.10, 3.11 or 3.12" "install one (apt-get install python3) or name it with --python" 2
}

make_environment() { # interpreter
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
    say "making the environment $venv with $("$1" --version)"
    "$1" -c 'import ensurepip' 2>/dev/null || install_venv_package "$1"
    "$1" -m venv "$venv"
}

install_venv_package() { # interpreter; Debian and Ubuntu ship venv as a package of its own
    local package
    package="python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $package (Python's venv module is missing)"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
    else
        fail "Python's venv module is missing" "sudo apt-get install $package"
    fi
}

# The oldest driver that runs a CUDA build: any 12.x works from 525 on, 13.x from 580 on (CUDA's compatibility table).
check_driver() {
    command -v nvidia-smi >/dev/null || {
        case $torch_build in cu*) fail "--torch $torch_build asks for CUDA, but nvidia-smi is not here" "install the NVIDIA driver, or use --torch cpu or default" ;; esac
        return 0
    }
    local driver needed
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1 | cut -d. -f1)
    [[ $driver =~ ^[0-9]+$ ]] || fail "nvidia-smi does not answer: the driver is not running" "sudo nvidia-smi, then load or reinstall the driver"
    case $torch_build in
        cpu) say "note: this machine has a GPU, and --torch cpu will not use it" && return 0 ;;
        cu12*) needed=525 ;;
        cu11*) needed=450 ;;
        *) needed=580 ;;
    esac
    [ "$driver" -ge "$needed" ] ||
        fail "the driver ($driver) is older than torch build '$torch_build' needs ($needed)" "update the driver, or use --torch cu126"
}

fingerprint() { # what else is installed
    cat requirements/*.lock pyproject.toml hatch_build.py | sha256sum | cut -c1-16
    printf '%s %s %s\n' "$torch_build" "$PWD" "$1"
}

# The blocks of a lock file that belong to some packages.
locked_only() { # lock file, packages...
    awk -v packages="${*:2}" '
        BEGIN { n = split(packages, names, " "); for (i = 1; i <= n; i++) wanted[names[i]] }
        /^[A-Za-z0-9]/ { keep = (substr($1, 1, index($1, "==") - 1) in wanted) }
        keep' "$1"
}

install_launcher() {
    local some=$venv/launcher.lock
    locked_only requirements/base.lock annotated-types click markdown-it-py mdurl nvidia-ml-py psutil pydantic \
        pydantic-core pygments pyyaml rich typing-extensions typing-inspection >"$some"
    install "packages of the launcher" --require-hashes --only-binary :all: -r "$some"
    local site
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$PWD" >"$site/bevnext_sam2.pth"
    printf '#!/bin/sh\nexec "%s" -m launcher "$@"\n' "$(cd "$venv" && pwd)/bin/python" >"$venv/bin/bevnext-sam2"
    chmod +x "$venv/bin/bevnext-sam2"
}

install() { # title, pip arguments...
    say "$1"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --progress-bar on "${@:2}" >&3 ||
        fail "pip could not install: $1" "read the lines above (log: $log); check the network, the index and the free disk space, then run this again"
}

install_everything() {
    install "1/4 Python packages (requirements/base.lock, dev.lock)" --require-hashes --only-binary :all: \
        -r requirements/base.lock -r requirements/dev.lock
    if [ "$torch_build" = default ]; then
        install "2/4 torch (requirements/torch.lock, about 3 GB to fetch)" --require-hashes --only-binary :all: -r requirements/torch.lock
    else
        install_torch_build
    fi
    # sam2 comes as source without compiled parts; its build imports torch, so it cannot be built in isolation.
    SAM2_BUILD_CUDA=0 install "3/4 SAM 2 (requirements/sam2.lock)" --no-build-isolation --require-hashes -r requirements/sam2.lock
    install "4/4 bevnext-sam2 itself, editable" --editable .
}

install_torch_build() {
    local index=https://download.pytorch.org/whl/$torch_build
    say "2/4 torch build $torch_build from PyTorch's own index"
    # Another build may be there under the same version number, so it goes first. Dependencies are resolved here,
    # since each CUDA build brings its own NVIDIA packages; all others are there from base.lock.
    "$venv/bin/python" -m pip uninstall --yes --quiet torch torchvision 2>/dev/null || true
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar on \
        --index-url "$index" -r requirements/torch.in >&3 ||
        fail "no torch for --torch $torch_build at $index" "choose a build listed at https://pytorch.org/get-started/locally, or --torch default"
}

verify() {
    say "checking the environment"
    "$venv/bin/python" - "$torch_build" <<'PY'
import shutil, sys
import torch, torchvision, training
from pathlib import Path

here = Path.cwd() / "training"
if Path(training.__file__).parent != here:
    sys.exit(f"error: `import training` finds {training.__file__}, not {here}\n  fix: pip install -e . again")
if shutil.which("nvidia-smi") and sys.argv[1] != "cpu" and not torch.cuda.is_available():
    sys.exit(f"error: torch {torch.__version__} does not see the GPU\n  fix: choose the build with --torch that fits the driver")
where = f"{torch.cuda.device_count()} GPU(s)" if torch.cuda.is_available() else "CPU"
print(f"[set-up] torch {torch.__version__}, torchvision {torchvision.__version__}, on {where}", file=sys.stderr)
PY
}

interpreter=$(find_python)
[ -n "$launcher" ] || check_driver
make_environment "$interpreter"
kind=${launcher:+launcher}
stamp=$venv/bevnext_sam2_set_up
log=$venv/set_up.log
if [ -t 1 ]; then exec 3>&1; else exec 3>"$log"; fi
if [ "$(cat "$stamp" 2>/dev/null)" != "$(fingerprint "$kind")" ]; then
    SECONDS=0
    if [ -n "$launcher" ]; then
        install_launcher
    else
        install_everything
        verify
    fi
    fingerprint "$kind" >"$stamp"
    say "done in ${SECONDS} s: $venv ($(du -sh "$venv" | cut -f1)), log in $log"
fi
if [ -n "$notebook" ] && [ "$(cat "$stamp.notebook" 2>/dev/null)" != "$(fingerprint notebook)" ]; then
    install "JupyterLab (requirements/notebook.lock)" --require-hashes --only-binary :all: -r requirements/notebook.lock
    fingerprint notebook >"$stamp.notebook"
fi
