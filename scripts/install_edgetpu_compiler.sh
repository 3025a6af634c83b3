#!/bin/sh
# Installs Coral's edgetpu_compiler from Coral's apt repository. The compiler is a closed binary for
# x86-64 Debian and Ubuntu; on anything else run this inside a container of one, for example
#   docker run --rm --platform linux/amd64 -v "$PWD:/models" -w /models debian:bookworm sh -c \
#     'sh install_edgetpu_compiler.sh && edgetpu_compiler -o . base.tflite'
set -eu

KEYRING=/usr/share/keyrings/coral-edgetpu.gpg
LIST=/etc/apt/sources.list.d/coral-edgetpu.list
REPOSITORY=https://packages.cloud.google.com/apt

fail() {
    echo "install_edgetpu_compiler.sh: $1" >&2
    exit 1
}

machine=$(uname -m)
[ "$machine" = x86_64 ] || fail "the compiler is for x86-64 and this machine is $machine; use a linux/amd64 container"
command -v apt-get >/dev/null || fail "there is no apt-get here; use a container of Debian or Ubuntu"
if [ "$(id -u)" -eq 0 ]; then
    root() { "$@"; }
else
    command -v sudo >/dev/null || fail "run it as root, or install sudo"
    root() { sudo "$@"; }
fi

if ! command -v edgetpu_compiler >/dev/null; then
    root apt-get update
    root apt-get install -y --no-install-recommends ca-certificates curl gnupg
    curl -fsSL "$REPOSITORY/doc/apt-key.gpg" | gpg --dearmor | root tee "$KEYRING" >/dev/null
    echo "deb [signed-by=$KEYRING] $REPOSITORY coral-edgetpu-stable main" | root tee "$LIST" >/dev/null
    root apt-get update
    root apt-get install -y --no-install-recommends edgetpu-compiler
fi
edgetpu_compiler --version
