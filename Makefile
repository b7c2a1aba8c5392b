# Everything starts from `make setup`, which the other targets call: it is instant when there is nothing to do.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast check format bench faults fuzz lock clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 12

setup: $(VENV)/.installed ## Create .venv with everything in it, the `rebalancer` command too

run: setup ## A simulated cluster and the daemon against it, on this terminal; ARGS="--mode dry-run" moves nothing
	@$(BIN)/rebalancer demo $(ARGS)

test: setup ## Every test, the ones against the real control plane included
	$(PYTEST) $(ARGS)

test-fast: setup ## Every test that needs neither the real control plane nor a browser
	$(PYTEST) -m "not controlplane and not browser" $(ARGS)

check: setup ## Format, lint, types, layers and the quick tests, in less than a minute
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	HYPOTHESIS_PROFILE=check $(PYTEST) --numprocesses auto --dist worksteal -m "not controlplane and not browser and not slow" $(ARGS)

format: setup ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup ## Measure: the tables of bench/; ARGS=days makes the one that takes hours
	$(BIN)/python -m bench $(ARGS)

faults: setup ## Every point of the fault matrix; ARGS="--points 5000" tries so many
	$(BIN)/python -m rebalancer.sim.matrix $(ARGS)

fuzz: setup ## The property tests again, with many more examples and new seeds; 200,000 verdicts beside kube-scheduler
	DIFFERENTIAL_VERDICTS=200000 $(PYTEST) tests/policy/test_differential.py
	HYPOTHESIS_PROFILE=fuzz $(PYTEST) -m "not controlplane and not browser" $(ARGS)

lock: setup ## Resolve the hashed requirement files anew from pyproject.toml and requirements/dev.in
	$(COMPILE) --output-file requirements/runtime.txt pyproject.toml
	$(COMPILE) --output-file requirements/build.txt requirements/build.in
	$(COMPILE) --output-file requirements/dev.txt requirements/dev.in

clean: ## Remove .venv and what the tools left behind
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options

# The newest interpreter that runs; a version manager's shim may exist for a version that is not there.
PYTHON = $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found on PATH." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Two stamps: a change of pyproject.toml alone installs only the project again.
$(VENV)/.requirements: requirements/dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.requirements
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --editable .
	@touch $@
