#!/bin/sh
# Prepares a board (or any Debian, Raspberry Pi OS or Mendel machine) to run exported models: Coral's
# Edge TPU runtime libedgetpu.so.1 by apt, this facetpu and a TFLite runtime by pip into VENV.
#   sh install_board.sh [VENV]        VENV: where the virtual environment goes; ./facetpu-venv unless given
set -eu

VENV=${1:-facetpu-venv}
SOURCE=$(cd "$(dirname "$0")/.." && pwd)
KEYRING=/usr/share/keyrings/coral-edgetpu.gpg
LIST=/etc/apt/sources.list.d/coral-edgetpu.list
REPOSITORY=https://packages.cloud.google.com/apt

fail() {
    echo "install_board.sh: $1" >&2
    exit 1
}

command -v python3 >/dev/null || fail "there is no python3 here; install it first"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 7))' || fail "facetpu needs Python 3.7 or newer"
command -v apt-get >/dev/null || fail "there is no apt-get here; install libedgetpu and facetpu[board] by hand"
if [ "$(id -u)" -eq 0 ]; then
    root() { "$@"; }
else
    command -v sudo >/dev/null || fail "run it as root, or install sudo"
    root() { sudo "$@"; }
fi

if ! ldconfig -p 2>/dev/null | grep -q 'libedgetpu\.so\.1'; then
    root apt-get update
    root apt-get install -y --no-install-recommends ca-certificates curl gnupg
    curl -fsSL "$REPOSITORY/doc/apt-key.gpg" | gpg --dearmor | root tee "$KEYRING" >/dev/null
    echo "deb [signed-by=$KEYRING] $REPOSITORY coral-edgetpu-stable main" | root tee "$LIST" >/dev/null
    root apt-get update
    root apt-get install -y libedgetpu1-std
    echo "Plug a USB Accelerator in again, so that its new access rules apply."
fi
python3 -m venv "$VENV" || fail "cannot make $VENV; run apt-get install python3-venv first"
"$VENV/bin/python" -m pip install --upgrade pip
"$VENV/bin/python" -m pip install "$SOURCE[board]"
"$VENV/bin/facetpu" doctor
