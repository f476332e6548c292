PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint
demo: .venv/ready
	$(BIN)/python -m jbid demo --out demo

# two processes, as most of a test is compilation, which keeps one core busy; a file's tests share what they compile
test: .venv/ready lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 12

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# pinned versions, so that what worked once works again
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,test]'
	touch $@
