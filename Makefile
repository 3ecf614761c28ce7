# make run    install once, then execute the notebooks in order into runs/
#             on images of your own: make run DATASET=path/to/parts [CATEGORIES="a b"]
# make test   install once, then run the tests
# make lab    install once, then open JupyterLab
# make site   install once, then build the web site into build/site/_build/html/
# make help   list everything

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# The pins of environment.yml hold here too: conda and pip users get what is tested.
PINS := sed -n 's/^ *- \([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' environment.yml

# As given, whatever characters a folder's name holds.
override DATASET := $(value DATASET)
override CATEGORIES := $(value CATEGORIES)
export DATASET CATEGORIES
SITE := .venv/.site
# uv installs in a quarter of pip's time. It knows none of pip's settings: with an index of your own,
# or where uv fails, pip does it.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
INDEX = $$($(BIN)/pip config get global.index-url 2>/dev/null || echo "$$PIP_INDEX_URL")
ASK := --constraint .venv/constraints.txt --editable
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
INSTALL = f() { [ -z "$(INDEX)" ] && $(PIP) uv && $(UV) $(ASK) "$$1" || $(PIP) $(ASK) "$$1"; }; f

.PHONY: run test lab site lint format publish pictures help
.DEFAULT_GOAL := help

run: $(READY)  ## execute notebooks/ in order into runs/; DATASET=path CATEGORIES="a b": on these; NOTEBOOKS="01 04": only these
	@set -f; $(BIN)/python -m spdlib.notebooks run $(NOTEBOOKS) $${DATASET:+--dataset "$$DATASET"} \
	  $${CATEGORIES:+--categories $$CATEGORIES}

test: $(READY)  ## run all tests, the slow ones too
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

lab: $(READY)  ## open JupyterLab on notebooks/
	@$(BIN)/jupyter lab --notebook-dir=notebooks

site: $(SITE)  ## build the web site into build/site/_build/html/, and check its links
	@$(BIN)/jupyter-book build . --config docs/site/_config.yml --toc docs/site/_toc.yml \
	  --path-output build/site -W -n --keep-going --quiet
	@$(BIN)/python docs/site/check.py build/site/_build/html

lint: $(READY)  ## check style, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy spdlib

format: $(READY)  ## apply style and format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

publish: $(READY)  ## after `make run`: put the executed notebooks' outputs into notebooks/
	@$(BIN)/python -m spdlib.notebooks publish
	@$(MAKE) --no-print-directory pictures

pictures: $(READY)  ## make the README's pictures from the notebooks' outputs
	@$(BIN)/python docs/pictures.py

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(READY): pyproject.toml environment.yml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) comes without venv; on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv (once; about 7 GB) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(PINS) > .venv/constraints.txt
	@$(INSTALL) '.[test]'
	@touch $@

$(SITE): $(READY)
	@$(INSTALL) '.[site]'
	@touch $@
