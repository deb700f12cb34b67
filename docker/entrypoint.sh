#!/usr/bin/env bash
# First process of a container: a command of bevnext-sam2 by its name, or any program.
set -euo pipefail

fail() { # message, fix
    printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
    exit 2
}

owner_fix() { # folder
    local ids
    ids=$(stat --format '%u %g' "$1")
    case $ids in
        "0 0") printf 'on the host: sudo chown -R %s:%s on the mounted folder, or name another' "$(id -u)" "$(id -g)" ;;
        *) printf 'put BEVNEXT_SAM2_UID=%s and BEVNEXT_SAM2_GID=%s into .env (scripts/setup_gpu.sh --write-env does)' \
            "${ids% *}" "${ids#* }" ;;
    esac
}

check_writable() { # folder, what it is for
    [ -w "$1" ] && return
    if grep -qE " $1 [^ ]+ ro[, ]" /proc/self/mounts; then
        fail "$1, $2, is mounted read-only" "mount it writable"
    fi
    fail "$1, $2, belongs to user $(stat --format %u "$1"), and this container runs as $(id -u)" "$(owner_fix "$1")"
}

# A company's certificates, beside those of the system: both in one file, for Python, pip, git and curl.
if [ -n "${BEVNEXT_SAM2_CA_FILE:-}" ]; then
    [ -r "$BEVNEXT_SAM2_CA_FILE" ] || fail "BEVNEXT_SAM2_CA_FILE=$BEVNEXT_SAM2_CA_FILE cannot be read" "mount the file there"
    cat /etc/ssl/certs/ca-certificates.crt "$BEVNEXT_SAM2_CA_FILE" >/tmp/ca-bundle.crt
    export SSL_CERT_FILE=/tmp/ca-bundle.crt REQUESTS_CA_BUNDLE=/tmp/ca-bundle.crt PIP_CERT=/tmp/ca-bundle.crt \
        CURL_CA_BUNDLE=/tmp/ca-bundle.crt AWS_CA_BUNDLE=/tmp/ca-bundle.crt GIT_SSL_CAINFO=/tmp/ca-bundle.crt
fi

case ${1:-} in
    quickstart | train | eval | infer | demo | sam2 | report) check_writable /workspace/outputs "where runs are written" ;;
esac
if type -P "${1:-bevnext-sam2}" >/dev/null; then
    exec "$@"
fi
exec bevnext-sam2 "$@"
