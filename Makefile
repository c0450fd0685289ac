# `make test` on a fresh machine installs what is missing into .venv and runs all the tests. Servers, threads and
# processes under test share two cores with other tests: what fails beside them has a second chance alone, and says so.
PYTHON ?= python3
VENV := .venv

.PHONY: test lint install clean

install:
	@PYTHON="$(PYTHON)" scripts/install.sh dev

test: install
	@$(VENV)/bin/python -m pytest -n 2 --dist worksteal -q || \
		{ [ $$? -eq 1 ] && echo "What failed runs once more, alone: it must pass without neighbours." && \
		$(VENV)/bin/python -m pytest --last-failed --last-failed-no-failures none -q; }

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
