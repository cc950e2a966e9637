#!/bin/sh
# Make sure that the programs the tests start are here: scripts/system-packages.sh COMMAND:PACKAGE ...
# Missing ones are installed when this runs as root or sudo asks no password; else they are named with the line to type.
set -eu
missing=
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null; then
    echo "The tests start programs that are not installed. Install these packages, under the names of your system:$missing" >&2
    exit 1
elif [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root='sudo -n'
else
    echo "The tests start programs that are not installed. Type this, then run make again:" >&2
    echo "    sudo apt-get update && sudo $install" >&2
    exit 1
fi
echo "Installing$missing"
# shellcheck disable=SC2086 # both variables hold words
$as_root env DEBIAN_FRONTEND=noninteractive $install || {
    $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive $install
}
