PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-all smoke lint docs ui

demo: $(VENV)/installed
	$(BIN)/idal run --profile demo --data-dir data --workers 2

PYTEST = $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: $(VENV)/installed
	$(PYTEST) -m 'not live and not real'

test-all: $(VENV)/installed
	$(PYTEST)

smoke: $(VENV)/installed
	$(BIN)/python -m pytest -m live idal_assets_tests/test_live_automation.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is in site/index.html."

ui: $(VENV)/installed
	$(BIN)/idal ui --data-dir data

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed; call make PYTHON=/path/to/python3")'
	@echo 'Installing into $(VENV); the first time this takes some minutes.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,cluster,postgres]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@
