# Tierwise in a container. Targets: cpu (embedded engine), gpu (vLLM), gpu-faiss (vLLM, and the index on the GPU too).
#   docker build --target cpu --tag tierwise:cpu .
#   docker run --rm --read-only --cap-drop ALL --tmpfs /tmp -p 8080:8080 tierwise:cpu
# BASE is any Debian image whose python3 is 3.11 or later; give it by digest where builds must repeat to the bit.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS tools
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv /tools \
    && /tools/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt hatchling uv
# Bytecode is checked by nothing at run time, where it cannot be rewritten, and is the same in every build.
ENV PATH=/tools/bin:$PATH VIRTUAL_ENV=/opt/tierwise \
    UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH UV_LINK_MODE=copy UV_NO_CACHE=1 UV_SYSTEM_CERTS=1
RUN uv venv --python python3 /opt/tierwise

FROM tools AS wheel
ENV SOURCE_DATE_EPOCH=0
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY models models
COPY retrieval retrieval
COPY service service
RUN hatchling build -t wheel -d /dist

# Dependencies first: they change less often than the code, and their layer is the large one.
FROM tools AS cpu-install
COPY pyproject.toml ./
# The tokenizers library brings a downloader; nothing is downloaded here.
RUN uv pip install --constraints constraints.txt --requirements pyproject.toml --extra otel \
    && uv pip uninstall hf-xet \
    && find /opt/tierwise -depth -type d -name 'test*' -regex '.*/tests?' -exec rm -r {} +
COPY --from=wheel /dist /dist
RUN uv pip install --no-deps /dist/*.whl
# What a first start would build: the demo's knowledge, for TIERWISE_KNOWLEDGE, and the shipped checkpoint's graphs.
RUN cat /opt/tierwise/lib/python3*/site-packages/retrieval/demo/*.jsonl >documents.jsonl \
    && /opt/tierwise/bin/tierwise index build --input documents.jsonl --output /opt/tierwise/knowledge \
    && /opt/tierwise/bin/tierwise export --output /opt/tierwise/cache

FROM tools AS gpu-install
COPY pyproject.toml requirements/gpu-constraints.txt ./
RUN uv pip install --constraints gpu-constraints.txt --requirements pyproject.toml --extra vllm
COPY --from=wheel /dist /dist
RUN uv pip install --no-deps /dist/*.whl

# faiss-cpu and faiss-gpu put different builds into the same folder, so one goes before the other comes.
FROM gpu-install AS gpu-faiss-install
RUN uv pip uninstall faiss-cpu && uv pip install --constraints constraints.txt faiss-gpu

FROM ${BASE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tierwise" \
      org.opencontainers.image.description="Online relevance scoring with a single-pass, label-first LLM judge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Inside a container every address is its own, and whoever publishes the ports decides who may call: it serves without
# keys. Give it TIERWISE_ACCESS__KEYS_FILE, or OPEN=false so that it does not start without keys (docs/access.md).
ENV PATH=/opt/tierwise/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    TIERWISE_HOST=0.0.0.0 TIERWISE_ADMIN_HOST=0.0.0.0 \
    TIERWISE_ACCESS__OPEN=true
WORKDIR /
USER 10001:10001
EXPOSE 8080 9090 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('TIERWISE_ADMIN_PORT', '9090') + '/readyz', timeout=2)"]
ENTRYPOINT ["tierwise"]
CMD ["serve"]

# Triton compiles kernels when vLLM starts; torch wants a user's name for what it keeps of them.
FROM runtime AS gpu-runtime
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
ENV TIERWISE_ENGINE=vllm USER=tierwise VLLM_NO_USAGE_STATS=1

FROM gpu-runtime AS gpu-faiss
COPY --from=gpu-faiss-install /opt/tierwise /opt/tierwise

FROM gpu-runtime AS gpu
COPY --from=gpu-install /opt/tierwise /opt/tierwise

# Last, so that a build without --target makes it.
FROM runtime AS cpu
COPY --from=cpu-install /opt/tierwise /opt/tierwise
ENV TIERWISE_CACHE_DIR=/opt/tierwise/cache
