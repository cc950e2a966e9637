#!/bin/sh
# Write constraints.txt: one pin per dependency of every extra but vLLM, which brings its own pins. No host, no path.
# torch stays at the version vLLM is built against; its CUDA parts are left to torch itself.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'torch==2.13.0' >"$work/torch"
env -u UV_FIND_LINKS -u UV_TORCH_BACKEND .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
    --extra dev --extra train --extra parquet --extra otel --extra sentence-transformers --extra faiss-gpu \
    --constraints "$work/torch" --no-header --no-annotate --output-file "$work/pins" pyproject.toml
{
    echo '# Versions that were tested together; make constraints chooses newer ones.'
    grep -Ev '^(nvidia-|cuda-|triton==)' "$work/pins"
} >constraints.txt
