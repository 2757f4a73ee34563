# make demo: environment + experiment 0 on one shipped image.   make test: environment + the tests.
# make test-long: the slow ones as well.   make lint: what ruff and mypy (on the contracts) have to say; part of both.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# a worker a core, eight at most; whole files to a worker, since their tests share what they set up
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile
# XLA's own compiler on the CPU, in a process of its own; least optimisation: the tests compile more than they compute
XLA_ON_CPU := PJRT_DEVICE=CPU XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

.PHONY: demo lint test test-long env

demo: $(READY)
	$(BIN)/python posterior_sample.py data.end_id=1 name=make_demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) tests
	$(XLA_ON_CPU) $(PYTEST) tests/xla

test-long: lint
	$(PYTEST) -m "slow or not slow" tests
	$(XLA_ON_CPU) $(PYTEST) tests/xla

env: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@
