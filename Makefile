# launch-async: `make` prints the targets. Everything runs in .venv, which the targets make themselves.

TARGET ?= process
DATA   ?= .launch-async
BASE   ?= python:3.11-slim
SET    ?= lr=0.05
PORT   ?=
ADMIN  ?=
KEEP   ?=
ARGS   ?=
WORKERS ?= 3
SEED   ?=
KILLS  ?= 50
ITEMS  ?= 300

IMAGE  := launch-async-example:latest
BIN    := .venv/bin
UP     := $(BIN)/launch-async up --data $(DATA) $(if $(PORT),--port $(PORT)) $(if $(ADMIN),--admin $(ADMIN)) $(if $(filter 1,$(KEEP)),--keep)

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run dev check lint lint-ruff lint-mypy lint-pyright lint-imports test format clean \
        chaos mutants soak bench-vs-wandb docker-up docker-down postgres-up postgres-down registry-up registry-down \
        object-store-up object-store-down \
        buildkit-up buildkit-down cluster cluster-down images manifests

help:
	@echo "launch-async: make TARGET"
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1 \2/p' $(firstword $(MAKEFILE_LIST)) | \
	    while read -r target text; do printf '  %-14s %s\n' "$$target" "$$text"; done

run: .venv/.installed ## Start server and agent, run the example [TARGET=process|docker KEEP=1 PORT=n ADMIN=host:port DATA=dir SET=key=value BASE=image]
ifeq ($(TARGET),docker)
	@scripts/example-image $(IMAGE) $(BASE)
	@$(UP) --run-image $(IMAGE) --set $(SET)
else ifeq ($(TARGET),process)
	@$(UP) --run examples/train --set $(SET)
else
	@echo "make run: TARGET is process or docker, not $(TARGET)" >&2; exit 2
endif

dev: .venv/.installed-dev ## Install the package and its development tools into .venv

check: ## Lint, then test: what CI runs
	@$(MAKE) -k lint
	@$(MAKE) test

lint: lint-ruff lint-mypy lint-pyright lint-imports ## Check style, types and layers (make -k lint to see all faults at once)

lint-ruff: .venv/.installed-dev
	@$(BIN)/ruff check --no-cache --quiet .
	@$(BIN)/ruff format --check --quiet .
	@echo "ruff: clean"

lint-mypy: .venv/.installed-dev
	@$(BIN)/mypy

lint-pyright: .venv/.installed-dev
	@$(BIN)/pyright

lint-imports: .venv/.installed-dev
	@$(BIN)/lint-imports --no-logo

test: .venv/.installed-dev ## Run the whole suite, with a Docker engine, PostgreSQL, registries, BuildKit, an object store and Kubernetes if they can be had [ARGS="-k name" WORKERS=n]
	@scripts/docker-engine up && scripts/test-images || { \
	    echo "make test: the tests that need Docker are skipped (see the line above)" >&2; test "$$CI" != true; }
	@scripts/client-environments || { \
	    echo "make test: the tests of older wandb clients are skipped (see the line above)" >&2; test "$$CI" != true; }
	@scripts/postgres up >/dev/null || { \
	    echo "make test: the tests on PostgreSQL are skipped (see the line above)" >&2; test "$$CI" != true; }
	@scripts/registry up >/dev/null || { \
	    echo "make test: the tests on image registries are skipped (see the line above)" >&2; test "$$CI" != true; }
	@scripts/buildx >/dev/null && scripts/buildkit up >/dev/null || { \
	    echo "make test: the tests of buildx or buildkitd are skipped (see the line above)" >&2; test "$$CI" != true; }
	@scripts/object-store up >/dev/null || { \
	    echo "make test: the tests on an object store are skipped (see the line above)" >&2; test "$$CI" != true; }
	@scripts/cluster up >/dev/null || { \
	    echo "make test: the tests on Kubernetes are skipped (see the line above)" >&2; test "$$CI" != true; }
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

chaos: .venv/.installed-dev ## Drain items while agent and server are killed; nothing lost, nothing doubled [SEED=n KILLS=50 ITEMS=300]
	@$(BIN)/python benchmarks/chaos.py $(if $(SEED),--seed $(SEED)) --kills $(KILLS) --items $(ITEMS) $(ARGS)

mutants: .venv/.installed-dev ## Break each life-cycle rule by a line and see a test fail for it [ARGS="--only word"]
	@$(BIN)/python benchmarks/mutants.py $(ARGS)

soak: .venv/.installed-dev ## Run 20,000 short items, then 10,000 at once: memory, descriptors, loop lag [ARGS="--items n --live n"]
	@$(BIN)/python benchmarks/soak.py $(ARGS)

bench-vs-wandb: .venv/.installed-dev ## Measure the agent beside W&B's own on one server and Docker engine
	@$(BIN)/python benchmarks/vs_wandb_agent.py $(ARGS)

format: .venv/.installed-dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --no-cache --fix-only --quiet .
	@$(BIN)/ruff format .

docker-up: ## Start a Docker engine for the tests (root; nothing if one answers)
	@scripts/docker-engine up

docker-down: ## Stop the engine that docker-up started
	@scripts/docker-engine down

postgres-up: ## Start a PostgreSQL for the tests and print its URL (nothing if ours answers)
	@scripts/postgres up

postgres-down: ## Stop the PostgreSQL that postgres-up started
	@scripts/postgres down

registry-up: ## Start two image registries for the tests and print their URLs (nothing if ours answer)
	@scripts/registry up

registry-down: ## Stop the registries that registry-up started
	@scripts/registry down

buildkit-up: ## Start a buildkitd for the tests and print its address (root; nothing if ours answers)
	@scripts/buildkit up

buildkit-down: ## Stop the buildkitd that buildkit-up started
	@scripts/buildkit down

object-store-up: ## Start an object store that speaks S3 for the tests and print its URL (nothing if ours answers)
	@scripts/object-store up

object-store-down: ## Stop the object store that object-store-up started
	@scripts/object-store down

cluster: ## Start a Kubernetes of one node for the tests and print the file for KUBECONFIG (root, Go; nothing if ours answers)
	@scripts/cluster up

cluster-down: ## Stop the Kubernetes that `make cluster` started; nothing of it stays
	@scripts/cluster down

images: ## Make the images that the Docker tests run
	@scripts/test-images

manifests: ## Make deploy/kubernetes/agent.yaml anew from the agent's chart
	@"$$(scripts/cluster helm)" template launch-agent deploy/helm/launch-async-agent --kube-version 1.34.0 \
	    -n launch -f deploy/kubernetes/values.yaml > deploy/kubernetes/agent.yaml

clean: ## Remove .venv, caches and builds (never DATA)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml
	@scripts/install

.venv/.installed-dev: pyproject.toml
	@scripts/install dev
