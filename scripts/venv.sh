#!/bin/sh
# Create or update a virtual environment: scripts/venv.sh FOLDER REQUIREMENT..., e.g. scripts/venv.sh .venv -e '.[dev]'
# uv installs within the pins of constraints.txt. It reads no pip settings, so the two that decide where packages come
# from are handed on; without a folder of wheels torch comes from PyTorch's CPU builds.
set -eu
cd "$(dirname "$0")/.."
venv=$1
shift
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Tierwise needs Python 3.11 or later, and $python is older: make PYTHON=python3.12 ..." >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
[ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt uv

pip_setting() { "$venv/bin/python" -m pip config get "global.$1" 2>/dev/null || true; }
UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(pip_setting index-url)}}
UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$(pip_setting find-links)}}
[ -z "$UV_DEFAULT_INDEX" ] || export UV_DEFAULT_INDEX
if [ -n "$UV_FIND_LINKS" ]; then
    export UV_FIND_LINKS
else
    export UV_TORCH_BACKEND="${UV_TORCH_BACKEND:-cpu}"
fi
VIRTUAL_ENV="$venv" exec "$venv/bin/uv" pip install --quiet --constraints constraints.txt "$@"
