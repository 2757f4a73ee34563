# What can be made, with one line each: make, or make help.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# a worker a core, eight at most; whole files to a worker, since their tests share what they set up
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile
# XLA's own compiler on the CPU, in a process of its own; least optimisation: the tests compile more than they compute
XLA_ON_CPU := PJRT_DEVICE=CPU XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

.PHONY: help demo check lint test test-long env

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(READY)  ## experiment 0 on one shipped image
	$(BIN)/python posterior_sample.py data.end_id=1 name=make_demo

check: lint  ## before each commit, a minute or two: lint, and the quick tests, which start no whole run
	$(PYTEST) -m "not slow and not program and not heavy" tests

lint: $(READY)  ## what ruff, mypy (on the contracts), tools/lint.py (layout and prose) and tools/reference.py have to say
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/lint.py
	$(BIN)/python tools/reference.py --check

test: lint  ## lint and every test but the slow ones, also on XLA's CPU
	$(PYTEST) tests
	$(XLA_ON_CPU) $(PYTEST) tests/xla

test-long: lint  ## everything, the slow tests as well
	$(PYTEST) -m "slow or not slow" tests
	$(XLA_ON_CPU) $(PYTEST) tests/xla

env: $(READY)  ## the environment alone, .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@
