# `make demo` and `make test` do all the set-up on a fresh machine: a virtual environment in .venv, then the job.

PYTHON ?= python3
# Any torch that setup.cfg allows. For a GPU build: make demo TORCH="torch --index-url <your index>"
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test slow lint format bench clean

$(VENV)/.ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: $(VENV)/.ready
	$(BIN)/python examples/moving_glyphs.py

test: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --dist load --cov --cov-report=term:skip-covered

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) demo_output build *.egg-info .coverage
