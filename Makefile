# Every command that a developer, or the CI, needs: `make help` lists them. Works with GNU Make 3.81 and newer.
#
# What was installed is remembered by stamp files in the environment, so a second `make` starts at once, and a change
# of pyproject.toml or of the lock installs again.

.DEFAULT_GOAL := help
.SUFFIXES:

VENV ?= .venv
DATA ?= data
LOCK := requirements-dev.lock
BIN := $(VENV)/bin

# Compiled files are kept, whatever the machine's habits: an installation is many processes, each of which would compile
# all that it imports.
export PYTHONDONTWRITEBYTECODE :=

# The first of these that is new enough makes the environment; `make PYTHON=/path/to/python3` takes another.
PYTHON ?= python3.13 python3.12 python3.11 python3

# More arguments for the command a target runs: `make test ARGS='-k joining'`, `make run ARGS='--port 9090'`.
ARGS ?=

# Processes that `make test` runs tests in, each file in one: most of the time they wait for services that are starting.
JOBS ?= 3

PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help run demo cluster test test-faults check lint test-fast format bench bench-learning bench-evaluation lock hooks clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=python3.12  DATA=data  VENV=.venv  JOBS=3  ARGS='more arguments for the command'"

# One simple command, which make starts without a shell between: Ctrl-C goes straight to the service.
run: $(VENV)/.run ## start the service and its portal on http://127.0.0.1:8080, with its files in data/
	@$(BIN)/rankward serve --data $(DATA) $(ARGS)

demo: $(VENV)/.run ## show a front page that learns, on files that are thrown away
	@$(BIN)/rankward demo $(ARGS)

cluster: $(VENV)/.dev ## try a cluster on this machine: servers, nodes and traffic, to be killed
	@$(BIN)/rankward cluster $(ARGS)

test: $(VENV)/.dev ## run every test but the fault tests
	$(BIN)/python -m pytest -m "not fault" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-faults: $(VENV)/.dev ## run the tests that kill, fill and soak, for minutes
	$(BIN)/python -m pytest -m fault $(ARGS)

check: lint test-fast ## run the linters, the type checker and the quick tests: before every commit

lint: $(VENV)/.dev ## run the linters and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-fast: $(VENV)/.dev ## run the quick tests
	$(BIN)/python -m pytest -m "not slow and not fault" -n $(JOBS) --dist loadfile $(ARGS)

format: $(VENV)/.dev ## format the code, and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure the service, or one part: make bench ARGS=...
	$(BIN)/python -m benchmarks $(ARGS)

bench-learning: $(VENV)/.dev ## measure how well, and how soon, it learns
	$(BIN)/python -m benchmarks.learning $(ARGS)
	$(if $(filter-out --quick,$(ARGS)),,$(BIN)/python -m benchmarks.optimizing $(ARGS))

bench-evaluation: $(VENV)/.dev ## measure whether estimates and intervals hold, and how fast policies are judged
	$(BIN)/python -m benchmarks.evaluation $(ARGS)

lock: $(VENV)/.made ## write the lock again from pyproject.toml; ARGS=--upgrade takes newer versions
	$(PIP) install --quiet "uv>=0.5"
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev --no-emit-index-url \
		--custom-compile-command "make lock" --output-file $(LOCK) $(ARGS) pyproject.toml

hooks: $(VENV)/.dev ## check each commit as it is made (installs the pre-commit hook)
	$(BIN)/pre-commit install

clean: ## remove the environment and every cache; data/ stays
	rm -rf "$(VENV)" build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the service needs, in the versions that the tests passed with.
$(VENV)/.run: $(VENV)/.made pyproject.toml $(LOCK)
	@echo "Installing rankward into $(VENV) ..."
	@$(PIP) install --quiet --constraint $(LOCK) --editable '.[worlds]'
	@touch $@

# What the tests need, which is all the service needs and more: so this serves `make run` as well.
$(VENV)/.dev: $(VENV)/.made pyproject.toml $(LOCK)
	@echo "Installing the development tools and rankward into $(VENV) ..."
	@$(PIP) install --quiet --requirement $(LOCK)
	@$(PIP) install --quiet --no-deps --editable .
	@touch $(VENV)/.run $@

# A candidate is tried, not only looked for: version managers put names on PATH that do not start.
$(VENV)/.made:
	@bare=; for python in $(PYTHON); do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		if $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then \
			echo "Making $(VENV) with $$($$python --version) ..."; \
			$$python -m venv "$(VENV)" && touch $@; exit; \
		fi; \
		bare=$$python; \
	done; \
	if [ -n "$$bare" ]; then \
		echo "$$bare cannot make virtual environments, for want of the modules venv and ensurepip." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	else \
		echo "No Python 3.11 or newer was found; these were tried: $(PYTHON)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3 ..." >&2; \
	fi; \
	exit 1
