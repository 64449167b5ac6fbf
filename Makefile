# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-slow test-lab lint types imports format docs setup setup-dev sshd wheel clean

demo: setup
	$(BIN)/edgeprune build targets/digits --profile profiles/local.toml

test: setup-dev sshd lint types imports
	$(BIN)/python -m pytest

test-slow: setup-dev sshd
	$(BIN)/python -m pytest -n 0 -m slow
	$(BIN)/python -m pytest -n 0 -m "hypothesis and not slow" --hypothesis-profile=default

# EDGELAB=path/to/edgelab
test-lab: setup-dev
	EDGELAB=$(EDGELAB) $(BIN)/python -m pytest -n 0 -m lab

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-dev
	$(BIN)/mypy

imports: setup-dev
	$(BIN)/lint-imports --no-logo
	$(BIN)/vermin --target=3.8- --no-tips --violations edgeprune/benchmarking/agent/device

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tables of README.md and docs/ that follow from the code; `make test` fails where they are not current.
docs: setup-dev
	$(BIN)/python tools/update_docs.py

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing edgeprune and its runtimes into $(VENV) (a few minutes the first time)"
	$(PIP) install -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

# The tests talk to a real OpenSSH server on loopback. Installed where that is allowed; else those tests say so.
sshd:
	@tools/install_sshd

wheel: setup-dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) runs dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
