# Everything sets itself up: `make demo`, `make test`. The environment lies beside the checkout.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= $(CURDIR)-venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs_installed
# A file of tests stays in one process, since its fixtures are shared; long files come first.
PYTEST := $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder
export PYTHONDONTWRITEBYTECODE ?= 1

.PHONY: help setup demo test quick slow check fmt lint types contract examples docs bench torture fuzz clean
help:        ## what there is
	@grep -hE '^[a-z]+: *.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# torch first and by itself: nothing that follows may choose another build of it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[xtb,dft,hat,cluster,tensorboard,dev]'
	touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $(DOCS_STAMP)

setup: $(STAMP)        ## virtual environment with tested versions
	@echo "next: source $(BIN)/activate"

demo: $(STAMP)        ## labels to barriers with error bars, some 9 minutes of processor time
	rm -rf runs/demo
	PATH="$(abspath $(BIN)):$$PATH" bash examples/demo.sh runs/demo

test: $(STAMP) lint types contract        ## everything CI runs
	$(PYTEST)

quick: $(STAMP)        ## tests without the slow ones
	$(PYTEST) -m "not slow"

slow: $(STAMP)        ## only the slow tests
	$(PYTEST) -m slow

check: test        ## the same as test

fmt: $(STAMP)        ## put the code into its form
	$(BIN)/ruff format src tests examples benchmarks plugins docs
	$(BIN)/ruff check --fix src tests examples benchmarks plugins docs

lint: $(STAMP)        ## form, habits, spelling
	$(BIN)/ruff format --check src tests examples benchmarks plugins docs
	$(BIN)/ruff check src tests examples benchmarks plugins docs
	$(BIN)/codespell src tests docs examples benchmarks plugins README.md DESIGN.md CONTRIBUTING.md CHANGELOG.md

types: $(STAMP)        ## static types
	$(BIN)/pyright --pythonpath $(BIN)/python

contract: $(STAMP)        ## who may import whom
	$(BIN)/lint-imports --no-cache

docs: $(DOCS_STAMP)        ## the documentation as a site, build/site/index.html; warnings are errors
	PATH="$(abspath $(BIN)):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP)        ## figures of benchmarks/, some minutes
	$(BIN)/python benchmarks/ensemble_speed.py

torture: $(STAMP)        ## kill and damage small runs for 20 minutes: nothing may be lost
	$(BIN)/python benchmarks/torture.py --minutes 20 --work runs/torture --kept runs/torture/kept

fuzz: $(STAMP)        ## 100,000 damaged files for every reader
	$(BIN)/python benchmarks/fuzz.py --results runs/fuzz.json

clean:        ## remove the environment and runs
	rm -rf $(VENV) runs
