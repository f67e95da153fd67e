# Two commands for newcomers:  make demo   make test
# Each makes the environment .venv on its first run; later runs only do what has changed.
#
#   make demo PYTHON=python3.12        another interpreter (3.11 or 3.12)
#   make demo VENV=/tmp/xdyna          another place for the environment
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
#                                      on Linux without a GPU: torch without its gigabytes of CUDA packages

# The first interpreter that really starts (pyenv's shims exist and fail) and is of a version we support.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; \
	done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DELETE_ON_ERROR:
.PHONY: demo test lint format clean help

help:
	@echo "make demo    install, then animate the shipped picture with the shipped motion into outputs/"
	@echo "make test    install what the tests need; lint, type-check and test"
	@echo "make lint    ruff and mypy only"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove the environment and caches; outputs/ and runs/ stay"

demo: $(VENV)/.installed
	$(BIN)/xdyna demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 found. Install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Order-only on the interpreter: its own date says nothing about what is installed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[dev,train]"
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
