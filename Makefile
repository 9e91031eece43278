# make run   set everything up, run the whole course on the embedded data, say where the report is
# make test  set everything up, run every test (make test FAST=1: the quick ones, about three minutes)
# make lab   open the notebooks in JupyterLab
# make gpu   add what fine-tuning the real Gemma-3 on a CUDA GPU needs
# make help  print these lines

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export HF_HUB_OFFLINE ?= 1

.PHONY: run test lab gpu help setup-run setup-lab setup-test notebooks korean scenes clean

run: setup-run
	@echo "== running the five notebooks on the embedded data (3 to 8 minutes on two cores)"
	@$(BIN)/visdial-lab pipeline --config scenes --output runs/scenes

test notebooks: export CUDA_VISIBLE_DEVICES := # expected outputs are a CPU's
test: setup-test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
ifdef FAST
	@echo "== the quick tests"
	@$(BIN)/python -m pytest -q -m "not slow"
else
	@echo "== all tests"
	@$(BIN)/python -m pytest -q
	@echo "== the notebooks, cell by cell, outputs compared with the committed ones"
	@$(BIN)/python -m pytest -q --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 900 notebooks/*.ipynb
endif

lab: setup-lab
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

gpu: setup-run
	@echo "== adding Unsloth"
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[gpu]'

help:
	@sed -n 's/^# make /make /p' Makefile

# Rebuild what is committed: the executed notebooks, the Korean course made from them, and the embedded dataset.
notebooks: setup-test
	@$(BIN)/python tests/execute_notebooks.py
	@$(BIN)/python tests/translate_notebooks.py

korean: setup-test
	@$(BIN)/python tests/translate_notebooks.py

scenes: setup-run
	@$(BIN)/python data/recipes/build_scenes.py --output data/scenes

setup-run: $(VENV)/.installed-run
setup-lab: $(VENV)/.installed-lab
setup-test: $(VENV)/.installed-test

$(BIN)/python:
	@echo "== making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "VisDial Lab needs Python 3.11, 3.12 or 3.13; say which: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

# torch first and pinned: an open range would fetch the newest build with gigabytes of CUDA libraries
$(VENV)/.installed-run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing the course and its libraries (some minutes, once)"
	@$(INSTALL) "torch==2.13.0"
	@$(INSTALL) --editable .
	@touch $@

# students need no test tools, and no nbgrader with its menu
$(VENV)/.installed-lab: $(VENV)/.installed-run
	@echo "== installing JupyterLab"
	@$(INSTALL) --editable '.[lab]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-lab
	@echo "== installing the test tools"
	@$(INSTALL) --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
