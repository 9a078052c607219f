# Everything runs in .venv, made from the pinned requirements. PYTHON may name any Python >= 3.11.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: figure test check hooks coverage docs notebooks linkcheck benchmark clean

figure: .venv/run  ## the paper's "Serving very large models": table and picture in results/sec6_3
	.venv/bin/python run.py --config sec6_3

test: .venv/dev  ## all tests
	.venv/bin/python -m pytest -n 2 --dist loadfile  # compiling takes most of the time

check: .venv/dev  ## lint, format, types, which rooms import from which
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

hooks: .venv/dev  ## git runs the checks before each commit
	.venv/bin/pre-commit install

coverage: .venv/dev  ## lines that no test runs; takes twice as long as the tests
	.venv/bin/python -m pytest -n 2 --dist loadfile --cov

docs: .venv/docs  ## pages and API reference in docs/_build/html/index.html; a warning is an error
	.venv/bin/sphinx-build -W --keep-going -q -b html docs docs/_build/html

notebooks: .venv/docs  ## runs those of examples/ and stores what they show
	.venv/bin/python docs/run_notebooks.py

linkcheck: .venv/docs  ## links to other sites, of pages and of README; needs a network
	.venv/bin/sphinx-build -q -b linkcheck docs docs/_build/linkcheck
	.venv/bin/sphinx-build -q -C -D extensions=myst_parser -D root_doc=README \
		-D include_patterns=README.md,CONTRIBUTING.md,CHANGELOG.md -D suppress_warnings=myst.xref_missing,toc \
		-b linkcheck . docs/_build/linkcheck

benchmark: .venv/dev  ## million events per second against a scalar Numba loop
	.venv/bin/python benchmarks/simulate.py

clean:
	rm -rf .venv results docs/_build docs/configs.md docs/examples docs/searching.md

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "beta_jax needs Python >= 3.11: make PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/run: requirements.txt | .venv/bin/python
	@echo "installing into .venv: a minute or two, more where downloads are slow"
	$(PIP) install -r requirements.txt -e .
	@touch $@

.venv/dev: requirements.txt requirements-dev.txt | .venv/bin/python
	@echo "installing into .venv: a minute or two, more where downloads are slow"
	$(PIP) install -r requirements-dev.txt -e .
	@touch $@ .venv/run

.venv/docs: requirements.txt requirements-docs.txt | .venv/bin/python
	@echo "installing into .venv: a minute or two, more where downloads are slow"
	$(PIP) install -r requirements-docs.txt -e .
	@touch $@ .venv/run
