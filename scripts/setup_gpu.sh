#!/usr/bin/env bash
# Looks at GPUs, driver, Docker and its NVIDIA toolkit. Changes nothing unless it is asked to.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
    cat <<'TXT'
usage: scripts/setup_gpu.sh [OPTIONS]

  (none)         say what is there and what is missing; `bevnext-sam2 doctor` says more
  --write-env    write BEVNEXT_SAM2_DEVICE, _UID and _GID into .env, from where Compose and the scripts read them
  --install      install the NVIDIA container toolkit (Debian, Ubuntu): shows the commands, asks, runs them with sudo
  --quiet        only what matters
  --dry-run      show what would be written or run, and stop

Exit codes: 0 containers get GPUs, or there are none to get; 1 there are GPUs that containers do not get.
TXT
}
say() { [ -n "$quiet" ] || printf '%s\n' "$*"; }

quiet="" dry_run="" write="" install=""
for argument in "$@"; do
    case $argument in
        -h | --help) usage && exit 0 ;;
        --write-env) write=yes ;;
        --install) install=yes ;;
        --quiet) quiet=yes ;;
        --dry-run) dry_run=yes ;;
        *) printf 'error: unknown option %s\n  fix: see scripts/setup_gpu.sh --help\n' "$argument" >&2 && exit 2 ;;
    esac
done

gpus=$(nvidia-smi --list-gpus 2>/dev/null || true)
toolkit() { # Docker can hand out GPUs: through its NVIDIA runtime, or by CDI
    docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"nvidia' || compgen -G '/etc/cdi/*nvidia*' >/dev/null ||
        compgen -G '/var/run/cdi/*nvidia*' >/dev/null
}

code=0
if [ -z "$gpus" ]; then
    device=cpu why="nvidia-smi sees no GPU"
elif ! command -v docker >/dev/null; then
    device=cpu why="there is no Docker" code=1
elif ! toolkit; then
    device=cpu why="Docker has no NVIDIA toolkit: scripts/setup_gpu.sh --install" code=1
else
    device=gpu why="Docker hands out $(wc -l <<<"$gpus") GPU(s)"
fi
say "${gpus:-no GPU}"
say "containers compute on the $device: $why"

write_env() {
    local file=$root/.env user group
    user=$(id -u) group=$(id -g)
    [ "$user" != 0 ] || user=1000 group=1000 # containers do not run as root
    local lines="BEVNEXT_SAM2_DEVICE=$device
BEVNEXT_SAM2_UID=$user
BEVNEXT_SAM2_GID=$group"
    if [ -n "$dry_run" ]; then
        printf 'would write to %s:\n%s\n' "$file" "$lines"
        return
    fi
    local kept
    kept=$(grep -vE '^BEVNEXT_SAM2_(DEVICE|UID|GID)=' "$file" 2>/dev/null || true)
    # passwords may stand there, too: nobody else is let in
    [ ! -e "$file" ] || cp --attributes-only --preserve=mode,ownership "$file" "$file.new"
    printf '%s\n' ${kept:+"$kept"} "$lines" >"$file.new"
    mv "$file.new" "$file"
    printf 'note: wrote BEVNEXT_SAM2_DEVICE=%s to .env (%s); change it there, or run scripts/setup_gpu.sh --write-env again\n' "$device" "$why" >&2
}

install_toolkit() {
    local keyring=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg site=https://nvidia.github.io/libnvidia-container
    local commands="curl -fsSL $site/gpgkey | sudo gpg --dearmor --yes -o $keyring
curl -fsSL $site/stable/deb/nvidia-container-toolkit.list | sed 's#deb https://#deb [signed-by=$keyring] https://#' | sudo tee /etc/apt/sources.list.d/nvidia-container-toolkit.list
sudo apt-get update
sudo apt-get install --yes nvidia-container-toolkit
sudo nvidia-ctk runtime configure --runtime=docker
sudo systemctl restart docker"
    printf '%s\n' "$commands"
    [ -z "$dry_run" ] || return 0
    if [ -n "$(docker ps --quiet 2>/dev/null)" ]; then
        printf 'error: containers are running, and restarting Docker would end them\n  fix: stop them first (docker stop)\n' >&2
        exit 1
    fi
    read -r -p 'Run these commands? [y/N] ' answer
    [ "$answer" = y ] || exit 1
    bash -euo pipefail -c "$commands"
}

[ -z "$install" ] || install_toolkit
[ -z "$write" ] || { write_env && exit 0; }
[ -n "$quiet" ] || [ ! -x "$root/.venv/bin/bevnext-sam2" ] || "$root/.venv/bin/bevnext-sam2" doctor --quick || true
exit "$code"
