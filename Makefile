# Each target sets up .venv by itself, and again only when the pins or the package's metadata change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo

.PHONY: demo test lint types layers tests format bench train-mini clean setup

demo: setup ## a region, pairs, training, evaluation and a report
	$(BIN)/geograft demo $(DEMO)

test: lint types layers tests ## everything that must pass

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

tests: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## every benchmark, one JSON object a line
	@for script in benchmarks/*.py; do $(BIN)/python $$script --json; done

train-mini: setup ## train everything that the package ships (resumable)
	$(BIN)/python scripts/train_mini.py --work work

clean:
	rm -rf $(VENV) $(DEMO) work build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
