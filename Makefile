# Every target sets itself up: the first call makes a virtual environment and installs into it. There are two
# stages, so that a newcomer's `make demo` does not wait for what only tests and documentation need.
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
READY_DEV := $(VENV)/.ready-dev

comma := ,
# $(call install,EXTRAS): the virtual environment, made when it is missing, with these extras
define install
@test -n "$(PYTHON)" || { echo "no Python 3.11 or later found; install one or say make PYTHON=..."; exit 2; }
@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
@echo "setting up $(VENV) with $(1): one to four minutes, once"
@# --no-compile: most of what is installed is never imported, and takes most of a minute to compile.
@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt -e '.[$(1)]'
endef

# One thread each: tests and runs are spread over processes, and results are bit-equal per thread count.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup setup-dev demo test test-all check format readme docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## the virtual environment for using repetita, once
setup-dev: $(READY_DEV) ## the same with all that tests and documentation need, once

$(READY): pyproject.toml constraints.txt
	$(call install,corpora$(comma)pos-small)
	@touch $@

$(READY_DEV): pyproject.toml constraints.txt
	$(call install,corpora$(comma)pos-small$(comma)hf$(comma)ray$(comma)slurm$(comma)storage$(comma)tracking$(comma)docs$(comma)dev)
	@touch $(READY) $@

demo: $(READY) ## memorization, forgetting and double descent from a real text, in five minutes
	@$(BIN)/repetita demo $(ARGS)

test: $(READY_DEV) ## the tests but for the slow ones
	@$(BIN)/python -m pytest -m "$(SELECT)" $(ARGS)

test-all: SELECT :=
test-all: test ## all tests

check: $(READY_DEV) ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(READY_DEV) ## put the code into form
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

readme: $(READY_DEV) ## write the tree of the README anew
	@$(BIN)/python tools/readme_tree.py README.md

docs: $(READY_DEV) ## the documentation as a site in build/site, links checked
	@$(BIN)/python -m mkdocs build --quiet --strict
	@echo "build/site/index.html"

clean: ## remove the virtual environment and all caches; results in repetita-out stay
	rm -rf $(VENV) .venv-ci build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools -type d -name __pycache__ -prune -exec rm -rf {} +
