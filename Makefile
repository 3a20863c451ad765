# `make demo` and `make test` do all their set-up themselves; a second call skips what is done.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Tests run in two processes of one thread each: faster than one process of two on two cores.
# A group of tests that share what is slow to make (xdist_group) stays in one of them.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup
# make test FAST=1: the inner loop, under two minutes; losses, metrics, core, one method end to end.
RESUME := tests/methods/matrix/test_resume.py::test_a_killed_run_ends_as_the_unbroken_one
FAST_TESTS := tests/core tests/losses tests/metrics tests/test_floors.py tests/test_dependencies.py \
	tests/training/test_private.py tests/methods/test_gh.py '$(RESUME)[gh_simclr]'

.PHONY: demo test oldest lint format bench claims zoo soak clean help

help:
	@echo "make demo    pretrain SimCLR and GH-SimCLR on long-tailed images, compare, write a report"
	@echo "make test    run the tests; with FAST=1 those of losses, metrics, core and one method"
	@echo "make oldest  run the fast tests on the oldest versions that pyproject.toml allows"
	@echo "make lint    ruff, mypy, codespell"
	@echo "make format  ruff format and fixes"
	@echo "make soak    faults put into runs, and what became of them: docs/faults.md; up to an hour"
	@echo "make bench   the table of speeds, as ratios with their bars"
	@echo "make claims  what the papers claim, trained pair by pair and judged: hours; ARGS='--jobs 4'"
	@echo "make zoo     the zoo's entries, made of the claims' cells; trains those that are missing: hours"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"ltplugins needs Python 3.11 or newer, this is {v.major}.{v.minor}. Set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/.base

demo: $(VENV)/.base
	$(BIN)/ltplugins demo

test: $(VENV)/.dev
	$(PYTEST) $(if $(FAST),$(FAST_TESTS))

# Several GB are fetched; the environment is made anew each time.
oldest:
	$(PYTHON) scripts/oldest.py $(VENV)-oldest
	@touch $(VENV)-oldest/.base $(VENV)-oldest/.dev
	$(MAKE) test FAST=1 VENV=$(VENV)-oldest

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell ltplugins scripts tests *.md docs

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python scripts/bench/all.py

soak: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.soak.all $(ARGS)
	$(if $(ARGS),,OMP_NUM_THREADS=1 $(BIN)/python -m scripts.fuzz.all)

# Each cell is one thread; it stops at any time and goes on.
claims: $(VENV)/.base
	$(BIN)/python scripts/claims.py $(ARGS)

zoo: $(VENV)/.base
	$(BIN)/python scripts/zoo.py $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-oldest build *.egg-info
