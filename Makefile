# castbank: `make demo` shows it, `make proof` proves it small, `make test` checks it; all set up all they need and may be run again.
# Another python: make PYTHON=/usr/bin/python3.12. Which torch build: README, Installation.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
SHELL := /bin/bash
WORKERS ?= 2

.PHONY: help env demo proof test lint bench prove clean
help:  ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 10

env: $(STAMP)  ## the virtual environment, exactly the tested versions

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "castbank needs Python 3.11 or newer: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	touch $@

demo: env  ## real footage to shards to a trained identity bank, in ./demo
	$(BIN)/castbank demo --output demo

proof: env  ## who is who, with and without each part of the bank, in ./proof; log beside it
	mkdir -p proof && set -o pipefail && $(BIN)/castbank proof --output proof 2>&1 | tee -a proof/log.txt

lint: env  ## style and types
	$(BIN)/ruff format --check pipeline jobs data_prep cluster tests
	$(BIN)/ruff check pipeline jobs data_prep cluster tests
	$(BIN)/mypy

test: env lint  ## every check that fits in minutes (WORKERS=2 processes)
	$(BIN)/castbank faces install all
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not bench"

prove: env  ## the long proofs: kills, resumes, byte-identity, on the whole footage
	$(BIN)/castbank faces install all
	$(BIN)/python -m pytest -m slow

bench: env  ## speed and memory, as ratios taken in one run
	$(BIN)/castbank faces install all
	$(BIN)/python -m pytest -m bench -s

clean:  ## remove the environment and the demo; the face packs and footage in CASTBANK_HOME stay
	rm -rf $(VENV) demo proof .pytest_cache .mypy_cache .ruff_cache
