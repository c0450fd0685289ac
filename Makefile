# `make test` on a fresh machine installs what is missing into .venv and runs all the tests.
PYTHON ?= python3
VENV := .venv

.PHONY: test lint install clean

install:
	@PYTHON="$(PYTHON)" scripts/install.sh dev

test: install
	@$(VENV)/bin/python -m pytest -n 2 --dist worksteal -q

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
