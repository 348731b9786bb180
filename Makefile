# `make zoo` and `make test` need Python 3.11+, pip and make; everything goes into .venv and ./zoo.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# The version check of pyright's wrapper asks the network at every start.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.PHONY: help zoo test test-slow chaos check bench clean
.NOTPARALLEL:

help:
	@awk -F ':.*## ' '/^[a-z-]*:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

zoo: .venv/.installed ## train the digits zoo into ./zoo (what is done stays), show it, load a member of it
	$(BIN)/python -m training run digits --out zoo
	$(BIN)/vitzoo tree zoo
	$(BIN)/vitzoo show zoo/pt-12/ft-3 --evaluate

# The tests start dozens of Pythons: where bytecode is not kept, each compiles everything again.
test: .venv/.installed-dev ## every test but the slow ones
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

test-slow: .venv/.installed-dev ## the slow tests alone
	$(BIN)/pytest -m slow

chaos: .venv/.installed-dev ## populations in long storms: processes, nodes and disks fail at random moments
	$(BIN)/pytest -m chaos --numprocesses=0

check: .venv/.installed-dev ## format, lint, types, import contracts, shell scripts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/shellcheck --external-sources training/slurm/* .ci/run

bench: .venv/.installed-dev ## load, read and import times against their floors (takes 7 GB of disk)
	$(BIN)/python -m tests.benchmarks.load_member
	$(BIN)/python -m tests.benchmarks.population
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.import_release

clean: ## remove .venv, builds and caches; ./zoo stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find vitzoo training tests -name __pycache__ -type d -prune -exec rm -rf {} +

# venv and ensurepip are looked for first: Debian splits them off, and a venv without pip is a half one.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "vitzoo needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "'$(PYTHON)' has no venv or ensurepip module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing torch, transformers and the rest into .venv: a few minutes, silent unless something fails."
	$(INSTALL) ".[training]"
	@touch $@

# timm needs torchvision, which transformers would use wherever it finds it, and which has no build for a CPU torch: both
# lie beside the packages, for the tests that ask for them (tests/interop/real_timm.py).
.venv/.installed-dev: pyproject.toml constraints.txt tests/interop/timm.txt | .venv/bin/pip
	@echo "Installing torch, transformers and the tools into .venv: a few minutes, silent unless something fails."
	$(INSTALL) ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/timm \
	    --requirement tests/interop/timm.txt
	@touch .venv/.installed $@
