PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast lint docs
demo: .venv/ready
	$(BIN)/python -m jbid demo --out demo

# two processes, because most of a test is compilation, which keeps one core busy
test: .venv/ready lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 12

# without resumed trainings, several processes and TFDS
test-fast: .venv/ready lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# the site, in build/site: runs the notebooks, and fails at a warning
docs: .venv/docs
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site

.venv/docs: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

# pinned versions, so that a new environment is like the last one
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,test]'
	touch $@
