# Every target sets itself up: the first call makes a virtual environment and installs into it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
# The first of these that is Python 3.11 or later.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)
# Which tests `make test` runs; `make test SELECT=` runs all of them.
SELECT ?= not slow
# Arguments for pytest or for the demo, as in: make test ARGS='tests/corpus -x'
ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready

# One thread each: tests and runs are spread over processes, and results are bit-equal per thread count.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test test-all check format readme clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## the virtual environment, once

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later found; install one or say make PYTHON=..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV): one to four minutes, once"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[corpora,dev]'
	@touch $@

demo: $(READY) ## double descent and a forgetting curve from a real text, in five minutes
	@$(BIN)/repetita demo $(ARGS)

test: $(READY) ## the tests but for the slow ones
	@$(BIN)/python -m pytest -m "$(SELECT)" $(ARGS)

test-all: SELECT :=
test-all: test ## all tests

check: $(READY) ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(READY) ## put the code into form
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

readme: $(READY) ## write the tree of the README anew
	@$(BIN)/python tools/readme_tree.py README.md

clean: ## remove the virtual environment and all caches; results in repetita-out stay
	rm -rf $(VENV) .venv-ci build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools -type d -name __pycache__ -prune -exec rm -rf {} +
