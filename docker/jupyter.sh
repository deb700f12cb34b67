#!/usr/bin/env bash
# JupyterLab with a token. It listens on all addresses of the container; Compose publishes its port on 127.0.0.1 only.
set -euo pipefail
folder=${1:-/opt/bevnext-sam2}

token=${BEVNEXT_SAM2_JUPYTER_TOKEN:-$(python3 -c 'import secrets; print(secrets.token_urlsafe(24))')}
if [ "${#token}" -lt 16 ]; then
    printf 'error: BEVNEXT_SAM2_JUPYTER_TOKEN has %d characters; whoever guesses it runs programs here\n' "${#token}" >&2
    printf '  fix: leave it out (a random one is made and shown), or use 16 characters or more\n' >&2
    exit 2
fi
export JUPYTER_TOKEN=$token
printf 'JupyterLab: http://127.0.0.1:%s/lab?token=%s\n' "${BEVNEXT_SAM2_JUPYTER_PORT:-8888}" "$token"
exec jupyter lab --no-browser --ip=0.0.0.0 --port=8888 --ServerApp.port_retries=0 --ServerApp.root_dir="$folder"
