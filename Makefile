# `make demo` and `make test` do all the set-up on a fresh machine: a virtual environment in .venv, then the job.

PYTHON ?= python3
# Any torch that pyproject.toml allows. For a GPU build: make demo TORCH="torch --index-url <your index>"
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN = $(VENV)/bin
# The models of the default tests are tiny: a second thread in each process costs more than it brings. With `loadfile`,
# pytest-xdist waits for ever once a process that died was replaced, so none is: the run ends and names the test.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --max-worker-restart=0

.PHONY: demo test coverage slow lint format matrix picture pages docs docs-links bench clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: $(VENV)/.ready
	$(BIN)/python examples/moving_glyphs.py

test: lint
	$(PYTEST)

# Tracing slows every test down, so coverage has a target of its own.
coverage: $(VENV)/.ready
	$(PYTEST) --cov --cov-report=term:skip-covered

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A short run on every supported Python, with the lowest and the newest versions of what the package needs.
matrix: $(VENV)/.ready
	$(BIN)/nox

picture: $(VENV)/.ready
	$(BIN)/python docs/draw_architecture.py

pages: $(VENV)/.ready
	$(BIN)/python docs/list_stock_models.py

# The site in docs/_build/html, offline once its packages are there: notebooks run (and are kept until their code
# changes), warnings are errors, and every link inside is followed. Links that lead out are listed, and `docs-links`
# asks for them.
$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

docs-links: $(VENV)/.docs
	$(BIN)/python -m sphinx -b linkcheck -d docs/_build/doctrees docs docs/_build/links

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) .nox .mypy_cache demo_output build docs/_build docs/models docs/project docs/reference *.egg-info .coverage
