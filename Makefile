SHELL := /bin/bash
VENV ?= .venv
export VENV
# Processes that share the tests; 0 runs them in one, for a debugger.
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup setup-vllm demo test check schema clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: ## make .venv and install what a run needs
	@scripts/setup.sh

demo: setup ## train a tiny language model and a tiny vision-language model, from nothing, on a CPU
	$(VENV)/bin/cohort train recipes/quickstart_text.yaml --fresh
	$(VENV)/bin/cohort train recipes/quickstart_vision.yaml --fresh

test: ## set up, with vLLM (its CPU build where there is no GPU), and run every test
	@scripts/setup.sh dev vllm
	$(VENV)/bin/python -m pytest -q -n $(TEST_PROCESSES) --durations=10

setup-vllm: ## add vLLM to .venv: its CPU build where there is no GPU
	@scripts/setup.sh dev vllm

check: ## lint, format and types
	@scripts/setup.sh dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

schema: setup ## recipe.schema.json, for editors
	$(VENV)/bin/cohort schema > recipe.schema.json

clean: ## remove what the tools leave behind; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis recipe.schema.json
	find trainer tests -name __pycache__ -type d -prune -exec rm -rf {} +
