# Needs Python 3.11 or newer with pip and venv. Writes only into .venv, ./zoo and ./text-zoo.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# Turn off the version check of pyright's wrapper, which uses the network at every start.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.PHONY: help zoo text-zoo docs test test-slow test-lowest chaos check bench release-notes clean
.NOTPARALLEL:

help:
	@awk -F ':.*## ' '/^[a-z-]*:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

zoo: .venv/.installed ## train the digits zoo into ./zoo (finished members stay), print it, evaluate a member
	$(BIN)/python -m training run digits --out zoo
	$(BIN)/vitzoo tree zoo
	$(BIN)/vitzoo show zoo/pt-12/ft-3 --evaluate
	@echo
	@echo "Now try: $(BIN)/vitzoo select zoo --where head_type=mlp,min_test_accuracy=.8"
	@echo "         $(BIN)/vitzoo diff zoo/pt-12/ft-3 zoo/pt-12/ft-4"
	@echo "         $(BIN)/vitzoo merge 'zoo/pt-4/ft-*' --where head_type=linear --method greedy --to soup"

text-zoo: .venv/.installed ## train the snippets zoo, small language models, into ./text-zoo, and print it
	$(BIN)/python -m training run snippets --out text-zoo
	$(BIN)/vitzoo tree text-zoo

docs: .venv/.installed-dev ## build the documentation into build/site: train ./zoo, run the guides, check all links
	$(BIN)/python -m training run digits --out zoo
	$(BIN)/python -m docs.site

# Save bytecode: the tests start dozens of Python processes, and each would compile everything again.
test: .venv/.installed-dev ## run every test except the slow ones
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

test-slow: .venv/.installed-dev ## run only the slow tests: the digits zoo, the guides, kills of processes
	$(BIN)/pytest -m slow

chaos: .venv/.installed-dev ## run the chaos tests: processes, nodes and disks fail at random moments
	$(BIN)/pytest -m chaos --numprocesses=0

# A venv of its own; torch is the pinned one, because its oldest allowed release pulls several GB of CUDA.
test-lowest: .venv/bin/pip ## the README and the commands with the lowest versions that pyproject.toml allows
	$(PYTHON) tests/lowest.py > .venv/lowest.txt
	grep '^torch==' constraints.txt >> .venv/lowest.txt
	$(PYTHON) -m venv --clear .venv/lowest
	.venv/lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv/lowest.txt \
	    --editable ".[training,interop,report,docs]" beartype hypothesis psutil pytest pytest-socket pytest-xdist pyyaml starlette uvicorn
	.venv/lowest/bin/python -m pytest --override-ini filterwarnings=default \
	    tests/test_docs.py tests/test_cli.py tests/test_round_trip.py tests/sources

check: .venv/.installed-dev ## check format, lint, types, import contracts and shell scripts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/shellcheck --external-sources training/slurm/* .ci/run

bench: .venv/.installed-dev ## compare load, read and import times with their floors (needs 7 GB of disk)
	$(BIN)/python -m tests.benchmarks.load_member
	$(BIN)/python -m tests.benchmarks.population
	$(BIN)/python -m tests.benchmarks.population --kind bert
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.import_release

release-notes: ## print the newest section of CHANGELOG.md, or that of VERSION=0.2.0, for the page of a release
	@awk -v version='$(VERSION)' '/^## / { here = !found && (version == "" || $$2 == version || $$2 == "[" version "]"); found = found || here } \
	    here { print } END { if (!found) { print "CHANGELOG.md has no section of " version > "/dev/stderr"; exit 1 } }' CHANGELOG.md

clean: ## delete .venv, builds and caches; keep ./zoo
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find vitzoo training tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Check for venv and ensurepip first: Debian packages them separately, and a venv without pip does not work.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "vitzoo needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "'$(PYTHON)' has no venv or ensurepip module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing torch, transformers and the rest into .venv. This takes a few minutes and prints only errors."
	$(INSTALL) ".[training]"
	@touch $@

# Install timm and torchvision into a folder of their own, which tests/interop/real_timm.py uses. torchvision has no
# build for a CPU torch, and transformers would use it if it were among the packages.
.venv/.installed-dev: pyproject.toml constraints.txt tests/interop/timm.txt | .venv/bin/pip
	@echo "Installing torch, transformers and the tools into .venv. This takes a few minutes and prints only errors."
	$(INSTALL) ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/timm \
	    --requirement tests/interop/timm.txt
	@touch .venv/.installed $@
